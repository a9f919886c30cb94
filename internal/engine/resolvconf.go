package engine

import (
	"bufio"
	"io"
	"net/netip"
	"slices"
	"strings"

	"penne/internal/conf"
)

// resolvConf is the content of resolv.conf(5).
type resolvConf struct {
	Servers []netip.Addr // loopback ones included, zones dropped
	Search  []string
}

// parseResolvConf parses resolv.conf(5). Malformed lines are skipped, as the C
// library does.
func parseResolvConf(r io.Reader) resolvConf {
	var out resolvConf
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
func (r *resolvConf) first(v4 bool) netip.Addr {
	for _, a := range r.Servers {
		if a.Is4() == v4 {
			return a
		}
	}
	return netip.Addr{}
}

// equal reports whether both have the same content.
func (r *resolvConf) equal(o *resolvConf) bool {
	return slices.Equal(r.Servers, o.Servers) && slices.Equal(r.Search, o.Search)
}
