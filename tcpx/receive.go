package tcpx

import (
	"penne/internal/stats"
	"penne/internal/wire"
	"penne/ring"
)

// maxStrays bounds the frames that wait for a gap to close, for each flow.
const maxStrays = 32

// maxBlocks is the most SACK blocks an option holds (RFC 2018 section 3).
const maxBlocks = 4

// takeData takes the payload and the FIN of a segment within the window, and
// tells whether the frame was kept.
func (t *TCP) takeData(c *conn, f *ring.Frame, s *segment) (kept bool) {
	if wire.SeqLT(c.rcvNxt, s.seq) {
		return t.takeStray(c, f, s)
	}
	kept = t.takeNext(c, f, s)
	t.drainStrays(c)
	return kept
}

// takeNext takes a segment that starts at or before rcvNxt.
func (t *TCP) takeNext(c *conn, f *ring.Frame, s *segment) (kept bool) {
	t.queue(c)
	if c.guestFIN {
		c.ackNow = true // nothing comes after a FIN
		return false
	}
	skip, drop := cut(s.seq, s.len, c.rcvNxt, c.edge)
	if n := s.len - skip - drop; n > 0 {
		if !t.keep(c, f, skip, n) {
			t.env.Count.Drop(stats.NoFrame)
			c.ackNow = true
			return false
		}
		kept = c.tailEnd == f
		c.rcvNxt += n
		c.lastData, c.lastTaken = t.env.Now, t.env.Now
		c.allowance = min(t.maxTail, c.allowance+2*n)
	}
	if skip > 0 || drop > 0 {
		c.ackNow = true // a repetition or a probe: our word got lost
	}
	if s.has(wire.FIN) && drop == 0 {
		c.guestFIN = true
		c.rcvNxt++
		if wire.SeqLT(c.edge, c.rcvNxt) {
			c.edge = c.rcvNxt
		}
	}
	return kept
}

// takeStray keeps a segment that came before its turn, if memory is plenty, and
// says at once what is missing (RFC 9293 section 3.10.7.4, RFC 5681 section
// 4.2), with SACK blocks if the guest knows them.
func (t *TCP) takeStray(c *conn, f *ring.Frame, s *segment) (kept bool) {
	if !c.guestFIN && c.strayLen < maxStrays && t.env.Pool.Free() > t.env.Pool.Size()/2 {
		kept = c.addStray(f, s)
	}
	var opts []byte
	if c.sackOK && c.strays != nil {
		opts = sackOption(t.opts[:], c.sackBlocks(t.blocks[:0], s.seq))
	}
	t.sendControl(c, wire.ACK, c.max, opts)
	return kept
}

// straySeq reads the sequence number of a frame that was not cut.
func straySeq(f *ring.Frame) uint32 { return wire.TCP(f.Bytes()[f.H.L4:]).Seq() }

// strayEnd is the sequence number behind the frame's payload and FIN.
func strayEnd(f *ring.Frame) uint32 {
	s := readSegment(f.Bytes(), &f.H)
	return s.seq + s.span()
}

// addStray puts f in its place by sequence number, unless another frame covers
// it.
func (c *conn) addStray(f *ring.Frame, s *segment) bool {
	end := s.seq + s.span()
	at := &c.strays
	for *at != nil && wire.SeqLE(straySeq(*at), s.seq) {
		if wire.SeqLE(end, strayEnd(*at)) {
			return false
		}
		at = &(*at).Next
	}
	f.Next, *at = *at, f
	c.strayLen++
	return true
}

// drainStrays takes the frames whose turn has come.
func (t *TCP) drainStrays(c *conn) {
	for c.strays != nil && wire.SeqLE(straySeq(c.strays), c.rcvNxt) {
		f := c.strays
		c.strays, f.Next = f.Next, nil
		c.strayLen--
		s := readSegment(f.Bytes(), &f.H)
		past := wire.SeqLE(s.seq+s.span(), c.rcvNxt)
		if past || !t.takeNext(c, f, &s) {
			t.env.Pool.Put(f)
		}
	}
}

// sackBlocks appends what the strays hold to out, up to its capacity: first the
// block with the segment at latest, then the others from the left (RFC 2018
// section 4).
func (c *conn) sackBlocks(out [][2]uint32, latest uint32) [][2]uint32 {
	first := 0
	for f := c.strays; f != nil; {
		b := [2]uint32{straySeq(f), strayEnd(f)}
		for f = f.Next; f != nil && wire.SeqLE(straySeq(f), b[1]); f = f.Next {
			if e := strayEnd(f); wire.SeqLT(b[1], e) {
				b[1] = e
			}
		}
		if hit := wire.SeqLE(b[0], latest) && wire.SeqLT(latest, b[1]); len(out) < cap(out) {
			if hit {
				first = len(out)
			}
			out = append(out, b)
		} else if hit {
			first = len(out) - 1
			out[first] = b
		}
	}
	if len(out) > 0 {
		out[0], out[first] = out[first], out[0]
	}
	return out
}
