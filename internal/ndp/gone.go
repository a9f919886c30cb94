package ndp

import (
	"slices"

	"penne/internal/fwd"
	"penne/internal/wire"
	"penne/shard/env"
)

// Bounds of a withdrawal, which the last ones are within: with maxDNS and
// maxDNSSL it stays below minMTU.
const (
	maxGonePrefixes = 4
	maxGoneSearch   = 32
)

// gone is what advertisements said and no longer say. A guest would believe it
// for ever, so each advertisement that nobody asked for is followed by one that
// takes it back: lifetimes of zero (RFC 8106 section 5.1; a prefix's addresses
// are deprecated at once and end in two hours, RFC 4862 section 5.5.3).
type gone struct {
	dns      []wire.Addr
	search   []string
	prefixes []prefix
	options  []byte // all of it, as it goes into an advertisement
}

// Reconfigure replaces what is announced.
func (r *Responder) Reconfigure(c Config) {
	next := New(c)
	next.gone = r.gone
	next.gone.dns = retire(r.gone.dns, r.cfg.DNS, next.cfg.DNS, maxDNS)
	next.gone.search = retire(r.gone.search, r.cfg.Search, c.Search, maxGoneSearch)
	next.gone.build()
	*r = *next
}

// Renumber is to be called when the rules of IPv6 change.
func (r *Responder) Renumber(was, now *fwd.Family) {
	if r.cfg.Configured {
		return // prefixes are not announced
	}
	before := []prefix{guestPrefix(was)}
	r.gone.prefixes = retire(r.gone.prefixes, before, []prefix{guestPrefix(now), {}}, maxGonePrefixes)
	r.gone.build()
}

// retire lists what was gone or announced and is not announced now, the last of
// it up to a number.
func retire[T comparable](gone, was, now []T, most int) []T {
	list := slices.DeleteFunc(slices.Concat(gone, was), func(x T) bool { return slices.Contains(now, x) })
	return list[max(0, len(list)-most):]
}

func (g *gone) build() {
	g.options = nil
	for i := range g.prefixes {
		g.options = appendPrefix(g.options, &g.prefixes[i], 0)
	}
	g.options = appendRDNSS(g.options, g.dns, 0)
	g.options, _ = appendDNSSL(g.options, g.search, 0)
}

// withdraw tells all nodes what is gone, if anything is.
func (r *Responder) withdraw(e *env.Env) {
	if len(r.gone.options) == 0 || r.cfg.NoRA {
		return
	}
	out := e.Out.Next()
	b := out.PayloadArea()
	n := r.putHeader(b, e.Rules)
	n += copy(b[n:], r.gone.options)
	src := linkLocal(e.Rules)
	send(e, out, n, &src, &allNodes, &allNodesMAC)
}
