package conf

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// PortRange is an inclusive range of ports, 1 ≤ First ≤ Last ≤ 65535.
type PortRange struct {
	First, Last uint16
}

// String returns "22" or "22-80".
func (r PortRange) String() string {
	s := strconv.Itoa(int(r.First))
	if r.Last != r.First {
		s += "-" + strconv.Itoa(int(r.Last))
	}
	return s
}

// Contains reports whether port is within the range.
func (r PortRange) Contains(port uint16) bool { return r.First <= port && port <= r.Last }

// PortRule forwards the ports First to Last of a listening address to the
// ports that start at ToFirst on the other side. Exclusions have already been
// applied.
type PortRule struct {
	// Addr is the address to listen on. The zero Addr is any address of
	// both families; 0.0.0.0 and :: are any of one family.
	Addr netip.Addr
	// Iface is the interface to listen on; empty for all.
	Iface string
	// First and Last are the listening ports, inclusive.
	First, Last uint16
	// ToFirst is the target of First; the others follow in order, up to
	// 65535 at most.
	ToFirst uint16
	// ToAddr is the target address; the zero Addr is the default one.
	ToAddr netip.Addr
}

// ToLast is the target of Last.
func (r PortRule) ToLast() uint16 { return r.ToFirst + (r.Last - r.First) }

// String returns the rule in the grammar of [ParsePorts].
func (r PortRule) String() string { return listenText(r.Addr, r.Iface) + r.item() }

// item is the rule without its listening address.
func (r PortRule) item() string {
	s := PortRange{r.First, r.Last}.String()
	if r.ToFirst == r.First && !r.ToAddr.IsValid() {
		return s
	}
	s += ":"
	if r.ToAddr.IsValid() {
		s += hostText(r.ToAddr) + "/"
	}
	return s + PortRange{r.ToFirst, r.ToLast()}.String()
}

// PortSpec is one occurrence of a forwarding option. Auto, All and Rules
// combine: on its ports a rule takes precedence over Auto and All, in this and
// in other occurrences of the option.
type PortSpec struct {
	// Text is the option as typed, for messages: "-t 22:23". For a default
	// it is an option of the same effect.
	Text string
	// Auto follows the ports which are bound on the target's side.
	Auto bool
	// All forwards every port that is free and not ephemeral; whoever binds
	// the ports knows the ephemeral range. It is also set if only
	// exclusions were given.
	All bool
	// Inherited marks UDP ports taken from TCP's list: one that cannot be
	// bound is not an error.
	Inherited bool
	// Addr and Iface are where to listen, as in PortRule; they are for Auto
	// and All, and each rule has a copy.
	Addr  netip.Addr
	Iface string
	// AllToAddr is the target address of All; zero for the default.
	AllToAddr netip.Addr
	// Rules are the explicit ports.
	Rules []PortRule
	// Exclude are the ports that Auto and All do not forward, sorted and
	// not adjacent.
	Exclude []PortRange
}

// Excluded reports whether port is in Exclude.
func (s *PortSpec) Excluded(port uint16) bool {
	for _, r := range s.Exclude {
		if r.Contains(port) {
			return true
		}
	}
	return false
}

// NamesFamily reports whether s names an address of the family, to listen on or
// to forward to.
func (s *PortSpec) NamesFamily(v6 bool) bool {
	is := func(a netip.Addr) bool { return a.IsValid() && a.Is6() == v6 }
	return is(s.Addr) || is(s.AllToAddr) || slices.ContainsFunc(s.Rules, func(r PortRule) bool { return is(r.ToAddr) })
}

// String returns the specification in the grammar of [ParsePorts], in
// canonical form: parsing it again gives the same rules, and the same text.
func (s *PortSpec) String() string {
	var items []string
	if s.Auto {
		items = append(items, "auto")
	}
	if s.All {
		all := "all"
		if s.AllToAddr.IsValid() {
			all += ":" + hostText(s.AllToAddr)
		}
		items = append(items, all)
	}
	for _, r := range s.Rules {
		items = append(items, r.item())
	}
	for _, r := range s.Exclude {
		items = append(items, "~"+r.String())
	}
	return listenText(s.Addr, s.Iface) + strings.Join(items, ",")
}

// listenText is the listening address and its slash, or empty.
func listenText(addr netip.Addr, iface string) string {
	var s string
	if addr.IsValid() {
		s = hostText(addr)
	}
	if iface != "" {
		s += "%" + iface
	}
	if s != "" {
		s += "/"
	}
	return s
}

// hostText is an address, in brackets if it is IPv6.
func hostText(addr netip.Addr) string {
	if addr.Is6() {
		return "[" + addr.String() + "]"
	}
	return addr.String()
}
