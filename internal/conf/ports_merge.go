package conf

import (
	"fmt"
	"net/netip"
	"slices"
)

// portList gathers the occurrences of one forwarding option.
type portList struct {
	given bool
	specs []PortSpec
}

// add parses one more occurrence. 'none' discards the earlier ones, and is itself
// overridden by a later one.
func (l *portList) add(option, text string) error {
	spec, none, err := ParsePorts(option, text)
	if err != nil {
		return err
	}
	l.given = true
	if none {
		l.specs = nil
		return nil
	}
	if len(spec.Rules) == 0 && l.has(&spec) {
		return nil
	}
	l.specs = append(l.specs, spec)
	return nil
}

// has reports whether s, an 'auto' or 'all' without explicit ports, has already
// been given.
func (l *portList) has(s *PortSpec) bool {
	text := s.String()
	return slices.ContainsFunc(l.specs, func(old PortSpec) bool {
		return len(old.Rules) == 0 && old.String() == text
	})
}

// resolve returns the list to use: what was given, else auto for pasta.
func (l *portList) resolve(option string, mode Mode) []PortSpec {
	if l.given || mode == ModePasst {
		return l.specs
	}
	return []PortSpec{{Text: option + " auto", Auto: true}}
}

// inherit returns UDP's list. If the option was not given, that is TCP's ports,
// forwarded to the same numbers, in addition to the mode's default.
func (l *portList) inherit(option string, mode Mode, tcp *portList) []PortSpec {
	if l.given {
		return l.specs
	}
	out := l.resolve(option, mode)
	for _, s := range tcp.specs {
		s.Inherited = true
		s.Rules = slices.Clone(s.Rules)
		for i := range s.Rules {
			s.Rules[i].ToFirst = s.Rules[i].First
		}
		if s.Auto && len(s.Rules) == 0 && mode == ModePasta {
			continue // the default already
		}
		if s.All {
			out = slices.DeleteFunc(out, func(d PortSpec) bool { return d.Auto && !d.Inherited })
		} else {
			s.Auto = false
		}
		out = append(out, s)
	}
	return out
}

// specRule is a rule and the specification it comes from.
type specRule struct {
	PortRule
	spec *PortSpec
}

// checkOverlap refuses specifications that claim the same port of the same
// address twice.
func checkOverlap(specs []PortSpec) error {
	if err := checkWhole(specs); err != nil {
		return err
	}
	var rules []specRule
	for i := range specs {
		for _, r := range specs[i].Rules {
			rules = append(rules, specRule{r, &specs[i]})
		}
	}
	slices.SortStableFunc(rules, func(a, b specRule) int { return int(a.First) - int(b.First) })
	for i, a := range rules {
		for _, b := range rules[i+1:] {
			if b.First > a.Last {
				break
			}
			if overlapListen(a.Addr, a.Iface, b.Addr, b.Iface) {
				return overlapError(a, b)
			}
		}
	}
	return nil
}

// overlapError names the first port that both claim, and both rules.
func overlapError(a, b specRule) error {
	if a.spec == b.spec {
		return fmt.Errorf("port %d is forwarded twice, by '%s' and by '%s' of option '%s'",
			b.First, a.PortRule, b.PortRule, a.spec.Text)
	}
	return fmt.Errorf("port %d is forwarded twice, by option '%s' and by option '%s'",
		b.First, a.spec.Text, b.spec.Text)
}

// checkWhole refuses a second 'auto' or 'all' on the same address.
func checkWhole(specs []PortSpec) error {
	var open []*PortSpec
	for i := range specs {
		b := &specs[i]
		if !b.Auto && !b.All {
			continue
		}
		for _, a := range open {
			if overlapListen(a.Addr, a.Iface, b.Addr, b.Iface) {
				return fmt.Errorf("option '%s' and option '%s' both claim whole ranges of ports; give one of them",
					a.Text, b.Text)
			}
		}
		open = append(open, b)
	}
	return nil
}

// overlapListen reports whether two sockets cannot be bound to one port on both
// addresses and interfaces.
func overlapListen(a netip.Addr, aIf string, b netip.Addr, bIf string) bool {
	if aIf != "" && bIf != "" && aIf != bIf {
		return false
	}
	switch {
	case !a.IsValid() || !b.IsValid():
		return true
	case a.Is4() != b.Is4():
		return false
	}
	return a == b || a.IsUnspecified() || b.IsUnspecified()
}
