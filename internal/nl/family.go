package nl

import (
	"net/netip"
	"slices"

	"penne/internal/sys"
)

// fill copies the interface's addresses and routes into f.
func (s *Snapshot) fill(f *Family, c choice) {
	def := s.bestDefault(c.v4, f.Index)
	for _, a := range s.Addrs {
		if a.Index != f.Index || a.Prefix.Addr().Is4() != c.v4 {
			continue
		}
		if ip := a.Prefix.Addr(); !c.v4 && ip.IsLinkLocalUnicast() && !f.HostLinkLocal.IsValid() {
			f.HostLinkLocal = ip
		}
		if a.global() {
			a.Index, a.Flags = 0, a.Flags&sys.IfaFDeprecated
			f.Addrs = append(f.Addrs, a)
		}
	}
	if len(f.Addrs) == 0 {
		f.Addrs = s.borrow(def, c.v4)
	}
	for i := range s.Routes {
		if r, ok := s.Routes[i].forTap(f.Index); ok && r.Is4() == c.v4 {
			f.Routes = append(f.Routes, r)
		}
	}
	for i := range s.BySource {
		if r, ok := s.BySource[i].forTap(f.Index); ok && r.Is4() == c.v4 {
			f.BySource = append(f.BySource, r)
		}
	}
	if def != nil {
		gw := *def
		if r, ok := def.forTap(f.Index); ok {
			gw = r
		}
		if g := gw.way().Gateway; g.Is4() == c.v4 {
			f.Gateway = g
		}
		f.primary(def.Src)
	}
}

// borrow finds the address of an unnumbered interface, which uses another's:
// that of its default route, else the first global one, as the kernel does
// when it selects a source.
func (s *Snapshot) borrow(def *Route, v4 bool) []Addr {
	if def == nil {
		return nil
	}
	var found *Addr
	for i := range s.Addrs {
		a := &s.Addrs[i]
		if a.Prefix.Addr().Is4() != v4 || !a.global() {
			continue
		}
		if a.Prefix.Addr() == def.Src {
			found = a
			break
		}
		if found == nil && !def.Src.IsValid() {
			found = a
		}
	}
	if found == nil {
		return nil
	}
	ip := found.Prefix.Addr()
	return []Addr{{Prefix: netip.PrefixFrom(ip, ip.BitLen()), Scope: sys.RtScopeUniverse}}
}

// primary moves to the front the address that stands for the guest: the
// default route's preferred source, else the first that is not deprecated. The
// order of the others stays, for the first of a subnet is the primary one.
func (f *Family) primary(src netip.Addr) {
	i := slices.IndexFunc(f.Addrs, func(a Addr) bool { return src.IsValid() && a.Prefix.Addr() == src })
	if i < 0 {
		i = slices.IndexFunc(f.Addrs, func(a Addr) bool { return a.Flags&sys.IfaFDeprecated == 0 })
	}
	if i > 0 {
		a := f.Addrs[i]
		f.Addrs = slices.Insert(slices.Delete(f.Addrs, i, i+1), 0, a)
	}
}

// forTap returns the route as the namespace shall have it, with its only
// interface: ways by other interfaces are left out, the kernel's state flags
// too.
func (r Route) forTap(index int32) (Route, bool) {
	if r.Type != sys.RtnUnicast || !r.uses(index) || !r.worthCopying() {
		return r, false
	}
	r.nhID = 0
	if len(r.Nexthops) == 0 {
		r.Index, r.Flags = 0, r.Flags&sys.RtnhFOnlink
		return r, true
	}
	var ways []Nexthop
	for _, n := range r.Nexthops {
		if n.Index == index {
			n.Index, n.Flags = 0, n.Flags&sys.RtnhFOnlink
			ways = append(ways, n)
		}
	}
	r.Nexthops, r.Flags = ways, 0
	if len(ways) == 1 {
		r.Gateway, r.Flags, r.Nexthops = ways[0].Gateway, ways[0].Flags, nil
	}
	return r, true
}

// worthCopying is unset for what the kernel makes by itself on every
// interface: the link-local prefix and multicast.
func (r *Route) worthCopying() bool {
	ip := r.Dst.Addr()
	return r.Default() || r.Is4() || !ip.IsLinkLocalUnicast() && !ip.IsMulticast()
}

// defaultRoute makes a default route, by a device alone if via is invalid.
func defaultRoute(via netip.Addr) Route {
	r := Route{Gateway: via, Protocol: sys.RtprotBoot, Type: sys.RtnUnicast, Scope: sys.RtScopeUniverse}
	r.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if via.Is6() {
		r.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return r
}

// override applies -a, -n, -g and the options that restrict copying.
func (f *Family) override(c choice, s *Snapshot) {
	switch {
	case c.addr.IsValid():
		f.Addrs = []Addr{{Prefix: netip.PrefixFrom(c.addr, s.bitsFor(c, f.Index))}}
	case !c.copyAddrs:
		f.Addrs = f.Addrs[:1]
	}
	if c.bits != 0 && !c.addr.IsValid() {
		a := &f.Addrs[0]
		a.Prefix, a.Peer = netip.PrefixFrom(a.Prefix.Addr(), c.bits), netip.Addr{}
	}
	if c.gateway.IsValid() {
		f.Gateway = c.gateway
		f.Routes = []Route{defaultRoute(c.gateway)}
	} else if f.Index == 0 {
		f.Local, f.Gateway = true, c.localRouter
		f.Routes = []Route{defaultRoute(c.localRouter)}
	} else if !c.copyRoutes {
		f.Routes = f.firstDefault()
	}
	if !c.copyRoutes {
		f.BySource = nil
	}
}

// firstDefault keeps the best default route of those copied, with nothing that
// refers to what was not copied.
func (f *Family) firstDefault() []Route {
	var best *Route
	for i := range f.Routes {
		if r := &f.Routes[i]; r.Default() && (best == nil || r.before(best)) {
			best = r
		}
	}
	if best == nil {
		return nil
	}
	r := *best
	r.Src = netip.Addr{}
	return []Route{r}
}

// bitsFor is the prefix length for the address given with -a: as given, else
// that of the same address on the host's interface, else by the class of an
// IPv4 address, else 64.
func (s *Snapshot) bitsFor(c choice, index int32) int {
	if c.bits != 0 {
		return c.bits
	}
	for i := range s.Addrs {
		if a := &s.Addrs[i]; a.Index == index && a.Prefix.Addr() == c.addr {
			return a.Prefix.Bits()
		}
	}
	if !c.v4 {
		return 64
	}
	switch first := c.addr.As4()[0]; {
	case first < 128:
		return 8
	case first < 192:
		return 16
	case first < 224:
		return 24
	}
	return 32
}
