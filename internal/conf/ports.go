package conf

import "net/netip"

// PortRange is an inclusive range of ports, 1 ≤ First ≤ Last ≤ 65535.
type PortRange struct {
	First, Last uint16
}

// PortRule forwards the ports First to Last of a listening address to the
// ports that start at ToFirst on the other side. Exclusions are already cut
// out of it.
type PortRule struct {
	// Addr is the address to listen on. The zero Addr is any address of
	// both families, while 0.0.0.0 and :: are any of theirs.
	Addr netip.Addr
	// Iface is the interface to listen on; empty for all.
	Iface string
	// First and Last are the listening ports, inclusive.
	First, Last uint16
	// ToFirst is the target of First; the others follow in step.
	ToFirst uint16
	// ToAddr is the target address; the zero Addr is the default one.
	ToAddr netip.Addr
}

// PortSpec is one occurrence of a forwarding option. Auto, All and Rules
// combine: a rule has precedence over Auto and All on its ports.
type PortSpec struct {
	// Text is the option as it was typed, for messages: "-t 22:23".
	Text string
	// Auto follows the ports which are bound on the target's side.
	Auto bool
	// All forwards every port that is free and not ephemeral. It is up to
	// the listener to know the ephemeral range. It is also set where only
	// exclusions were given.
	All bool
	// Inherited marks UDP ports that come from TCP's list: a port that
	// cannot be bound is no reason to fail.
	Inherited bool
	// Addr and Iface are where Auto and All listen, as in PortRule.
	Addr  netip.Addr
	Iface string
	// AllToAddr is the target address of All; zero for the default.
	AllToAddr netip.Addr
	// Rules are the explicit ports.
	Rules []PortRule
	// Exclude are the ports that Auto and All leave alone, sorted, apart.
	Exclude []PortRange
}
