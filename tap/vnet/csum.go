package vnet

import (
	"encoding/binary"

	"penne/csum"
	"penne/internal/wire"
	"penne/ring"
)

// csumOffset is the offset of the checksum field in a TCP or UDP header.
func csumOffset(proto uint8) uint16 {
	if proto == wire.ProtoTCP {
		return tcpCsumOffset
	}
	return udpCsumOffset
}

// Complete completes the partial checksum of frame, if o says that there is one, and
// clears o.NeedsCsum: it sums from o.CsumStart to the end of the frame, including
// the checksum field, which holds the sum of the pseudo-header. It returns false, and
// changes nothing, if the field lies outside the frame. Superpackets are for
// Splitter.
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
