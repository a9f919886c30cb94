package tcpx

import (
	"penne/internal/stats"
	"penne/internal/wire"
	"penne/ring"
)

// maxOutOfOrder is the most frames in a flow's out-of-order queue.
const maxOutOfOrder = 32

// maxBlocks is the most blocks a SACK option holds (RFC 2018 section 3).
const maxBlocks = 4

// takeData handles the payload and the FIN of a segment in the window. kept means
// that the frame is in one of c's queues; so in what follows.
func (t *TCP) takeData(c *conn, f *ring.Frame, s *segment) (kept bool) {
	if wire.SeqLT(c.rcvNxt, s.seq) {
		return t.takeOutOfOrder(c, f, s)
	}
	kept = t.takeInOrder(c, f, s)
	t.takeQueued(c)
	return kept
}

// takeInOrder takes a segment that starts at or before rcvNxt.
func (t *TCP) takeInOrder(c *conn, f *ring.Frame, s *segment) (kept bool) {
	t.queue(c)
	if c.guestFIN {
		c.ackNow = true // nothing comes after a FIN
		return false
	}
	skip, drop := trim(s.seq, s.len, c.rcvNxt, c.edge)
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
		c.ackNow = true // a retransmission or a probe: our acknowledgment got lost
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

// takeOutOfOrder queues a segment beyond rcvNxt, if free frames are plenty, and
// sends a duplicate acknowledgment at once (RFC 9293 section 3.10.7.4, RFC 5681
// section 4.2), with SACK blocks if the guest permits them.
func (t *TCP) takeOutOfOrder(c *conn, f *ring.Frame, s *segment) (kept bool) {
	if !c.guestFIN && c.outOfOrderLen < maxOutOfOrder && t.env.Pool.Free() > t.env.Pool.Size()/2 {
		kept = c.queueOutOfOrder(f, s)
	}
	var opts []byte
	if c.sackOK && c.outOfOrder != nil {
		opts = sackOption(t.opts[:], c.sackBlocks(t.blocks[:0], s.seq))
	}
	t.sendControl(c, wire.ACK, c.ackSeq(), opts)
	return kept
}

// frameSeq is the sequence number of a frame in the out-of-order queue.
func frameSeq(f *ring.Frame) uint32 { return wire.TCP(f.Bytes()[f.H.L4:]).Seq() }

// frameEnd is the sequence number after the frame's payload and FIN.
func frameEnd(f *ring.Frame) uint32 {
	s := readSegment(f.Bytes(), &f.H)
	return s.seq + s.span()
}

// queueOutOfOrder inserts f by sequence number, unless a queued frame covers it.
func (c *conn) queueOutOfOrder(f *ring.Frame, s *segment) bool {
	end := s.seq + s.span()
	at := &c.outOfOrder
	for *at != nil && wire.SeqLE(frameSeq(*at), s.seq) {
		if wire.SeqLE(end, frameEnd(*at)) {
			return false
		}
		at = &(*at).Next
	}
	f.Next, *at = *at, f
	c.outOfOrderLen++
	return true
}

// takeQueued takes the frames of the out-of-order queue that are in order now.
func (t *TCP) takeQueued(c *conn) {
	for c.outOfOrder != nil && wire.SeqLE(frameSeq(c.outOfOrder), c.rcvNxt) {
		f := c.outOfOrder
		c.outOfOrder, f.Next = f.Next, nil
		c.outOfOrderLen--
		s := readSegment(f.Bytes(), &f.H)
		past := wire.SeqLE(s.seq+s.span(), c.rcvNxt)
		if past || !t.takeInOrder(c, f, &s) {
			t.env.Pool.Put(f)
		}
	}
}

// sackBlocks appends the ranges of the out-of-order queue to out, up to its
// capacity: first the one with the segment at latest, then the others from the
// left (RFC 2018 section 4).
func (c *conn) sackBlocks(out [][2]uint32, latest uint32) [][2]uint32 {
	first := 0
	for f := c.outOfOrder; f != nil; {
		b := [2]uint32{frameSeq(f), frameEnd(f)}
		for f = f.Next; f != nil && wire.SeqLE(frameSeq(f), b[1]); f = f.Next {
			if e := frameEnd(f); wire.SeqLT(b[1], e) {
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
