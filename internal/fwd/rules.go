// Package fwd holds the rules of address translation between guest and host, and
// what has been observed of the guest. Rules are immutable: the control thread
// makes a new value, and every shard switches to it between two passes of its
// loop. Translators look up addresses when a flow is made; per frame, a shard
// reads no more than which families and protocols are on.
package fwd

import (
	"slices"

	"penne/internal/wire"
)

// Family holds the rules of one address family. A zero Addr means "none".
type Family struct {
	On    bool      // the family is served
	Guest wire.Addr // the guest's configured address: on the host, the template's
	Bits  uint8     // its prefix length
	// Others are the host's other addresses that the guest has as well. As
	// with Guest, it could not answer packets from them. Read-only.
	Others  []wire.Addr
	Gateway wire.Addr // the router announced to the guest
	// Ours is our own address on the guest's link, the source of packets
	// whose real source the guest could not answer: the gateway, if any.
	Ours wire.Addr
	// HostLoopback is the address inside that stands for the host's
	// loopback (--map-host-loopback).
	HostLoopback wire.Addr
	// GuestMap is the address inside that stands for the host's own
	// address, which the guest shares (--map-guest-addr).
	GuestMap wire.Addr
	// DNSForward is the address inside that stands for the resolver DNSHost
	// on ports 53 and 853 of TCP and UDP (--dns-forward, --dns-host).
	DNSForward, DNSHost wire.Addr
	// GatewayIsResolver is set if the gateway is one of the host's resolvers:
	// then queries to it reach it, although it stands for the host's
	// loopback.
	GatewayIsResolver bool
	// Bind is the source address of outbound sockets (-o), BindIf their
	// interface (--outbound-if4, --outbound-if6).
	Bind   wire.Addr
	BindIf string
}

// Rules are those of both families. Read-only once published.
type Rules struct {
	V4, V6 Family
	// OurMAC is our Ethernet address on the guest's link.
	OurMAC wire.MAC
	// MTU of the guest's link, in octets, Ethernet header excluded.
	MTU int
	// LinkLocal6 is our IPv6 link-local address on the guest's link.
	LinkLocal6 wire.Addr
	// ScopeID is the host interface of link-local IPv6 destinations.
	ScopeID uint32

	NoTCP, NoUDP, NoICMP bool
}

// Of returns the rules of a's family.
func (r *Rules) Of(a *wire.Addr) *Family {
	if a.Is4() {
		return &r.V4
	}
	return &r.V6
}

var (
	loopback4 = wire.Addr{10: 0xff, 11: 0xff, 12: 127, 15: 1}
	loopback6 = wire.Addr{15: 1}
)

// Loopback is the loopback address of a's family.
func Loopback(a *wire.Addr) wire.Addr {
	if a.Is4() {
		return loopback4
	}
	return loopback6
}

// ToHost translates a destination of the guest's into that of a host socket. ok
// is false if no socket may be connected to it: it is loopback, unspecified,
// multicast or broadcast, or its family is off.
func (r *Rules) ToHost(dst *wire.Addr, port uint16) (to wire.Addr, ok bool) {
	f := r.Of(dst)
	dns := port == 53 || port == 853
	switch {
	case !f.On, !dst.IsUnicastHost():
		return wire.Addr{}, false
	case dns && *dst == f.DNSForward && !f.DNSHost.IsZero():
		return f.DNSHost, true
	case *dst == f.HostLoopback && !(dns && f.GatewayIsResolver && *dst == f.Gateway):
		return Loopback(dst), true
	case *dst == f.GuestMap:
		return f.Guest, true
	}
	return *dst, true
}

// ToGuest translates the source of a connection or datagram received by a host
// socket into the one the guest sees, which it can answer. ok is false if there
// is none, since the mapping is switched off.
func (r *Rules) ToGuest(src *wire.Addr, g *Guest) (from wire.Addr, ok bool) {
	f := r.Of(src)
	used := g.Addr(src, r)
	switch {
	case !f.On:
		return wire.Addr{}, false
	case src.IsLoopback():
		return f.HostLoopback, !f.HostLoopback.IsZero()
	case *src == f.Guest, *src == used, slices.Contains(f.Others, *src):
		if !f.GuestMap.IsZero() {
			return f.GuestMap, true
		}
		return f.Ours, !f.Ours.IsZero()
	case src.IsUnspecified(), src.IsMulticast():
		return wire.Addr{}, false
	}
	return *src, true
}

// ScopeOf is the interface index a socket address for dst needs.
func (r *Rules) ScopeOf(dst *wire.Addr) uint32 {
	if dst.IsLinkLocal() && !dst.Is4() {
		return r.ScopeID
	}
	return 0
}
