package nl

import (
	"fmt"
	"net/netip"
	"slices"

	"penne/internal/sys"
)

// Addresses of local mode, the same as upstream's: link-local ones, for a family of
// which the host has no address.
var (
	LocalGuest4   = netip.MustParsePrefix("169.254.2.1/16")
	LocalGateway4 = netip.MustParseAddr("169.254.2.2")
	LocalGateway6 = netip.MustParseAddr("fe80::1")
)

// FallbackIfname is the tap's name if there is no template interface.
const FallbackIfname = "tap0"

// Options say what a Template is made from and what overrides it. Zero values mean
// "not given".
type Options struct {
	Interface                string     // template for both families (-i)
	OutboundIf4, OutboundIf6 string     // templates where Interface is not given
	NoIPv4, NoIPv6           bool       // family not wanted (-6, -4)
	Addr4, Addr6             netip.Addr // the guest's address (-a); implies NoCopyAddrs for its family
	Bits4, Bits6             int        // prefix lengths (-a ADDR/LEN, -n)
	Gateway4, Gateway6       netip.Addr // -g; implies NoCopyRoutes for its family
	NoCopyAddrs              bool       // one address only
	NoCopyRoutes             bool       // the default route only
}

// Template is the network configuration that the guest gets.
type Template struct {
	V4, V6 Family
	// Ifname is the name for the guest's interface: that of the template
	// interface, IPv4's if there are two, else FallbackIfname.
	Ifname string
	// MAC is the Ethernet address of the template interface, IPv4's if
	// there are two; zero where it has none.
	MAC [6]byte
}

// Family is one address family's part of a Template.
type Family struct {
	// On is false if the family is not wanted, or the kernel lacks it.
	On bool
	// Local is set if the host has no address of this family: the guest
	// gets link-local addresses and can reach the host only.
	Local bool
	// Index, Name, MTU (bytes) and MAC describe the template interface;
	// zero in local mode.
	Index int32
	Name  string
	MTU   uint32
	MAC   [6]byte
	// Gateway is the router, invalid if there is no default route or its
	// gateway is of another family.
	Gateway netip.Addr
	// HostLinkLocal is the template interface's link-local address; IPv6
	// only, invalid if it has none.
	HostLinkLocal netip.Addr
	// Addrs and Routes are for the namespace, in this order. The first of
	// Addrs is the guest's main address. IPv6 in local mode has none: the
	// interface's own link-local address serves.
	Addrs  []Addr
	Routes []Route
	// BySource are the interface's routes that are not copied, for a Report.
	BySource []Route
	// Omitted counts the routes of the host, of both families, beyond
	// maxRoutes.
	Omitted int
}

// Addr is the guest's main address, the first of Addrs; invalid if there is none.
func (f *Family) Addr() netip.Addr {
	if len(f.Addrs) == 0 {
		return netip.Addr{}
	}
	return f.Addrs[0].Prefix.Addr()
}

// familyOptions are the Options of one family.
type familyOptions struct {
	v4          bool
	name        string
	addr        netip.Addr
	bits        int
	gateway     netip.Addr
	copyAddrs   bool
	copyRoutes  bool
	wanted      bool
	localAddrs  []Addr
	localRouter netip.Addr
}

func (o *Options) family4() familyOptions {
	c := familyOptions{v4: true, name: o.Interface, addr: o.Addr4, bits: o.Bits4, gateway: o.Gateway4, wanted: !o.NoIPv4}
	// Not of link scope, or the kernel has no source for what is beyond the link.
	c.localAddrs = []Addr{{Prefix: LocalGuest4, Scope: sys.RtScopeUniverse}}
	c.localRouter = LocalGateway4
	return c.finish(o, o.OutboundIf4)
}

func (o *Options) family6() familyOptions {
	c := familyOptions{name: o.Interface, addr: o.Addr6, bits: o.Bits6, gateway: o.Gateway6, wanted: !o.NoIPv6}
	c.localRouter = LocalGateway6
	return c.finish(o, o.OutboundIf6)
}

func (c familyOptions) finish(o *Options, outbound string) familyOptions {
	if c.name == "" {
		c.name = outbound
	}
	c.copyAddrs = !o.NoCopyAddrs && !c.addr.IsValid()
	c.copyRoutes = !o.NoCopyRoutes && !c.gateway.IsValid()
	return c
}

// Template makes a Template. The template interface of a family is the named one,
// else that of the default route with the lowest metric, else the first that has an
// address and any route. Template fails only if a named interface is missing.
func (s *Snapshot) Template(o Options) (Template, error) {
	t := Template{Ifname: FallbackIfname}
	var err error
	if t.V4, err = s.family(o.family4()); err != nil {
		return t, err
	}
	if t.V6, err = s.family(o.family6()); err != nil {
		return t, err
	}
	for _, f := range []*Family{&t.V6, &t.V4} {
		if f.Name != "" {
			t.Ifname = f.Name
		}
		if f.MAC != [6]byte{} {
			t.MAC = f.MAC
		}
	}
	return t, nil
}

