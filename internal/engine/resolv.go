package engine

import (
	"bufio"
	"io"
	"net/netip"
	"slices"
	"strings"

	"penne/internal/conf"
)

// resolver is what resolv.conf(5) says of name servers and search domains.
type resolver struct {
	Servers []netip.Addr // loopback ones included, zones dropped
	Search  []string
}

// readResolver reads resolv.conf text. Lines that make no sense are skipped, as
// the C library does.
func readResolver(r io.Reader) resolver {
	var out resolver
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(words[1]); err == nil {
				out.Servers = append(out.Servers, a.WithZone("").Unmap())
			}
		case "search", "domain": // the last one counts
			out.Search = nil
			for _, d := range words[1:] {
				if d = strings.TrimSuffix(d, "."); d != "" && len(out.Search) < conf.MaxSearch {
					out.Search = append(out.Search, d)
				}
			}
		}
	}
	return out
}

// first is the first server of a family, invalid if there is none.
func (r *resolver) first(v4 bool) netip.Addr {
	for _, a := range r.Servers {
		if a.Is4() == v4 {
			return a
		}
	}
	return netip.Addr{}
}

// equal tells whether both say the same.
func (r *resolver) equal(o *resolver) bool {
	return slices.Equal(r.Servers, o.Servers) && slices.Equal(r.Search, o.Search)
}
