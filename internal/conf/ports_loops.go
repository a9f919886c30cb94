package conf

import (
	"fmt"
	"net/netip"
	"slices"
)

// breakLoops makes sure that no port which in (-t or -u) forwards to is one that
// out (-T or -U) listens on inside: a connection would be forwarded back and
// forth until descriptors run out. Ports of "all" yield to explicit ones, and
// inherited ones to those of options that were given; any other loop is an
// error. "auto" avoids loops by itself. loopback says that in forwards to the
// loopback inside by default.
func breakLoops(in, out []PortSpec, loopback bool) error {
	claims := make([][]claim, len(out))
	for j := range out {
		claims[j] = out[j].claims()
	}
	for i := range in {
		for _, a := range in[i].claims() {
			for j := range out {
				yielded, err := breakLoop(&in[i], &out[j], a, claims[j], loopback)
				if err != nil {
					return err
				}
				if yielded {
					claims[j] = out[j].claims()
				}
			}
		}
	}
	return nil
}

// breakLoop does that for one claim of in and all those of out. It reports whether
// ports were removed, from either.
func breakLoop(in, out *PortSpec, a claim, claims []claim, loopback bool) (yielded bool, err error) {
	for _, b := range claims {
		r, ok := a.overlap(b, loopback)
		if !ok {
			continue
		}
		if !yieldPorts(in, out, a, b, r) {
			return false, fmt.Errorf("port %d inside is where option '%s' leads to, and option '%s' leads it back to the host",
				r.First, in.Text, out.Text)
		}
		yielded = true
	}
	return yielded, nil
}

// claim is a rule of a specification, or its "all" written as a rule.
type claim struct {
	PortRule
	all bool
}

func (s *PortSpec) claims() []claim {
	out := make([]claim, 0, len(s.Rules)+1)
	for _, r := range s.Rules {
		out = append(out, claim{PortRule: r})
	}
	if s.All {
		out = append(out, claim{PortRule{s.Addr, s.Iface, 1, maxPort, 1, s.AllToAddr}, true})
	}
	return out
}

// overlap returns the ports that c forwards to and o, on the other side, listens
// on.
func (c claim) overlap(o claim, loopback bool) (PortRange, bool) {
	r := PortRange{max(c.ToFirst, o.First), min(c.ToLast(), o.Last)}
	return r, r.First <= r.Last && c.reaches(o, loopback)
}

var loopbacks = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// reaches reports whether a connection that c forwards arrives at the address o
// listens on, which is both loopback addresses unless o names one.
func (c claim) reaches(o claim, loopback bool) bool {
	plain := !o.Addr.IsValid() && o.Iface == ""
	switch {
	case c.ToAddr.IsValid() && plain:
		return slices.Contains(loopbacks, c.ToAddr)
	case c.ToAddr.IsValid():
		anyAddr := !o.Addr.IsValid() || o.Addr.IsUnspecified() && sameFamily(o.Addr, c.ToAddr)
		return o.Addr == c.ToAddr || anyAddr && c.ToAddr.IsLoopback()
	case loopback:
		return !o.Addr.IsValid() || o.Addr.IsUnspecified() || slices.Contains(loopbacks, o.Addr)
	}
	return !plain && !o.Addr.IsLoopback() // an address of the guest
}

// yieldPorts removes ports from a or from b; false if neither may yield.
func yieldPorts(in, out *PortSpec, a, b claim, ports PortRange) bool {
	switch {
	case b.all && !a.all:
		out.exclude(b, ports)
	case a.all && !b.all:
		in.exclude(a, ports)
	case out.Inherited:
		out.exclude(b, ports)
	case in.Inherited: // untranslated: it leads to the ports that it is bound to
		in.exclude(a, ports)
	default:
		return false
	}
	return true
}

// exclude removes ports from the claim c of s: from its "all", or from its rules.
func (s *PortSpec) exclude(c claim, ports PortRange) {
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
