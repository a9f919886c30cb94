package tcpx

import (
	"penne/internal/sys"
	"penne/internal/wire"
)

// stamp fills in the acknowledgment and the window of a segment that is about to
// be sent.
func (t *TCP) stamp(c *conn, s *outSegment) {
	s.ack = c.ackTo
	s.window, c.edge = offer(c.ackTo, c.rcvNxt, t.roomFor(c), c.edge, c.scale)
	c.rcvAck, c.ackNow, c.delayedAt = c.ackTo, false, 0
}

// sendControl sends a segment without payload, with acknowledgment and window.
func (t *TCP) sendControl(c *conn, flags uint8, seq uint32, opts []byte) {
	s := outSegment{seq: seq, flags: flags, opts: opts}
	if flags&wire.ACK != 0 {
		t.stamp(c, &s)
	}
	f := t.env.Out.Next()
	c.build(f, &s)
	t.env.Out.Commit(1)
}

// sendWindow is how much may be in flight.
func (t *TCP) sendWindow(c *conn) uint32 {
	w := c.wnd
	if c.cwnd != 0 {
		w = min(w, c.cwnd)
	}
	if !t.peeker.offsets(c) {
		w = min(w, maxPrefix)
	}
	return w
}

// pump sends the guest what its window and the socket allow.
func (t *TCP) pump(c *conn) {
	for range peekRounds {
		if c.finSent && c.nxt == c.finSeq {
			t.sendFIN(c) // again, after a timeout
			return
		}
		if !c.readable || c.finSent && wire.SeqLT(c.finSeq, c.nxt) {
			return
		}
		room := sendRoom(t.sendWindow(c), c.flight(), c.maxWnd, c.mss)
		if c.finSent {
			room = min(room, c.finSeq-c.nxt)
		}
		if room == 0 {
			t.awaitWindow(c)
			return
		}
		if !t.pumpOnce(c, room) {
			return
		}
	}
	t.queue(c) // go on in the next pass, after the other flows
}

// awaitWindow arms the timer for zero-window probes (RFC 9293 section 3.8.6.1).
func (t *TCP) awaitWindow(c *conn) {
	if c.flight() == 0 && c.rtxAt == 0 {
		c.rtxAt = t.env.Now + rto(c.tries)
	}
}

// pumpOnce peeks at up to room octets and sends them; false means that there are no
// more for now.
func (t *TCP) pumpOnce(c *conn, room uint32) bool {
	if t.env.Out.Room() == 0 {
		t.env.Out.Flush()
	}
	n, asked, errno := t.peekInto(c, room)
	switch {
	case errno == sys.EAGAIN:
		// Without SO_PEEK_OFF a peek ends at an urgent mark amid what is in
		// flight: it does not tell whether more follows.
		c.readable = c.urgent && c.flight() != 0
		return false
	case errno != 0:
		c.fail(errno)
		t.queue(c)
		return false
	case n == 0:
		t.hostEnds(c)
		return false
	}
	short := n < asked && !c.urgent
	// A short read with the remote's FIN behind it is the last.
	last := short && c.rdhup && !c.finSent
	t.sendPeeked(c, n, short, last)
	if short {
		c.readable = false
	}
	return !short
}

// sendPeeked builds the headers of the n octets that peekInto has put into frames,
// and commits those. push and fin set flags of the last one.
func (t *TCP) sendPeeked(c *conn, n int, push, fin bool) {
	s := outSegment{flags: wire.ACK}
	t.noteReply(c)
	t.stamp(c, &s)
	frames := 0
	for left := n; left > 0; frames++ {
		s.seq, s.payload = c.nxt, min(left, int(c.chunk))
		left -= s.payload
		if left == 0 && push {
			s.flags |= wire.PSH
		}
		if left == 0 && fin {
			s.flags |= wire.FIN
		}
		c.build(t.env.Out.Peek(frames), &s)
		c.nxt += uint32(s.payload)
	}
	t.env.Out.Commit(frames)
	if fin {
		t.noteFIN(c)
	}
	t.noteSent(c)
	if frames == peekFrames {
		t.env.Out.Flush() // while the payload is in the cache
	}
}

// noteSent updates max and the timers after nxt has advanced.
func (t *TCP) noteSent(c *conn) {
	if wire.SeqLT(c.max, c.nxt) {
		c.max = c.nxt
	}
	c.lastData = t.env.Now
	if c.rtxAt == 0 {
		c.rtxAt = t.env.Now + rto(c.tries)
	}
}

// noteFIN notes that our FIN was sent at nxt.
func (t *TCP) noteFIN(c *conn) {
	if !c.finSent {
		c.finFirst = !c.guestFIN
	}
	c.finSent, c.finSeq = true, c.nxt
	c.nxt++
	c.readable = false
}

// hostEnds is called when everything up to the end of the remote's stream has been
// peeked; it sends our FIN unless a reset ended it.
func (t *TCP) hostEnds(c *conn) {
	c.readable = false
	if !c.finSent && !c.aborted {
		t.sendFIN(c)
	}
}

// sendFIN sends our FIN at nxt, for the first time or again.
func (t *TCP) sendFIN(c *conn) {
	t.sendControl(c, wire.FIN|wire.ACK, c.nxt, nil)
	t.noteFIN(c)
	t.noteSent(c)
}
