package ndp

import (
	"slices"

	"penne/internal/fwd"
	"penne/internal/wire"
	"penne/shard/env"
)

// At most this many, the latest ones, are withdrawn: with maxDNS and maxDNSSL the
// advertisement stays below minMTU.
const (
	maxWithdrawnPrefixes = 4
	maxWithdrawnSearch   = 32
)

// withdrawn is what was announced and no longer is. A guest would keep it for
// ever, so each unsolicited advertisement is followed by one with lifetimes of
// zero for it (RFC 8106 section 5.1; addresses of a prefix are deprecated at once
// and removed within two hours, RFC 4862 section 5.5.3).
type withdrawn struct {
	dns      []wire.Addr
	search   []string
	prefixes []prefix
	options  []byte // for all of these, as they go into an advertisement
}

// Reconfigure changes what is announced to c.
func (r *Responder) Reconfigure(c Config) {
	next := New(c)
	next.withdrawn = r.withdrawn
	next.withdrawn.dns = retire(r.withdrawn.dns, r.cfg.DNS, next.cfg.DNS, maxDNS)
	next.withdrawn.search = retire(r.withdrawn.search, r.cfg.Search, c.Search, maxWithdrawnSearch)
	next.withdrawn.build()
	*r = *next
}

// Renumber must be called when the rules of IPv6 change.
func (r *Responder) Renumber(old, next *fwd.Family) {
	if r.cfg.Configured {
		return // prefixes are not announced
	}
	before := []prefix{guestPrefix(old)}
	r.withdrawn.prefixes = retire(r.withdrawn.prefixes, before, []prefix{guestPrefix(next), {}}, maxWithdrawnPrefixes)
	r.withdrawn.build()
}

// retire returns what was withdrawn or announced before and is not announced now,
// the last maxLen of it.
func retire[T comparable](withdrawn, old, now []T, maxLen int) []T {
	list := slices.DeleteFunc(slices.Concat(withdrawn, old), func(x T) bool { return slices.Contains(now, x) })
	return list[max(0, len(list)-maxLen):]
}

func (w *withdrawn) build() {
	w.options = nil
	for i := range w.prefixes {
		w.options = appendPrefix(w.options, &w.prefixes[i], 0)
	}
	w.options = appendRDNSS(w.options, w.dns, 0)
	w.options, _ = appendDNSSL(w.options, w.search, 0)
}

// withdraw commits an advertisement to all nodes that withdraws r.withdrawn, if
// there is any.
func (r *Responder) withdraw(e *env.Env) {
	if len(r.withdrawn.options) == 0 || r.cfg.NoRA {
		return
	}
	out := e.Out.Next()
	b := out.PayloadArea()
	n := r.putHeader(b, e.Rules)
	n += copy(b[n:], r.withdrawn.options)
	src := linkLocal(e.Rules)
	send(e, out, n, &src, &allNodes)
}
