package wire

import (
	"encoding/binary"
	"net/netip"
)

// Addr is an IPv6 address, or an IPv4 one in its v4-mapped form
// (::ffff:a.b.c.d, RFC 4291 section 2.5.5.2), so that both families share one
// comparable type without pointers. The zero Addr is the unspecified address of
// IPv6, and also means "none".
type Addr [16]byte

// Addr4 is the IPv4 address in the first four octets of b.
func Addr4(b []byte) Addr {
	return Addr{10: 0xff, 11: 0xff, 12: b[0], 13: b[1], 14: b[2], 15: b[3]}
}

// Addr6 is the IPv6 address in the first sixteen octets of b.
func Addr6(b []byte) Addr { return Addr(b[:16]) }

// AddrFrom converts a netip address; the zone is dropped, an invalid address
// becomes the zero Addr.
func AddrFrom(a netip.Addr) Addr {
	if !a.IsValid() {
		return Addr{}
	}
	return a.As16()
}

// Netip converts to a netip address; v4-mapped addresses come out as IPv4.
func (a Addr) Netip() netip.Addr { return netip.AddrFrom16(a).Unmap() }

// Is4 tells whether a is an IPv4 address.
func (a *Addr) Is4() bool {
	return binary.BigEndian.Uint64(a[:8]) == 0 && binary.BigEndian.Uint32(a[8:]) == 0xffff
}

// IsZero tells whether a is the zero Addr ("none").
func (a *Addr) IsZero() bool { return *a == Addr{} }

// V4 returns the four octets of an IPv4 address; they alias a.
func (a *Addr) V4() []byte { return a[12:16] }

// Bytes returns the octets as they stand in an IP header: four for IPv4,
// sixteen for IPv6. They alias a.
func (a *Addr) Bytes() []byte {
	if a.Is4() {
		return a[12:16]
	}
	return a[:]
}

// IsLoopback tells whether a lies in 127.0.0.0/8 or is ::1.
func (a *Addr) IsLoopback() bool {
	if a.Is4() {
		return a[12] == 127
	}
	return *a == Addr{15: 1}
}

// IsMulticast tells whether a lies in 224.0.0.0/4 or ff00::/8.
func (a *Addr) IsMulticast() bool {
	if a.Is4() {
		return a[12]&0xf0 == 0xe0
	}
	return a[0] == 0xff
}

// IsLinkLocal tells whether a lies in 169.254.0.0/16 or fe80::/10.
func (a *Addr) IsLinkLocal() bool {
	if a.Is4() {
		return a[12] == 169 && a[13] == 254
	}
	return a[0] == 0xfe && a[1]&0xc0 == 0x80
}

// Unspecified is 0.0.0.0 or ::.
func Unspecified(v4 bool) Addr {
	if v4 {
		return Addr{10: 0xff, 11: 0xff}
	}
	return Addr{}
}

// IsUnspecified tells whether a is 0.0.0.0 or ::.
func (a *Addr) IsUnspecified() bool {
	if a.Is4() {
		return binary.BigEndian.Uint32(a[12:]) == 0
	}
	return a.IsZero()
}

// IsBroadcast4 tells whether a is the limited broadcast address, 255.255.255.255.
func (a *Addr) IsBroadcast4() bool {
	return a.Is4() && binary.BigEndian.Uint32(a[12:]) == 0xffffffff
}

// IsUnicastHost tells whether a can be the address of a host on a network: it is
// neither unspecified, loopback, multicast nor the limited broadcast address.
func (a *Addr) IsUnicastHost() bool {
	return !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsBroadcast4()
}

func (a Addr) String() string { return a.Netip().String() }

// MAC is an Ethernet address.
type MAC [6]byte

// Broadcast is the Ethernet broadcast address.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// IsMulticast tells whether m is a multicast or the broadcast address.
func (m *MAC) IsMulticast() bool { return m[0]&1 != 0 }

// IsZero tells whether m is all zero ("not known").
func (m *MAC) IsZero() bool { return *m == MAC{} }
