package nl

import (
	"net/netip"
	"slices"

	"penne/internal/sys"
)

// fill copies the addresses and routes of the template interface into f.
func (s *Snapshot) fill(f *Family, c familyOptions) {
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
		if g := gw.bestNexthop().Gateway; g.Is4() == c.v4 {
			f.Gateway = g
		}
		f.promote(def.Src)
	}
}

// borrow finds the source address for an unnumbered interface: that of the default
// route, else the first global one of any interface, which the kernel selects too.
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

// promote moves the guest's main address to the front: the default route's
// preferred source, else the first that is not deprecated. The others keep their
// order, since the first of a subnet is the primary one.
func (f *Family) promote(src netip.Addr) {
	i := slices.IndexFunc(f.Addrs, func(a Addr) bool { return src.IsValid() && a.Prefix.Addr() == src })
	if i < 0 {
		i = slices.IndexFunc(f.Addrs, func(a Addr) bool { return a.Flags&sys.IfaFDeprecated == 0 })
	}
	if i > 0 {
		a := f.Addrs[i]
		f.Addrs = slices.Insert(slices.Delete(f.Addrs, i, i+1), 0, a)
	}
}

// forTap returns the route for the namespace: without nexthops on other interfaces
// than index, and without the kernel's state flags. ok is false if it is not to be
// copied.
func (r Route) forTap(index int32) (_ Route, ok bool) {
	if r.Type != sys.RtnUnicast || !r.uses(index) || !r.worthCopying() {
		return r, false
	}
	r.nhID = 0
	if len(r.Nexthops) == 0 {
		r.Index, r.Flags = 0, r.Flags&sys.RtnhFOnlink
		return r, true
	}
	var nexthops []Nexthop
	for _, n := range r.Nexthops {
		if n.Index == index {
			n.Index, n.Flags = 0, n.Flags&sys.RtnhFOnlink
			nexthops = append(nexthops, n)
		}
	}
	r.Nexthops, r.Flags = nexthops, 0
	if len(nexthops) == 1 {
		r.Gateway, r.Flags, r.Nexthops = nexthops[0].Gateway, nexthops[0].Flags, nil
	}
	return r, true
}

// worthCopying is false for the routes that the kernel adds to every interface: the
// link-local prefix and multicast.
func (r *Route) worthCopying() bool {
	ip := r.Dst.Addr()
	return r.Default() || r.Is4() || !ip.IsLinkLocalUnicast() && !ip.IsMulticast()
}

// newDefaultRoute makes a default route; without a gateway if via is invalid.
func newDefaultRoute(via netip.Addr) Route {
	r := Route{Gateway: via, Protocol: sys.RtprotBoot, Type: sys.RtnUnicast, Scope: sys.RtScopeUniverse}
	r.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if via.Is6() {
		r.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return r
}

// override applies -a, -n, -g and the options that restrict copying.
func (f *Family) override(c familyOptions, s *Snapshot) {
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
		f.Routes = []Route{newDefaultRoute(c.gateway)}
	} else if f.Index == 0 {
		f.Local, f.Gateway = true, c.localRouter
		f.Routes = []Route{newDefaultRoute(c.localRouter)}
	} else if !c.copyRoutes {
		f.Routes = f.firstDefault()
	}
	if !c.copyRoutes {
		f.BySource = nil
	}
}

// firstDefault returns the best of the copied default routes, without its preferred
// source, which may not have been copied.
func (f *Family) firstDefault() []Route {
	var best *Route
	for i := range f.Routes {
		if r := &f.Routes[i]; r.Default() && (best == nil || r.betterThan(best)) {
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

// bitsFor is the prefix length of the address given by -a: as given, else that of
// the same address on the host's interface, else by the class of an IPv4 address,
// else 64.
func (s *Snapshot) bitsFor(c familyOptions, index int32) int {
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
