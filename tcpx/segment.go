package tcpx

import (
	"encoding/binary"

	"penne/internal/wire"
)

// segment is what a TCP header from the guest says.
type segment struct {
	seq, ack uint32
	len      uint32 // payload, in octets
	wnd      uint16 // as it stands in the header, unscaled
	flags    uint8
	hdr      wire.TCP // with options
}

// readSegment reads the TCP header of the classified frame b.
func readSegment(b []byte, h *wire.Headers) segment {
	t := wire.TCP(b[h.L4:h.Payload])
	return segment{seq: t.Seq(), ack: t.Ack(), len: h.PayloadLen, wnd: t.Window(), flags: t.Flags(), hdr: t}
}

func (s *segment) has(flags uint8) bool { return s.flags&flags == flags }

// span is the sequence space the segment takes: payload, SYN and FIN.
func (s *segment) span() uint32 {
	return s.len + uint32(s.flags&wire.FIN) + uint32(s.flags&wire.SYN)>>1
}

// inWindow tells whether a segment of span octets at seq touches the window
// [next, edge): RFC 9293 section 3.10.7.4, table 6, but that a segment at next
// is let through when the window is closed, cut to nothing, so that its
// acknowledgment and RST count (same section, "special allowance").
func inWindow(seq, span, next, edge uint32) bool {
	if seq == next {
		return true
	}
	if span == 0 {
		return wire.SeqLT(next, seq) && wire.SeqLT(seq, edge)
	}
	return wire.SeqLT(seq, edge) && wire.SeqLT(next, seq+span)
}

// cut is the part of a segment that is new and fits: skip octets from the
// front and drop from the back leave the payload within [next, edge).
func cut(seq, length, next, edge uint32) (skip, drop uint32) {
	if wire.SeqLT(seq, next) {
		skip = min(next-seq, length)
	}
	if end := seq + length; wire.SeqLT(edge, end) {
		drop = min(end-edge, length-skip)
	}
	return skip, drop
}

// resetVerdict is what RFC 5961 section 3.2 says of a RST.
type resetVerdict uint8

const (
	resetIgnore resetVerdict = iota
	resetChallenge
	resetAccept
)

// judgeReset judges a RST at seq. Besides next, acked is good: a guest that
// has forgotten the flow takes the sequence number from our last
// acknowledgment, which may be behind what we have taken.
func judgeReset(seq, acked, next, edge uint32) resetVerdict {
	switch {
	case seq == next, seq == acked:
		return resetAccept
	case wire.SeqLT(acked, seq) && wire.SeqLT(seq, edge):
		return resetChallenge
	}
	return resetIgnore
}

// ackVerdict is what RFC 9293 section 3.10.7.4 and RFC 5961 section 5 say of an
// acknowledgment number.
type ackVerdict uint8

const (
	ackOld    ackVerdict = iota // below what was acknowledged: no news
	ackSame                     // repeats what was acknowledged
	ackNew                      // acknowledges something
	ackFuture                   // acknowledges what was never sent
	ackStale                    // so old that it must be forged
)

// judgeAck judges ack against what was acknowledged (una), sent (max) and the
// greatest window the guest ever gave.
func judgeAck(ack, una, max, window uint32) ackVerdict {
	switch {
	case ack == una:
		return ackSame
	case wire.SeqLT(una, ack) && wire.SeqLE(ack, max):
		return ackNew
	case wire.SeqLT(max, ack):
		return ackFuture
	case wire.SeqLT(ack, una-window):
		return ackStale
	}
	return ackOld
}

// Least and default MSS. minMSS is Linux's TCP_MIN_SND_MSS: a smaller one is a
// way to make us send floods of tiny segments. The defaults are those of RFC
// 9293 section 3.7.1 for a SYN without the option.
const (
	minMSS      = 48
	defaultMSS4 = 536
	defaultMSS6 = 1220
)

// guestMSS is the payload of the largest segment the guest takes: what its SYN
// says, within what its link carries.
func guestMSS(option uint16, v4 bool, mtu int) uint16 {
	hdr, mss := wire.IPv6Len+wire.TCPLen, int(option)
	if v4 {
		hdr = wire.IPv4Len + wire.TCPLen
	}
	switch {
	case option == 0 && v4:
		mss = defaultMSS4
	case option == 0:
		mss = defaultMSS6
	}
	return uint16(max(minMSS, min(mss, mtu-hdr, maxMSS)))
}

// maxMSS is the largest MSS announced: a segment of that size and the longest
// option-less headers stay within 65535 octets of IPv4 packet.
const maxMSS = 65535 - wire.IPv4Len - wire.TCPLen

// ourMSS is what we announce.
func ourMSS(v4 bool, mtu int) uint16 {
	if v4 {
		return uint16(max(minMSS, min(mtu-wire.IPv4Len-wire.TCPLen, maxMSS)))
	}
	return uint16(max(minMSS, min(mtu-wire.IPv6Len-wire.TCPLen, maxMSS)))
}

// synOptions writes the options of a SYN or SYN-ACK into b (at least 12 octets)
// and returns them. scale < 0 leaves out the window scale.
func synOptions(b []byte, mss uint16, scale int, sack bool) []byte {
	o := append(b[:0], wire.OptMSS, 4, byte(mss>>8), byte(mss))
	if scale >= 0 {
		o = append(o, wire.OptNop, wire.OptWScale, 3, byte(scale))
	}
	if sack {
		o = append(o, wire.OptNop, wire.OptNop, wire.OptSACKOK, 2)
	}
	return o
}

// sackOption writes a SACK option of n blocks into b (at least 4+8n octets).
func sackOption(b []byte, blocks [][2]uint32) []byte {
	o := append(b[:0], wire.OptNop, wire.OptNop, wire.OptSACK, byte(2+8*len(blocks)))
	for _, e := range blocks {
		o = binary.BigEndian.AppendUint32(o, e[0])
		o = binary.BigEndian.AppendUint32(o, e[1])
	}
	return o
}
