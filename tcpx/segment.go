package tcpx

import (
	"encoding/binary"

	"penne/internal/wire"
)

// segment is the TCP header of a segment from the guest.
type segment struct {
	seq, ack uint32
	len      uint32 // payload, in octets
	wnd      uint16 // unscaled
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

// inWindow tells whether a segment of span octets at seq overlaps the window
// [next, edge): RFC 9293 section 3.10.7.4, table 6. A segment at next is let
// through even when the window is closed, to be trimmed to nothing, so that its
// acknowledgment or RST counts (same section, "special allowance").
func inWindow(seq, span, next, edge uint32) bool {
	if seq == next {
		return true
	}
	if span == 0 {
		return wire.SeqLT(next, seq) && wire.SeqLT(seq, edge)
	}
	return wire.SeqLT(seq, edge) && wire.SeqLT(next, seq+span)
}

// trim is what to take off a segment's payload, skip octets at the front and drop
// at the back, to leave what lies in [next, edge).
func trim(seq, length, next, edge uint32) (skip, drop uint32) {
	if wire.SeqLT(seq, next) {
		skip = min(next-seq, length)
	}
	if end := seq + length; wire.SeqLT(edge, end) {
		drop = min(end-edge, length-skip)
	}
	return skip, drop
}

// resetVerdict is what to do with a RST by RFC 5961 section 3.2.
type resetVerdict uint8

const (
	resetIgnore resetVerdict = iota
	resetChallenge
	resetAccept
)

// judgeReset judges a RST at seq. Besides next, acked is accepted: a guest that
// has forgotten the connection answers our last acknowledgment, which may be
// behind next, with a RST at that number.
func judgeReset(seq, acked, next, edge uint32) resetVerdict {
	switch {
	case seq == next, seq == acked:
		return resetAccept
	case wire.SeqLT(acked, seq) && wire.SeqLT(seq, edge):
		return resetChallenge
	}
	return resetIgnore
}

// ackVerdict is what an acknowledgment number means by RFC 9293 section 3.10.7.4
// and RFC 5961 section 5.
type ackVerdict uint8

const (
	ackOld    ackVerdict = iota // below una
	ackSame                     // equals una
	ackNew                      // acknowledges new octets
	ackFuture                   // acknowledges what was never sent
	ackStale                    // older than any window: forged, says RFC 5961
)

// judgeAck judges ack against what was acknowledged (una), what was sent (max) and
// the largest window the guest ever advertised.
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

// Minimum and default MSS. minMSS is Linux's TCP_MIN_SND_MSS: a smaller one would
// make us send floods of tiny segments. The defaults are those of RFC
// 9293 section 3.7.1 for a SYN without the option.
const (
	minMSS      = 48
	defaultMSS4 = 536
	defaultMSS6 = 1220
)

// guestMSS is the MSS for segments to the guest: the option of its SYN (0: absent),
// within what its link carries.
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

// maxMSS is the largest MSS: with headers without options it makes an IPv4 packet
// of 65535 octets.
const maxMSS = 65535 - wire.IPv4Len - wire.TCPLen

// ourMSS is the MSS we announce.
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
