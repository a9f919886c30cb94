package tcpx

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"time"

	"penne/internal/wire"
	"penne/test/guest"
)

// script turns fuzz input into steps against one connection and checks, after
// each, what must hold whatever a guest does.
type script struct {
	t    *testing.T
	r    *rig
	g    *guest.TCP
	in   []byte
	data []byte // the guest's stream: what sequence number base+i stands for
	base uint32
	sent uint32 // highest octet of the stream ever offered
	fin  bool
	edge uint32
	ours uint32 // highest sequence number the translator sent

	host  []byte // the host's stream
	first uint32 // the sequence number of its first octet
}

func (s *script) byte() byte {
	if len(s.in) == 0 {
		return 0
	}
	b := s.in[0]
	s.in = s.in[1:]
	return b
}

func (s *script) word() int { return int(s.byte())<<8 | int(s.byte()) }

// step plays one step of the guest.
func (s *script) step() {
	g := s.g
	switch op := s.byte(); op % 12 {
	case 0, 1, 2: // stream data, at or near its turn
		s.segment(wire.ACK, int(g.Seq-s.base)+s.word()%64*int(op%3), s.word())
	case 3: // repetition
		s.segment(wire.ACK, int(g.Seq-s.base)-s.word()%3000, s.word()%3000)
	case 4: // acknowledge what came
		g.Ack = s.ours
		g.Raw(wire.ACK, g.Seq, g.Ack, nil, nil)
	case 5: // acknowledge part of it, or too much
		g.Raw(wire.ACK, g.Seq, g.Ack+uint32(s.word())-100, nil, nil)
	case 6: // another window
		g.Win = uint16(s.word())
		g.Raw(wire.ACK, g.Seq, g.Ack, nil, nil)
	case 7: // any flags anywhere, any options
		opts := make([]byte, s.byte()%41)
		for i := range opts {
			opts[i] = s.byte()
		}
		flags := s.byte() &^ (wire.RST | wire.FIN)
		off := int(g.Seq-s.base) + int(int16(s.word()))
		g.Raw(flags, s.base+uint32(off), g.Ack+uint32(int16(s.word())), opts, nil)
	case 8:
		s.r.Advance(time.Duration(s.word()) * time.Millisecond)
	case 9:
		s.r.Ready(s.r.tcp.Event)
	case 10: // the end, at its place or not
		s.segment(wire.ACK|wire.FIN, int(g.Seq-s.base), s.word()%100)
	case 11: // a RST that is not exact
		g.Raw(wire.RST, g.Seq+1+uint32(s.word()), 0, nil, nil)
	}
}

// segment sends n octets of the stream from off on, as far as there is one.
func (s *script) segment(flags uint8, off, n int) {
	off = max(off, 0)
	n = max(0, min(n, len(s.data)-off, 60_000))
	off = min(off, len(s.data))
	if s.fin {
		flags &^= wire.FIN
		n = max(0, min(n, int(s.sent)-off))
	}
	if flags&wire.FIN != 0 {
		// A stream has one end: not before what was offered already.
		off, n = int(s.sent), 0
		s.fin = true
	}
	s.g.Raw(flags, s.base+uint32(off), s.g.Ack, nil, s.data[off:off+n])
	s.sent = max(s.sent, uint32(off+n))
}

// check looks at what came out and at the record.
func (s *script) check() {
	s.g.Pass()
	limit := s.base + s.sent
	if s.fin {
		limit++
	}
	for _, o := range s.g.Got {
		if o.Has(wire.ACK) && !o.Has(wire.RST) {
			if wire.SeqLT(limit, o.TCP.Ack()) {
				s.t.Fatalf("acknowledged %d octets that were never sent", o.TCP.Ack()-limit)
			}
			s.g.Seq = maxSeq(s.g.Seq, o.TCP.Ack())
		}
		s.checkData(&o)
		s.ours = maxSeq(s.ours, o.Seq()+uint32(len(o.Data))+uint32(o.Flags()&wire.FIN))
	}
	s.g.Got = nil
	c := &s.r.tcp.conns[0]
	if c.state == open {
		s.checkRecord(c)
	}
}

// checkData compares a segment's payload with the host's stream at its place.
func (s *script) checkData(o *guest.Segment) {
	off := int(o.Seq() - s.first)
	if n := len(o.Data); n > 0 && (off+n > len(s.host) || !bytes.Equal(o.Data, s.host[off:off+n])) {
		s.t.Fatalf("%d octets at %d are not the host's", n, off)
	}
}

