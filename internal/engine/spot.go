package engine

import (
	"iter"
	"net/netip"
	"slices"

	"penne/internal/conf"
	"penne/internal/portscan"
)

// spot is where an "auto" binds ports. Each has its own fate: what is in use
// in one may be free in another.
type spot struct {
	spec *conf.PortSpec
	addr netip.Addr // as in conf.PortRule
	// stub is set for the address of a stub resolver, of which only the port
	// of DNS is wanted, and leads to the same address.
	stub bool
	// bound are the ports that are bound here, refused those that could not
	// be: in use, or not allowed.
	bound, refused portscan.Ports
}

// openSpots finds where the lane's "auto"s are to bind.
func (n *lane) openSpots() {
	for i := range n.specs {
		s := &n.specs[i]
		switch {
		case !s.Auto:
		case n.inside && anywhere(s):
			for _, a := range n.loopbacks() {
				n.spots = append(n.spots, &spot{spec: s, addr: a})
			}
		default:
			n.spots = append(n.spots, &spot{spec: s, addr: s.Addr})
		}
	}
}

// anywhere tells whether s does not say where to bind.
func anywhere(s *conf.PortSpec) bool { return !s.Addr.IsValid() && s.Iface == "" }

// portDNS is where stub resolvers serve (RFC 1035 section 4.2).
const portDNS = 53

// followStubs lets the command inside reach the host's stub resolvers, such as
// 127.0.0.53 of systemd-resolved, at their own addresses: these are what it
// reads in resolv.conf, which it shares with the host.
func (e *engine) followStubs() {
	if p := &e.conf.Pasta; p.PID != 0 || p.Netns != "" {
		return // a namespace of others, maybe with such a resolver of its own
	}
	for _, n := range e.ports.lanes {
		if n.inside {
			n.setStubs(e.dns.Servers)
		}
	}
}

// setStubs makes spots of the loopback addresses among servers, unless they
// are spots already, as 127.0.0.1 and IPv6's only one.
func (n *lane) setStubs(servers []netip.Addr) {
	n.spots = slices.DeleteFunc(n.spots, func(p *spot) bool { return p.stub && !slices.Contains(servers, p.addr) })
	for _, a := range servers {
		i := slices.IndexFunc(n.specs, func(s conf.PortSpec) bool { return s.Auto && anywhere(&s) })
		if i < 0 || !n.v4 || !a.Is4() || !a.IsLoopback() || slices.ContainsFunc(n.spots, func(p *spot) bool { return p.addr == a }) {
			continue
		}
		n.spots = append(n.spots, &spot{spec: &n.specs[i], addr: a, stub: true})
	}
}

// target is the address that ports lead to; invalid for the default one.
func (p *spot) target() netip.Addr {
	if p.stub {
		return p.addr
	}
	return netip.Addr{}
}

// missing walks over the ports of want that are to be bound here and are not.
func (p *spot) missing(want *portscan.Ports) iter.Seq[uint16] {
	return func(yield func(uint16) bool) {
		for port := range want.All() {
			there := p.bound.Has(port) || p.refused.Has(port) || p.spec.Excluded(port)
			if !there && (!p.stub || port == portDNS) && !yield(port) {
				return
			}
		}
	}
}

// misses tells whether anything is missing.
func (p *spot) misses(want *portscan.Ports) bool {
	for range p.missing(want) {
		return true
	}
	return false
}
