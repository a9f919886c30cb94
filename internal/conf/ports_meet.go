package conf

import (
	"net/netip"
	"slices"
)

// keepApart sees to it that no port which in, of the options -t or -u, leads to
// is one that out, of -T or -U, has bound inside: each connection would go
// round and round between the two until nothing is left to make one more from.
// Ports of "all" give way to those that are named, and inherited ones to those
// of options that were given; others are refused. "auto" sees to itself.
// loopback tells that in leads to the loopback inside by default.
func keepApart(in, out []PortSpec, loopback bool) error {
	for i := range in {
		for _, a := range in[i].claims() {
			for j := range out {
				for _, b := range out[j].claims() {
					if r, ok := a.meets(b, loopback); ok && !giveWay(&in[i], &out[j], a, b, r) {
						return portsf("port %d inside is where option '%s' leads to, and option '%s' leads it back to the host",
							r.First, in[i].Text, out[j].Text)
					}
				}
			}
		}
	}
	return nil
}

// claim is a rule of a specification, or what its "all" amounts to.
type claim struct {
	PortRule
	all bool
}

func (s *PortSpec) claims() []claim {
	var out []claim
	for _, r := range s.Rules {
		out = append(out, claim{PortRule: r})
	}
	if s.All {
		out = append(out, claim{PortRule{s.Addr, s.Iface, 1, maxPort, 1, s.AllToAddr}, true})
	}
	return out
}

// meets returns the ports that c leads to and o, on the other side, has bound.
func (c claim) meets(o claim, loopback bool) (PortRange, bool) {
	r := PortRange{max(c.ToFirst, o.First), min(c.ToLast(), o.Last)}
	return r, r.First <= r.Last && c.lands(o, loopback)
}

var loopbacks = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// lands tells whether a connection that c leads inside comes to where o is
// bound there; that is to both loopback addresses if it does not say where.
func (c claim) lands(o claim, loopback bool) bool {
	plain := !o.Addr.IsValid() && o.Iface == ""
	switch {
	case c.ToAddr.IsValid() && plain:
		return slices.Contains(loopbacks, c.ToAddr)
	case c.ToAddr.IsValid():
		any := !o.Addr.IsValid() || o.Addr.IsUnspecified() && sameFamily(o.Addr, c.ToAddr)
		return o.Addr == c.ToAddr || any && c.ToAddr.IsLoopback()
	case loopback:
		return !o.Addr.IsValid() || o.Addr.IsUnspecified() || slices.Contains(loopbacks, o.Addr)
	}
	return !plain && !o.Addr.IsLoopback() // an address of the guest
}

// giveWay takes ports out of a or out of b, and tells whether it may.
func giveWay(in, out *PortSpec, a, b claim, ports PortRange) bool {
	switch {
	case b.all && !a.all:
		out.leaveOut(b, ports)
	case a.all && !b.all:
		in.leaveOut(a, ports)
	case out.Inherited:
		out.leaveOut(b, ports)
	case in.Inherited: // untranslated: it leads to the ports that it is bound to
		in.leaveOut(a, ports)
	default:
		return false
	}
	return true
}

// leaveOut takes ports out of s: of what its "all" stands for, or of its rules.
func (s *PortSpec) leaveOut(c claim, ports PortRange) {
	if c.all {
		s.Exclude = mergeRanges(append(slices.Clone(s.Exclude), ports))
		return
	}
	var rules []PortRule
	for _, r := range s.Rules {
		rules = appendWithout(rules, r, []PortRange{ports})
	}
	s.Rules = rules
}