func (s *script) checkRecord(c *conn) {
	if wire.SeqLT(c.ackTo, c.rcvAck) || wire.SeqLT(c.rcvNxt, c.ackTo) || wire.SeqLT(c.edge, c.rcvNxt) {
		s.t.Fatalf("acked %d ready %d taken %d edge %d", c.rcvAck, c.ackTo, c.rcvNxt, c.edge)
	}
	if wire.SeqLT(c.edge, s.edge) {
		s.t.Fatalf("edge moved left by %d", s.edge-c.edge)
	}
	s.edge = c.edge
	if wire.SeqLT(c.nxt, c.una) || wire.SeqLT(c.max, c.nxt) {
		s.t.Fatalf("una %d nxt %d max %d", c.una, c.nxt, c.max)
	}
	octets := uint32(0)
	for f := c.tail; f != nil; f = f.Next {
		octets += f.H.PayloadLen
	}
	if c.tail != nil && octets-c.tailSkip != c.tailLen || c.tail == nil && c.tailLen != 0 {
		s.t.Fatalf("tail of %d octets counted as %d", octets-c.tailSkip, c.tailLen)
	}
}

// FuzzScript plays random segments of a guest. Whatever it does: nothing is
// acknowledged that was not sent, the window's edge never moves left, each end
// gets the other's octets at their places, and a RST leaves nothing behind.
func FuzzScript(f *testing.F) {
	f.Add([]byte{0, 0, 0, 4, 0, 9, 4, 10, 0, 5, 9, 4})
	f.Add(bytes.Repeat([]byte{1, 0, 7, 0xff, 0xff, 9}, 40))
	f.Add(bytes.Repeat([]byte{2, 0, 3, 1, 0, 3, 0, 9, 0, 200, 0, 0, 0, 1, 0}, 20))
	f.Add(bytes.Repeat([]byte{9, 5, 0, 100, 5, 0, 100, 5, 0, 100, 8, 10, 0, 6, 0, 0, 8, 200, 0, 9, 6, 0xff, 0xff}, 10))
	f.Add([]byte{7, 40, 5, 10, 1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0, 0, 0, 0, 11, 0, 1, 9})
	f.Add([]byte{9, 6, 0, 10, 8, 0x04, 0x4c, 5, 0x0c, 0x1c, 9}) // a timeout in a shrunken window, then acknowledged ahead
	f.Fuzz(playScript)
}

func playScript(t *testing.T, in []byte) {
	r := newRig(t, false, Config{MaxTail: 200_000})
	g, host := r.open()
	s := &script{t: t, r: r, g: g, in: in, data: pattern(1 << 18), base: g.Seq, edge: r.conn().edge, ours: g.Ack,
		host: pattern(20_000), first: g.Ack}
	host.Write(s.host)
	for i := 0; len(s.in) > 0 && i < 500 && r.tcp.Len() > 0; i++ {
		s.step()
		s.check()
	}
	taken := s.taken()
	if r.tcp.Len() > 0 {
		c := r.conn()
		g.Raw(wire.RST, c.rcvNxt, 0, nil, nil)
	}
	g.Pass()
	if r.tcp.Len() > 0 && r.conn().state != timeWait {
		t.Fatalf("flow in %s after a RST", r.conn().phase())
	}
	host.SetDeadline(time.Now().Add(guest.Patience))
	got, _ := io.ReadAll(host)
	if len(got) > int(taken) || !bytes.Equal(got, s.data[:len(got)]) {
		t.Fatalf("host read %d octets that are no prefix of the %d taken", len(got), taken)
	}
}

// taken is how much of the stream the translator has taken.
func (s *script) taken() uint32 {
	if s.r.tcp.Len() == 0 || s.r.conn().state != open {
		return s.sent
	}
	n := s.r.conn().rcvNxt - s.base
	return min(n, s.sent)
}

// FuzzHandshake plays random segments before and around a handshake.
func FuzzHandshake(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 0, 16, 0, 1, 0, 1, 0}, true)
	f.Add([]byte{2, 0, 0, 0, 8, 2, 4, 0, 1, 3, 3, 15, 0, 18, 0, 1, 0, 1, 0}, false)
	f.Add([]byte{4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x3f, 0, 0, 0, 0}, true)
	f.Fuzz(func(t *testing.T, in []byte, inbound bool) {
		r := newRig(t, false, Config{Flows: 4})
		g := r.dial()
		ack := uint32(0)
		if inbound {
			g, _ = r.inbound()
			ack = g.Next().Seq()
		}
		for i := 0; len(in) >= 6 && i < 50; i++ {
			flags := in[0]
			seq := g.Seq + uint32(int8(in[1]))
			opts := in[6:min(6+int(in[4])%41, len(in))]
			payload := make([]byte, in[5])
			g.Raw(flags, seq, ack+uint32(int8(in[2])), append([]byte(nil), opts[:min(len(opts), 40)]...), payload)
			if in[3]&1 != 0 {
				r.Ready(r.tcp.Event)
			}
			r.Advance(time.Duration(binary.LittleEndian.Uint16(in[2:])) * time.Millisecond)
			g.Pass()
			if len(g.Got) > 0 {
				ack = g.Got[len(g.Got)-1].Seq()
			}
			g.Got = nil
			in = in[6+len(opts):]
		}
	})
}
