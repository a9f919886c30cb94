package vnet

import (
	"encoding/binary"

	"penne/csum"
	"penne/internal/wire"
	"penne/ring"
)

// csumOffset is where the checksum field of a TCP or UDP header is.
func csumOffset(proto uint8) uint16 {
	if proto == wire.ProtoTCP {
		return tcpCsumOffset
	}
	return udpCsumOffset
}

// verified tells whether the checksum of the IPv4 header, if b has one, and
// that of the TCP or UDP segment are right. It asks for one: a UDP datagram
// without fails. A partial one needs no proof. Link padding is left out.
func verified(b []byte, h *wire.Headers, o *ring.Offload) bool {
	if !h.V6 && csum.Fold(csum.Sum(b[h.L3:h.L4], 0)) != 0xffff {
		return false
	}
	if o.NeedsCsum {
		return true
	}
	l4 := b[h.L4 : uint32(h.Payload)+h.PayloadLen]
	if h.Proto == wire.ProtoUDP && l4[udpCsumOffset] == 0 && l4[udpCsumOffset+1] == 0 {
		return false
	}
	return csum.Fold(csum.Sum(l4, wire.PseudoSum(&h.Src, &h.Dst, h.Proto, len(l4)))) == 0xffff
}

// Complete computes the checksum that o says is partial and puts it into
// frame, as the receiver of the offload would have: the field holds the sum of
// the pseudo-header, the sum runs to the end of the frame. It then clears
// o.NeedsCsum. It returns false, and changes nothing, if the fields lie outside
// the frame. A frame with GSOType set has no one checksum: see Splitter.
func Complete(frame []byte, o *ring.Offload) bool {
	if !o.NeedsCsum {
		return true
	}
	field := int(o.CsumStart) + int(o.CsumOffset)
	if field+2 > len(frame) {
		return false
	}
	// Zero becomes 0xffff, which UDP needs (RFC 768) and which means the
	// same to the others.
	sum := csum.FinishUDP(csum.Sum(frame[o.CsumStart:], 0))
	binary.BigEndian.PutUint16(frame[field:], sum)
	o.NeedsCsum = false
	return true
}
