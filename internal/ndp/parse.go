package ndp

import (
	"encoding/binary"

	"penne/internal/wire"
	"penne/ring"
)

// Options (RFC 4861 section 4.6, RFC 8106 section 5).
const (
	optSourceLink = 1
	optTargetLink = 2
	optPrefix     = 3
	optMTU        = 5
	optRDNSS      = 25
	optDNSSL      = 31
)

// Lengths of messages without options, in octets.
const (
	lenRS       = 8
	lenRA       = 16
	lenNeighbor = 24 // NS and NA
	lenRedirect = 40
)

// message is the content of a received message.
type message struct {
	typ    uint8
	src    node
	dstMAC wire.MAC
	target wire.Addr // of a solicitation for a neighbour
}

// parse reads the message in f, whose headers are f.H; false if RFC 4861 says to
// discard it.
func (m *message) parse(f *ring.Frame) bool {
	h, b := &f.H, f.Bytes()
	icmp := b[h.L4 : uint32(h.Payload)+h.PayloadLen]
	m.typ = icmp[0]
	m.dstMAC, m.src = wire.MAC(b), node{h.Src, wire.MAC(b[6:])}
	switch {
	case h.TTL != hopLimit, icmp[1] != 0, m.src.addr.IsMulticast(), len(icmp) < m.fixedLen():
		return false
	case !f.Offload.NeedsCsum && !h.SumOK(b): // NeedsCsum: it is not computed yet
		return false
	case m.typ == typeNS:
		return m.parseNS(icmp, &h.Dst)
	}
	hasLink, ok := options(icmp[m.fixedLen():], optSourceLink)
	return ok && !(hasLink && m.typ == typeRS && m.src.addr.IsUnspecified())
}

// fixedLen is the length of the message before its options.
func (m *message) fixedLen() int {
	switch m.typ {
	case typeRS:
		return lenRS
	case typeRA:
		return lenRA
	case typeRedirect:
		return lenRedirect
	}
	return lenNeighbor
}

// parseNS follows RFC 4861 section 7.1.1.
func (m *message) parseNS(icmp []byte, dst *wire.Addr) bool {
	m.target = wire.Addr6(icmp[8:])
	hasLink, ok := options(icmp[lenNeighbor:], optSourceLink)
	switch {
	case !ok, m.target.IsMulticast(), m.target.IsUnspecified(), m.target.IsLoopback(), m.target.Is4():
		return false
	case m.src.addr.IsUnspecified():
		return !hasLink && isSolicitedNode(dst)
	}
	return true
}

// isSolicitedNode reports whether a is a solicited-node multicast address
// (RFC 4291 section 2.7.1).
func isSolicitedNode(a *wire.Addr) bool {
	return binary.BigEndian.Uint64(a[:]) == 0xff02<<48 && binary.BigEndian.Uint32(a[8:]) == 1 && a[12] == 0xff
}

// options reports whether there is one of kind among the options b; ok is false if
// the length of any is zero or runs past the end.
func options(b []byte, kind byte) (found, ok bool) {
	for len(b) > 0 {
		if len(b) < 8 || b[1] == 0 || int(b[1])*8 > len(b) {
			return false, false
		}
		found = found || b[0] == kind
		b = b[int(b[1])*8:]
	}
	return found, true
}
