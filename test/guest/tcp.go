package guest

import (
	"encoding/binary"
	"testing"

	"penne/csum"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
)

// Translator is the TCP translator under test.
type Translator interface {
	Input(frames []*ring.Frame)
	Event(tok flow.Token, bits uint32)
	Expire()
	Flush()
}

// TCP is the guest's end of one connection, played by the test: it numbers what
// it sends and keeps what it was told, and does nothing by itself.
type TCP struct {
	G *Guest
	X Translator

	Addr, Remote     wire.Addr
	Port, RemotePort uint16

	// Seq is the next sequence number to send, Ack what is acknowledged.
	Seq, Ack uint32
	// Win is the window field of what is sent, unscaled.
	Win uint16
	// MSS and Scale go into a SYN; 0 and -1 leave the option out. SACK too.
	MSS   uint16
	Scale int
	SACK  bool

	// Got are the segments of this connection taken by Pass and not looked at.
	Got []Segment
	// Other is what else the translator sent (ICMP).
	Other []Out
}

// Segment is one TCP segment that the translator sent.
type Segment struct {
	Out
	wire.TCP
	Opts wire.TCPOptions
	Data []byte
}

// Has tells whether all of flags are set.
func (s *Segment) Has(flags uint8) bool { return s.Flags()&flags == flags }

// NewTCP makes the guest's end of a connection from port to remote, IPv4 or
// IPv6 as remote is. Its sequence numbers start just before they wrap.
func NewTCP(g *Guest, x Translator, remote wire.Addr, port, remotePort uint16) *TCP {
	a := Addr6
	if remote.Is4() {
		a = Addr4
	}
	return &TCP{G: g, X: x, Addr: a, Remote: remote, Port: port, RemotePort: remotePort,
		Seq: 1<<32 - 3000, Win: 65535, MSS: 1460, Scale: 7, SACK: true}
}

// Frame is an Ethernet frame with a segment from the guest, sums included.
func (c *TCP) Frame(flags uint8, seq, ack uint32, opts, payload []byte) []byte {
	for len(opts)%4 != 0 {
		opts = append(opts, wire.OptNop)
	}
	ipLen := c.Addr.IPLen()
	b := make([]byte, wire.EthLen+ipLen+wire.TCPLen+len(opts)+len(payload))
	wire.PutEth(b, &OurMAC, &MAC, c.Addr.EtherType())
	l4 := b[wire.EthLen+ipLen:]
	wire.PutIP(b[wire.EthLen:], len(l4), wire.ProtoTCP, &c.Addr, &c.Remote)
	binary.BigEndian.PutUint16(l4, c.Port)
	binary.BigEndian.PutUint16(l4[2:], c.RemotePort)
	binary.BigEndian.PutUint32(l4[4:], seq)
	binary.BigEndian.PutUint32(l4[8:], ack)
	l4[12], l4[13] = byte((wire.TCPLen+len(opts))<<2), flags
	binary.BigEndian.PutUint16(l4[14:], c.Win)
	copy(l4[wire.TCPLen:], opts)
	copy(l4[wire.TCPLen+len(opts):], payload)
	binary.BigEndian.PutUint16(l4[16:], csum.Finish(csum.Sum(l4, wire.PseudoSum(&c.Addr, &c.Remote, wire.ProtoTCP, len(l4)))))
	return b
}

// Raw gives the translator one segment exactly as told; Seq does not move.
func (c *TCP) Raw(flags uint8, seq, ack uint32, opts, payload []byte) {
	c.G.T.Helper()
	f := c.G.Frame(c.Frame(flags, seq, ack, opts, payload), ring.Offload{})
	c.X.Input([]*ring.Frame{f})
}

// Send gives the translator the next segment, with ACK.
func (c *TCP) Send(flags uint8, payload []byte) {
	c.G.T.Helper()
	c.Raw(flags|wire.ACK, c.Seq, c.Ack, nil, payload)
	c.Seq += uint32(len(payload)) + uint32(flags&wire.FIN)
}

// SynOptions are the options for a SYN by MSS, Scale and SACK.
func (c *TCP) SynOptions() []byte {
	var o []byte
	if c.MSS != 0 {
		o = append(o, wire.OptMSS, 4, byte(c.MSS>>8), byte(c.MSS))
	}
	if c.Scale >= 0 {
		o = append(o, wire.OptWScale, 3, byte(c.Scale))
	}
	if c.SACK {
		o = append(o, wire.OptSACKOK, 2)
	}
	return o
}

