package nl

import (
	"fmt"
	"net/netip"
	"slices"

	"penne/internal/sys"
)

// Addresses of local mode, the same as upstream's: link-local ones, for a host
// that has no network of that family.
var (
	LocalGuest4   = netip.MustParsePrefix("169.254.2.1/16")
	LocalGateway4 = netip.MustParseAddr("169.254.2.2")
	LocalGateway6 = netip.MustParseAddr("fe80::1")
)

// FallbackIfname is the tap's name where no template interface gives one.
const FallbackIfname = "tap0"

// Options say what the Template is taken from and what overrides it. Zero
// values mean "not given".
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

// Template is what the guest shall have.
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
	// On is unset where the family is not wanted, or missing in the kernel.
	On bool
	// Local is set where the host has no network of this family: the guest
	// gets link-local addresses and reaches the host.
	Local bool
	// Index, Name, MTU (bytes) and MAC describe the template interface;
	// zero in local mode.
	Index int32
	Name  string
	MTU   uint32
	MAC   [6]byte
	// Gateway is the router, invalid where the default route has none of
	// this family, or where there is no default route.
	Gateway netip.Addr
	// HostLinkLocal is the template interface's link-local address; IPv6
	// only, invalid if it has none.
	HostLinkLocal netip.Addr
	// Addrs and Routes are to be set in the namespace, in this order. The
	// first of Addrs is the guest's address where one must be named. IPv6's
	// local mode has none: the interface's link-local address serves.
	Addrs  []Addr
	Routes []Route
	// BySource are the interface's routes that are not copied, for a Report.
	BySource []Route
	// Omitted counts the host's routes, of all families, that were too many
	// to look at.
	Omitted int
}

// Addr is the guest's address, the first of Addrs; invalid if there is none.
func (f *Family) Addr() netip.Addr {
	if len(f.Addrs) == 0 {
		return netip.Addr{}
	}
	return f.Addrs[0].Prefix.Addr()
}

// choice is one family's share of Options.
type choice struct {
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

func (o *Options) family4() choice {
	c := choice{v4: true, name: o.Interface, addr: o.Addr4, bits: o.Bits4, gateway: o.Gateway4, wanted: !o.NoIPv4}
	c.localAddrs = []Addr{{Prefix: LocalGuest4, Scope: sys.RtScopeLink}}
	c.localRouter = LocalGateway4
	return c.finish(o, o.OutboundIf4)
}

func (o *Options) family6() choice {
	c := choice{name: o.Interface, addr: o.Addr6, bits: o.Bits6, gateway: o.Gateway6, wanted: !o.NoIPv6}
	c.localRouter = LocalGateway6
	return c.finish(o, o.OutboundIf6)
}

func (c choice) finish(o *Options, outbound string) choice {
	if c.name == "" {
		c.name = outbound
	}
	c.copyAddrs = !o.NoCopyAddrs && !c.addr.IsValid()
	c.copyRoutes = !o.NoCopyRoutes && !c.gateway.IsValid()
	return c
}

// Template chooses, per family, the template interface: the named one, else
// the one of the default route with the lowest metric, else the first that has
// an address and any route. It fails only where a named interface is missing.
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

func (s *Snapshot) family(c choice) (Family, error) {
	if !c.wanted || !c.v4 && !s.hasIPv6() {
		return Family{}, nil
	}
	link, err := s.pick(c)
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

// localFamily is a family that the host has no network of.
func localFamily(c choice) Family {
	f := Family{On: true, Local: true, Gateway: c.localRouter, Addrs: c.localAddrs}
	if c.gateway.IsValid() {
		f.Gateway = c.gateway
	}
	f.Routes = []Route{defaultRoute(f.Gateway)}
	return f
}

// hasIPv6 tells whether the kernel speaks IPv6. With the module missing, or
// disable_ipv6 set, no interface has an address, lo included; where lo has
// none because it is down, IPv4 is missing as well, and nothing is known.
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

// pick returns the template interface, nil for none.
func (s *Snapshot) pick(c choice) (*Link, error) {
	if c.name != "" {
		l := s.linkByName(c.name)
		if l == nil {
			return nil, fmt.Errorf("template interface %s does not exist: give one that ip-link(8) shows", c.name)
		}
		return l, nil
	}
	if r := s.bestDefault(c.v4, 0); r != nil {
		return s.link(r.way().Index), nil
	}
	for i := range s.Routes {
		r := &s.Routes[i]
		if r.Is4() != c.v4 || !s.usable(r) || r.way().dead() || !r.worthCopying() {
			continue
		}
		if l := s.link(r.way().Index); s.hasGlobal(l.Index, c.v4) {
			return l, nil
		}
	}
	return nil, nil
}

// bestDefault returns the default route with the lowest metric, on the
// interface index unless that is zero; one whose link is down only if there is
// no other. Nil if there is none.
func (s *Snapshot) bestDefault(v4 bool, index int32) *Route {
	var best *Route
	for i := range s.Routes {
		r := &s.Routes[i]
		if r.Is4() != v4 || !r.Default() || !s.usable(r) || index != 0 && !r.uses(index) {
			continue
		}
		if best == nil || r.before(best) {
			best = r
		}
	}
	return best
}

// before orders default routes: living ones, lower metrics, higher router
// preference (RFC 4191), earlier ones.
func (r *Route) before(o *Route) bool {
	if d, e := r.way().dead(), o.way().dead(); d != e {
		return e
	}
	if r.Metric != o.Metric {
		return r.Metric < o.Metric
	}
	return rank(r.Pref) > rank(o.Pref)
}

// rank orders the two-bit two's complement of RFC 4191: 1 high, 0 medium, 3 low.
func rank(pref uint8) int8 { return int8(pref<<6) >> 6 }

// usable tells whether the route leads somewhere: no blackhole, and an
// interface that exists and is not loopback.
func (s *Snapshot) usable(r *Route) bool {
	if r.Type != sys.RtnUnicast {
		return false
	}
	l := s.link(r.way().Index)
	return l != nil && !l.Loopback()
}

// way returns the route's only way, or the heaviest living one of several.
func (r *Route) way() Nexthop {
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

// uses tells whether one of the route's ways leaves by the interface.
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

// global tells whether the address is worth giving to the guest.
func (a *Addr) global() bool {
	ip := a.Prefix.Addr()
	return a.Scope < sys.RtScopeLink && a.Flags&sys.IfaFDADFailed == 0 &&
		!ip.IsLoopback() && !ip.IsLinkLocalUnicast() && !ip.IsMulticast()
}
