package wire

import "encoding/binary"

// EtherTypes that Parse knows.
const (
	EtherIPv4 = 0x0800
	EtherARP  = 0x0806
	EtherIPv6 = 0x86dd
)

// IP protocol numbers that Parse knows.
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
)

// Sizes of headers without options, in octets.
const (
	EthLen  = 14
	IPv4Len = 20
	IPv6Len = 40
	TCPLen  = 20
	UDPLen  = 8
	ICMPLen = 8
)

// Verdict is the result of Parse.
type Verdict uint8

// Verdicts of Parse.
const (
	OK        Verdict = iota // valid as far as the L4 header
	Truncated                // shorter than its headers say
	Malformed                // a field contradicts another
	Fragment                 // an IP fragment (first or later)
	Unknown                  // an EtherType or protocol that is not ours
)

// Headers is what Parse found in a frame. Offsets count from the start of the
// Ethernet header, and with the verdict OK all of them, and PayloadLen, lie within
// the frame. Of frames that are not IP only EtherType is set.
type Headers struct {
	Src, Dst   Addr   // IP source and destination
	EtherType  uint16 // host order
	L3, L4     uint16 // offset of the IP header, and of the TCP/UDP/ICMP header
	Payload    uint16 // offset of what follows the L4 header (TCP options skipped)
	SrcPort    uint16 // TCP and UDP; the identifier for an ICMP echo
	DstPort    uint16 // TCP and UDP; type<<8|code for ICMP
	PayloadLen uint32 // octets from Payload on, link padding excluded
	Proto      uint8  // after IPv6 extension headers
	TTL        uint8  // TTL or hop limit
	TClass     uint8  // TOS or traffic class
	V6         bool
}

// Parse fills h from the Ethernet frame b, which may be a superpacket (up to 64 KiB of
// payload). It does not verify checksums.
func Parse(b []byte, h *Headers) Verdict {
	*h = Headers{}
	if len(b) < EthLen {
		return Truncated
	}
	h.EtherType = binary.BigEndian.Uint16(b[12:])
	switch h.EtherType {
	case EtherIPv4:
		return parse4(b, h)
	case EtherIPv6:
		return parse6(b, h)
	case EtherARP:
		return OK
	}
	return Unknown
}

func parse4(b []byte, h *Headers) Verdict {
	if len(b) < EthLen+IPv4Len {
		return Truncated
	}
	ip := b[EthLen:]
	ihl := int(ip[0]&15) * 4
	total := int(binary.BigEndian.Uint16(ip[2:]))
	if ip[0]>>4 != 4 || ihl < IPv4Len || total < ihl {
		return Malformed
	}
	if total > len(ip) {
		return Truncated
	}
	h.L3, h.L4 = EthLen, uint16(EthLen+ihl)
	h.TClass, h.TTL, h.Proto = ip[1], ip[8], ip[9]
	h.Src, h.Dst = Addr4(ip[12:]), Addr4(ip[16:])
	// The MF flag or a fragment offset (RFC 791 section 3.1).
	if binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
		return Fragment
	}
	return parseL4(b[:EthLen+total], h)
}

// IPv6 extension headers that may stand before the transport header
// (RFC 8200 section 4). Fragment headers make the verdict Fragment.
const (
	extHopByHop = 0
	extRouting  = 43
	extFragment = 44
	extDest     = 60
	maxExt      = 8 // more than any real packet has
)

func parse6(b []byte, h *Headers) Verdict {
	if len(b) < EthLen+IPv6Len {
		return Truncated
	}
	ip := b[EthLen:]
	if ip[0]>>4 != 6 {
		return Malformed
	}
	total := IPv6Len + int(binary.BigEndian.Uint16(ip[4:]))
	if total > len(ip) {
		return Truncated
	}
	h.V6, h.L3 = true, EthLen
	h.TClass = ip[0]<<4 | ip[1]>>4
	h.TTL = ip[7]
	h.Src, h.Dst = Addr6(ip[8:]), Addr6(ip[24:])
	// RFC 4291 section 2.5.5.2 has no v4-mapped addresses in packets, and an
	// Addr of that form means IPv4.
	if h.Src.Is4() || h.Dst.Is4() {
		return Malformed
	}
	next, off := ip[6], IPv6Len
	for range maxExt {
		switch next {
		case extHopByHop, extRouting, extDest:
			if off+8 > total {
				return Truncated
			}
			next, off = ip[off], off+8+8*int(ip[off+1])
		case extFragment:
			h.Proto = next
			return Fragment
		default:
			if off > total {
				return Truncated
			}
			h.Proto, h.L4 = next, uint16(EthLen+off)
			return parseL4(b[:EthLen+total], h)
		}
	}
	return Malformed
}

// parseL4 reads the transport header; b ends where the IP packet does.
func parseL4(b []byte, h *Headers) Verdict {
	l4 := b[h.L4:]
	switch {
	case h.Proto == ProtoTCP:
		return parseTCP(l4, h)
	case h.Proto == ProtoUDP:
		return parseUDP(l4, h)
	case h.Proto == ProtoICMP && !h.V6, h.Proto == ProtoICMPv6 && h.V6:
		if len(l4) < ICMPLen {
			return Truncated
		}
		h.SrcPort = binary.BigEndian.Uint16(l4[4:])
		h.DstPort = binary.BigEndian.Uint16(l4)
		return h.setPayload(ICMPLen, len(l4))
	}
	return Unknown
}

func parseTCP(l4 []byte, h *Headers) Verdict {
	if len(l4) < TCPLen {
		return Truncated
	}
	hdr := int(l4[12]>>4) * 4
	if hdr < TCPLen {
		return Malformed
	}
	if hdr > len(l4) {
		return Truncated
	}
	h.SrcPort = binary.BigEndian.Uint16(l4)
	h.DstPort = binary.BigEndian.Uint16(l4[2:])
	return h.setPayload(hdr, len(l4))
}

func parseUDP(l4 []byte, h *Headers) Verdict {
	if len(l4) < UDPLen {
		return Truncated
	}
	// In a USO superpacket it is the length of the whole. Zero would be a
	// jumbogram (RFC 2675), which no tap delivers.
	n := int(binary.BigEndian.Uint16(l4[4:]))
	if n < UDPLen {
		return Malformed
	}
	if n > len(l4) {
		return Truncated
	}
	h.SrcPort = binary.BigEndian.Uint16(l4)
	h.DstPort = binary.BigEndian.Uint16(l4[2:])
	return h.setPayload(UDPLen, n)
}

// setPayload notes an L4 header of hdr octets, and a payload up to end, from L4 on.
func (h *Headers) setPayload(hdr, end int) Verdict {
	h.Payload = h.L4 + uint16(hdr)
	h.PayloadLen = uint32(end - hdr)
	return OK
}
