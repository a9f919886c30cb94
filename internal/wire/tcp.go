package wire

import "encoding/binary"

// TCP flags (RFC 9293 section 3.1).
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// TCP is a TCP header, options included, whose length Parse has checked.
type TCP []byte

// Seq returns the sequence number.
func (t TCP) Seq() uint32 { return binary.BigEndian.Uint32(t[4:]) }

// Ack returns the acknowledgment number; meaningless without the ACK flag.
func (t TCP) Ack() uint32 { return binary.BigEndian.Uint32(t[8:]) }

// Flags returns the eight flag bits FIN..CWR.
func (t TCP) Flags() uint8 { return t[13] }

// Window returns the window field, unscaled.
func (t TCP) Window() uint16 { return binary.BigEndian.Uint16(t[14:]) }

// TCP option kinds (RFC 9293 section 3.2, RFC 7323, RFC 2018).
const (
	OptEnd       = 0
	OptNop       = 1
	OptMSS       = 2
	OptWScale    = 3
	OptSACKOK    = 4
	OptSACK      = 5
	OptTimestamp = 8
)

// TCPOptions are the options of a SYN, and the timestamp of any segment.
type TCPOptions struct {
	MSS       uint16 // 0: absent
	WScale    uint8  // 0..14 (RFC 7323 section 2.3 caps it); valid if HasWS
	TSVal     uint32 // valid if HasTS
	TSEcr     uint32
	HasWS     bool
	SACKOK    bool
	HasTS     bool
	SACK      [4][2]uint32 // blocks received: left edge, right edge
	SACKLen   uint8        // blocks used in SACK
	Malformed bool         // an option's length is wrong; those before it are valid
}

// Options reads the options of t. One of illegal length, which RFC 9293
// section 3.1 (MUST-7) requires to be handled, ends the reading and sets Malformed.
func (t TCP) Options(o *TCPOptions) {
	*o = TCPOptions{}
	if len(t) < TCPLen {
		return
	}
	b := t[TCPLen:]
	for len(b) > 0 {
		if b[0] == OptEnd {
			return
		}
		if b[0] == OptNop {
			b = b[1:]
			continue
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			o.Malformed = true
			return
		}
		o.option(b[0], b[2:b[1]])
		b = b[b[1]:]
	}
}

func (o *TCPOptions) option(kind byte, v []byte) {
	switch {
	case kind == OptMSS && len(v) == 2:
		o.MSS = binary.BigEndian.Uint16(v)
	case kind == OptWScale && len(v) == 1:
		o.HasWS, o.WScale = true, min(v[0], 14)
	case kind == OptSACKOK && len(v) == 0:
		o.SACKOK = true
	case kind == OptTimestamp && len(v) == 8:
		o.HasTS, o.TSVal, o.TSEcr = true, binary.BigEndian.Uint32(v), binary.BigEndian.Uint32(v[4:])
	case kind == OptSACK && len(v)%8 == 0 && len(v) <= 32:
		for ; len(v) > 0; v = v[8:] {
			o.SACK[o.SACKLen] = [2]uint32{binary.BigEndian.Uint32(v), binary.BigEndian.Uint32(v[4:])}
			o.SACKLen++
		}
	}
}

// SeqLT tells whether a is before b in sequence space (RFC 9293 section 3.4).
func SeqLT(a, b uint32) bool { return int32(a-b) < 0 }

// SeqLE tells whether a is before or at b in sequence space.
func SeqLE(a, b uint32) bool { return int32(a-b) <= 0 }
