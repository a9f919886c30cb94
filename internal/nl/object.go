package nl

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"penne/internal/sys"
)

// Link is a network interface.
type Link struct {
	Index int32
	Name  string
	Flags uint32  // IFF_*
	MTU   uint32  // bytes
	MAC   [6]byte // zero where the hardware address is not Ethernet's
}

// Up reports whether the link is administratively up.
func (l *Link) Up() bool { return l.Flags&sys.IffUp != 0 }

// Loopback reports whether the link is a loopback interface.
func (l *Link) Loopback() bool { return l.Flags&sys.IffLoopback != 0 }

// Addr is an address of an interface.
type Addr struct {
	// Prefix is the address with the length of its network's prefix.
	Prefix netip.Prefix
	// Peer is the other end's address on a point-to-point link, which
	// Prefix's length is then for; else invalid.
	Peer  netip.Addr
	Index int32  // of the interface; zero in a Template
	Scope uint8  // RT_SCOPE_*
	Flags uint32 // IFA_F_*
}

// Network returns the prefix that the kernel takes to be on the link.
func (a *Addr) Network() netip.Prefix {
	if a.Peer.IsValid() {
		return netip.PrefixFrom(a.Peer, a.Prefix.Bits()).Masked()
	}
	return a.Prefix.Masked()
}

// String formats a as ip-address(8) does.
func (a Addr) String() string {
	if a.Peer.IsValid() {
		return fmt.Sprintf("%s peer %s/%d", a.Prefix.Addr(), a.Peer, a.Prefix.Bits())
	}
	return a.Prefix.String()
}

// Nexthop is one of the nexthops of a multipath route.
type Nexthop struct {
	Gateway netip.Addr // invalid if on-link
	Index   int32      // of the interface; zero in a Template
	Weight  uint8      // less one, as rtnh_hops
	Flags   uint8      // RTNH_F_*
}

// Route is a route of the main table.
type Route struct {
	Dst     netip.Prefix // 0.0.0.0/0 or ::/0 for a default route
	Gateway netip.Addr   // invalid if on-link; may be IPv6 for an IPv4 route (RFC 8950)
	Src     netip.Addr   // preferred source, or invalid
	Index   int32        // of the interface; zero in a Template
	Metric  uint32       // RTA_PRIORITY: lower wins
	// Protocol, Scope, Type and TOS are rtmsg's.
	Protocol, Scope, Type, TOS uint8
	Flags                      uint8 // RTNH_F_*
	// Pref is the router preference of RFC 4191: 1 high, 0 medium, 3 low.
	Pref uint8
	// Encap is set if the route encapsulates packets (RTA_ENCAP).
	Encap bool
	// bySource is set if the route is for certain sources only.
	bySource bool
	// Metrics is RTA_METRICS as the kernel gave it.
	Metrics string
	// Nexthops are those of a multipath route; Gateway and Index are zero
	// then.
	Nexthops []Nexthop
	// nhID is the ID of a nexthop object, 0 if there is none.
	nhID uint32
}

// Equal compares all fields.
func (r *Route) Equal(o *Route) bool {
	return r.sameKey(o) && r.Gateway == o.Gateway && r.Src == o.Src && r.Protocol == o.Protocol &&
		r.Scope == o.Scope && r.Type == o.Type && r.Flags == o.Flags && r.Pref == o.Pref &&
		r.Encap == o.Encap && r.Metrics == o.Metrics && slices.Equal(r.Nexthops, o.Nexthops)
}

// sameKey reports whether only one of both routes can be in a table.
func (r *Route) sameKey(o *Route) bool {
	return r.Dst == o.Dst && r.Metric == o.Metric && r.TOS == o.TOS && r.Index == o.Index
}

// Default reports whether the route is for all destinations of its family.
func (r *Route) Default() bool { return r.Dst.Bits() == 0 }

// OnLink reports whether the route has no gateway.
func (r *Route) OnLink() bool { return !r.Gateway.IsValid() && len(r.Nexthops) == 0 }

// Is4 reports whether the route is for IPv4.
func (r *Route) Is4() bool { return r.Dst.Addr().Is4() }

// String formats r as ip-route(8) does.
func (r Route) String() string {
	var b strings.Builder
	if r.Default() {
		b.WriteString("default")
	} else {
		b.WriteString(r.Dst.String())
	}
	if r.Gateway.IsValid() {
		b.WriteString(" via " + r.Gateway.String())
	}
	for _, nh := range r.Nexthops {
		fmt.Fprintf(&b, " nexthop via %s weight %d", nh.Gateway, int(nh.Weight)+1)
	}
	if r.Src.IsValid() {
		b.WriteString(" src " + r.Src.String())
	}
	if r.Metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	return b.String()
}