func (s *Snapshot) family(c familyOptions) (Family, error) {
	if !c.wanted || !c.v4 && !s.hasIPv6() {
		return Family{}, nil
	}
	link, err := s.templateLink(c)
	if err != nil {
		return Family{}, err
	}
	f := Family{On: true, Omitted: s.Omitted}
	if link != nil {
		f.Index, f.Name, f.MTU, f.MAC = link.Index, link.Name, link.MTU, link.MAC
		s.fill(&f, c)
	}
	if len(f.Addrs) == 0 && !c.addr.IsValid() {
		return localFamily(c), nil
	}
	f.override(c, s)
	return f, nil
}

// localFamily is a family in local mode.
func localFamily(c familyOptions) Family {
	f := Family{On: true, Local: true, Gateway: c.localRouter, Addrs: c.localAddrs}
	if c.gateway.IsValid() {
		f.Gateway = c.gateway
	}
	f.Routes = []Route{newDefaultRoute(f.Gateway)}
	return f
}

// hasIPv6 reports whether the kernel has IPv6. Without the module, or with
// disable_ipv6 set, no interface has an IPv6 address, lo included; but if there is no
// IPv4 address either, lo may just be down.
func (s *Snapshot) hasIPv6() bool {
	has4 := false
	for i := range s.Addrs {
		if !s.Addrs[i].Prefix.Addr().Is4() {
			return true
		}
		has4 = true
	}
	return !has4 && sys.HasIPv6()
}

// templateLink returns the template interface, nil if there is none.
func (s *Snapshot) templateLink(c familyOptions) (*Link, error) {
	if c.name != "" {
		l := s.linkByName(c.name)
		if l == nil {
			return nil, fmt.Errorf("template interface %s does not exist: give one that ip-link(8) shows", c.name)
		}
		return l, nil
	}
	if r := s.bestDefault(c.v4, 0); r != nil {
		return s.link(r.bestNexthop().Index), nil
	}
	for i := range s.Routes {
		r := &s.Routes[i]
		if r.Is4() != c.v4 || !s.usable(r) || r.bestNexthop().dead() || !r.worthCopying() {
			continue
		}
		if l := s.link(r.bestNexthop().Index); s.hasGlobal(l.Index, c.v4) {
			return l, nil
		}
	}
	return nil, nil
}

// bestDefault returns the best default route, on the interface index unless that is
// zero; nil if there is none.
func (s *Snapshot) bestDefault(v4 bool, index int32) *Route {
	var best *Route
	for i := range s.Routes {
		r := &s.Routes[i]
		if r.Is4() != v4 || !r.Default() || !s.usable(r) || index != 0 && !r.uses(index) {
			continue
		}
		if best == nil || r.betterThan(best) {
			best = r
		}
	}
	return best
}

// betterThan compares default routes: live ones are better than dead ones, then
// lower metrics, then higher router preference (RFC 4191).
func (r *Route) betterThan(o *Route) bool {
	if d, e := r.bestNexthop().dead(), o.bestNexthop().dead(); d != e {
		return e
	}
	if r.Metric != o.Metric {
		return r.Metric < o.Metric
	}
	return rank(r.Pref) > rank(o.Pref)
}

// rank orders the two-bit two's complement of RFC 4191: 1 high, 0 medium, 3 low.
func rank(pref uint8) int8 { return int8(pref<<6) >> 6 }

// usable reports whether the route is a unicast route of an interface that exists
// and is not loopback.
func (s *Snapshot) usable(r *Route) bool {
	if r.Type != sys.RtnUnicast {
		return false
	}
	l := s.link(r.bestNexthop().Index)
	return l != nil && !l.Loopback()
}

// bestNexthop returns the route's only nexthop, or the live one with the highest
// weight.
func (r *Route) bestNexthop() Nexthop {
	if len(r.Nexthops) == 0 {
		return Nexthop{Gateway: r.Gateway, Index: r.Index, Flags: r.Flags}
	}
	best := r.Nexthops[0]
	for _, nh := range r.Nexthops[1:] {
		if best.dead() && !nh.dead() || best.dead() == nh.dead() && nh.Weight > best.Weight {
			best = nh
		}
	}
	return best
}

func (n Nexthop) dead() bool { return n.Flags&(sys.RtnhFDead|sys.RtnhFDown) != 0 }

// uses reports whether one of the route's nexthops is on the interface.
func (r *Route) uses(index int32) bool {
	if len(r.Nexthops) == 0 {
		return r.Index == index
	}
	return slices.ContainsFunc(r.Nexthops, func(n Nexthop) bool { return n.Index == index })
}

func (s *Snapshot) hasGlobal(index int32, v4 bool) bool {
	return slices.ContainsFunc(s.Addrs, func(a Addr) bool {
		return a.Index == index && a.Prefix.Addr().Is4() == v4 && a.global()
	})
}

// global reports whether the guest may have the address: it is unicast, of more than
// link scope, and no duplicate.
func (a *Addr) global() bool {
	ip := a.Prefix.Addr()
	return a.Scope < sys.RtScopeLink && a.Flags&sys.IfaFDADFailed == 0 &&
		!ip.IsLoopback() && !ip.IsLinkLocalUnicast() && !ip.IsMulticast()
}
