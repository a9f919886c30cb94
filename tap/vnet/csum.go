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
