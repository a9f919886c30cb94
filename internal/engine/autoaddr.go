package engine

import (
	"iter"
	"net/netip"
	"slices"

	"penne/internal/conf"
	"penne/internal/portscan"
)

// autoAddr is an address or interface on which an "auto" binds ports.
type autoAddr struct {
	spec *conf.PortSpec
	addr netip.Addr // as in conf.PortRule
	// stub is set for the address of a stub resolver: only the DNS port is
	// forwarded, and to the same address on the host.
	stub bool
	// bound are the ports that are bound, refused those that cannot be for
	// now: in use, or not permitted.
	bound, refused portscan.Ports
}

// findAutoAddrs sets where the lane's "auto" specifications bind.
func (n *lane) findAutoAddrs() {
	for i := range n.specs {
		s := &n.specs[i]
		switch {
		case !s.Auto:
		case n.inside && anywhere(s):
			for _, a := range n.loopbacks() {
				n.autoAddrs = append(n.autoAddrs, &autoAddr{spec: s, addr: a})
			}
		default:
			n.autoAddrs = append(n.autoAddrs, &autoAddr{spec: s, addr: s.Addr})
		}
	}
}

// anywhere reports whether s does not say where to bind.
func anywhere(s *conf.PortSpec) bool { return !s.Addr.IsValid() && s.Iface == "" }

// portDNS is the port of resolvers (RFC 1035 section 4.2).
const portDNS = 53

// syncStubs makes the host's stub resolvers, such as 127.0.0.53 of systemd-resolved,
// reachable inside at their own addresses: these are in resolv.conf, which the
// command shares with the host.
func (e *engine) syncStubs() {
	if p := &e.conf.Pasta; p.PID != 0 || p.Netns != "" {
		return // an existing namespace may have a stub resolver of its own
	}
	for _, n := range e.ports.lanes {
		if n.inside {
			n.setStubAddrs(e.dns.Servers)
		}
	}
}

// setStubAddrs adds the loopback addresses among servers to autoAddrs, except those
// that "auto" binds anyway, and removes those of earlier calls that are gone.
func (n *lane) setStubAddrs(servers []netip.Addr) {
	n.autoAddrs = slices.DeleteFunc(n.autoAddrs, func(p *autoAddr) bool { return p.stub && !slices.Contains(servers, p.addr) })
	for _, a := range servers {
		i := slices.IndexFunc(n.specs, func(s conf.PortSpec) bool { return s.Auto && anywhere(&s) })
		if i < 0 || !n.v4 || !a.Is4() || !a.IsLoopback() || slices.ContainsFunc(n.autoAddrs, func(p *autoAddr) bool { return p.addr == a }) {
			continue
		}
		n.autoAddrs = append(n.autoAddrs, &autoAddr{spec: &n.specs[i], addr: a, stub: true})
	}
}

// target is the address that ports are forwarded to; invalid for the default one.
func (p *autoAddr) target() netip.Addr {
	if p.stub {
		return p.addr
	}
	return netip.Addr{}
}

// missing iterates over the ports of want that are still to be bound on p.
func (p *autoAddr) missing(want *portscan.Ports) iter.Seq[uint16] {
	return func(yield func(uint16) bool) {
		for port := range want.All() {
			skip := p.bound.Has(port) || p.refused.Has(port) || p.spec.Excluded(port)
			if !skip && (!p.stub || port == portDNS) && !yield(port) {
				return
			}
		}
	}
}

// missesAny reports whether any port is missing.
func (p *autoAddr) missesAny(want *portscan.Ports) bool {
	for range p.missing(want) {
		return true
	}
	return false
}