// SYN sends the guest's SYN.
func (c *TCP) SYN() {
	c.G.T.Helper()
	c.Raw(wire.SYN, c.Seq, 0, c.SynOptions(), nil)
	c.Seq++
}

// Pass ends the pass: timers, then Flush; and takes what was sent.
func (c *TCP) Pass() {
	c.G.T.Helper()
	c.X.Expire()
	c.X.Flush()
	c.G.Env.Out.Flush()
	for _, o := range c.G.Take() {
		if s, ok := c.read(o); ok {
			c.Got = append(c.Got, s)
		} else {
			c.Other = append(c.Other, o)
		}
	}
}

// read decodes a segment of this connection, and fails the test for one that
// could not be delivered.
func (c *TCP) read(o Out) (s Segment, ok bool) {
	c.G.T.Helper()
	if o.Verdict != wire.OK || o.H.Proto != wire.ProtoTCP || o.H.Src != c.Remote || o.H.Dst != c.Addr ||
		o.H.SrcPort != c.RemotePort || o.H.DstPort != c.Port {
		return s, false
	}
	CheckTCP(c.G.T, &o)
	s.Out, s.TCP = o, wire.TCP(o.Bytes[o.H.L4:o.H.Payload])
	s.TCP.Options(&s.Opts)
	s.Data = o.Payload()
	return s, true
}

// CheckTCP fails the test if the frame's sums and offload are not what a
// virtio-net receiver needs.
func CheckTCP(t testing.TB, o *Out) {
	t.Helper()
	if !o.H.V6 {
		if s := csum.Sum(o.Bytes[o.H.L3:o.H.L3+wire.IPv4Len], 0); csum.Fold(s) != 0xffff {
			t.Fatalf("IPv4 checksum wrong: sum %#x", s)
		}
	}
	l4 := o.Bytes[o.H.L4:]
	off := o.Offload
	if !off.NeedsCsum || off.CsumStart != o.H.L4 || off.CsumOffset != 16 {
		t.Fatalf("partial checksum not announced: %+v", off)
	}
	want := csum.Fold(wire.PseudoSum(&o.H.Src, &o.H.Dst, wire.ProtoTCP, len(l4)))
	if got := binary.BigEndian.Uint16(l4[16:]); got != want {
		t.Fatalf("pseudo-header sum %#x, want %#x", got, want)
	}
	if off.GSOType != ring.GSONone && (off.GSOSize == 0 || uint32(off.GSOSize) >= o.H.PayloadLen) {
		t.Fatalf("segmentation of %d octets by %d", o.H.PayloadLen, off.GSOSize)
	}
	if n := len(o.Bytes) - wire.EthLen; n > 65535 {
		t.Fatalf("IP packet of %d octets", n)
	}
}

// Events waits for events from the kernel, and runs a pass with them.
func (c *TCP) Events() {
	c.G.T.Helper()
	c.G.Wait(c.X.Event)
	c.Pass()
}

// Until runs passes with events until cond holds.
func (c *TCP) Until(cond func() bool) {
	c.G.T.Helper()
	for c.Pass(); !cond(); {
		c.Events()
	}
}

// Next takes the oldest segment not looked at, waiting for events for it.
func (c *TCP) Next() Segment {
	c.G.T.Helper()
	c.Until(func() bool { return len(c.Got) > 0 })
	s := c.Got[0]
	c.Got = c.Got[1:]
	return s
}

// None fails the test if anything was sent that was not looked at.
func (c *TCP) None() {
	c.G.T.Helper()
	c.Pass()
	if len(c.Got) > 0 {
		s := &c.Got[0]
		c.G.T.Fatalf("unexpected segment: flags %#x seq %d ack %d, %d octets", s.Flags(), s.Seq(), s.Ack(), len(s.Data))
	}
}

// Connect does the guest's handshake and returns the SYN-ACK.
func (c *TCP) Connect() Segment {
	c.G.T.Helper()
	c.SYN()
	s := c.Next()
	if s.Flags() != wire.SYN|wire.ACK || s.TCP.Ack() != c.Seq {
		c.G.T.Fatalf("answer to SYN: flags %#x ack %d, want SYN, ACK and %d", s.Flags(), s.TCP.Ack(), c.Seq)
	}
	c.Ack = s.Seq() + 1
	c.Send(0, nil)
	c.Pass()
	return s
}
