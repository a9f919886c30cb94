package tcpx

import (
	"penne/internal/stats"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
)

// Input takes frames from the guest: classified, TCP, whole. Every frame
// becomes the translator's: it ends in a flow's tail or strays, with another
// shard, or in the pool. In-sequence payload is in the sockets, as far as they
// took it, when Input returns; answers wait for Flush, but for those that must
// be one for each frame.
func (t *TCP) Input(frames []*ring.Frame) {
	for _, f := range frames {
		if !t.input(f) {
			t.env.Pool.Put(f)
		}
	}
	for slot := t.work; slot != 0; slot = t.conns[slot-1].next {
		if c := &t.conns[slot-1]; c.state == open {
			t.sendTail(c)
		}
	}
}

// input takes one frame and tells whether it keeps or has passed on the frame.
func (t *TCP) input(f *ring.Frame) (kept bool) {
	key := flow.KeyOf(&f.H)
	slot := t.lastSlot
	var hash uint64
	if slot < 0 || key != t.lastKey {
		hash = t.table.Hash(&key)
		slot = t.table.Find(&key, hash)
	}
	if slot < 0 {
		return t.stranger(f, &key, hash)
	}
	t.lastKey, t.lastSlot = key, slot
	c := &t.conns[slot]
	s := readSegment(f.Bytes(), &f.H)
	c.lastHeard, c.probes, c.probeOut = t.env.Now, 0, false
	switch c.state {
	case open:
		return t.inOpen(c, f, &s)
	case synRcvd:
		return t.inSynRcvd(c, f, &s)
	case connecting:
		return t.inConnecting(c, f, &s)
	case synSent:
		return t.inSynSent(c, f, &s)
	case timeWait:
		return t.inTimeWait(c, f, &s)
	}
	return false
}

// stranger takes a frame that belongs to no flow here.
func (t *TCP) stranger(f *ring.Frame, key *flow.Key, hash uint64) (kept bool) {
	if t.env.Elsewhere(f, hash) {
		return true
	}
	s := readSegment(f.Bytes(), &f.H)
	switch {
	case s.has(wire.RST):
	case f.Bytes()[0]&1 != 0 || !key.Remote.IsUnicastHost():
		// To a group, or to nobody: RFC 9293 section 3.9.2.3 wants silence.
		t.env.Count.Drop(stats.BadDest)
	case s.flags&(wire.SYN|wire.ACK|wire.FIN) == wire.SYN:
		return t.guestSYN(f, &s, key, hash)
	default:
		t.env.Count.Drop(stats.NoFlow)
		t.refuse(f, &s)
	}
	return false
}

// inOpen follows RFC 9293 section 3.10.7.4 with the checks of RFC 5961.
func (t *TCP) inOpen(c *conn, f *ring.Frame, s *segment) (kept bool) {
	if !inWindow(s.seq, s.span(), c.rcvNxt, c.edge) {
		t.outOfWindow(c, s)
		return false
	}
	// Who sends what fits is who we talk to: a guest may change its address.
	if from := wire.MAC(f.Bytes()[6:12]); from != wire.MAC(c.hdr[:6]) {
		copy(c.hdr[:], from[:])
	}
	if s.has(wire.RST) {
		t.guestReset(c, s)
		return false
	}
	if s.has(wire.SYN) {
		t.challenge(c)
		return false
	}
	if !s.has(wire.ACK) || !t.takeAck(c, s) {
		return false
	}
	if s.len > 0 || s.has(wire.FIN) {
		return t.takeData(c, f, s)
	}
	return false
}

// outOfWindow answers what lies outside the window: a guest that repeats itself
// or asks for a sign of life must get an acknowledgment; one a pass will do.
func (t *TCP) outOfWindow(c *conn, s *segment) {
	if s.has(wire.RST) {
		t.guestReset(c, s)
		return
	}
	if s.has(wire.SYN) {
		t.challenge(c)
		return
	}
	if s.len > 0 && wire.SeqLE(c.edge, s.seq) {
		t.env.Count.Drop(stats.OutOfWindow)
	}
	if s.len <= 1 && s.seq == c.rcvNxt-1 {
		t.guestProbes(c)
	}
	c.ackNow = true
	t.queue(c)
}

// challenge sends an acknowledgment that makes an honest guest tell what it
// means (RFC 5961 sections 3.2, 4.2 and 5.2), at once, within limits.
func (t *TCP) challenge(c *conn) {
	if t.challenges.allow(t.env.Now) {
		t.sendControl(c, wire.ACK, c.max, nil)
	}
}

// guestReset takes a RST from the guest.
func (t *TCP) guestReset(c *conn, s *segment) {
	switch judgeReset(s.seq, c.rcvAck, c.rcvNxt, c.edge) {
	case resetAccept:
		t.sendTail(c) // what came before it
		t.guestGone(c)
	case resetChallenge:
		t.challenge(c)
	default:
		t.env.Count.Drop(stats.OutOfWindow)
	}
}

// takeAck takes the acknowledgment and the window of a segment; false means
// that the rest of it must not be looked at.
func (t *TCP) takeAck(c *conn, s *segment) bool {
	switch judgeAck(s.ack, c.una, c.max, c.maxWnd) {
	case ackFuture, ackStale:
		t.challenge(c)
		return false
	case ackOld:
		return true
	case ackNew:
		t.advance(c, s)
		t.takeWindow(c, s)
	case ackSame:
		old := c.wnd
		t.takeWindow(c, s)
		// With SACK the guest's window may move between duplicates (RFC 6675
		// section 2).
		if s.len == 0 && !s.has(wire.FIN) && (c.wnd == old || len(s.hdr) > wire.TCPLen) && c.max != c.una {
			t.duplicateAck(c, s)
		}
	}
	return true
}

// takeWindow keeps the guest's window if s is the latest word on it.
func (t *TCP) takeWindow(c *conn, s *segment) {
	if !wire.SeqLT(c.wl1, s.seq) && !(c.wl1 == s.seq && wire.SeqLE(c.wl2, s.ack)) {
		return
	}
	wnd := uint32(s.wnd)
	if c.scaled {
		wnd <<= c.guestScale
	}
	if wnd > c.wnd {
		t.queue(c) // there may be more to send now
		if c.max == c.una {
			c.tries, c.rtxAt = 0, 0 // no more need to ask for it
		}
	}
	c.wnd, c.wl1, c.wl2 = wnd, s.seq, s.ack
	c.maxWnd = max(c.maxWnd, wnd)
}

// advance moves una to a valid new acknowledgment. The octets leave the socket
// when the flow is settled.
func (t *TCP) advance(c *conn, s *segment) {
	n := s.ack - c.una
	c.una = s.ack
	c.consume += n
	if c.finAcked() {
		c.consume-- // the FIN took no octet
	}
	if wire.SeqLT(c.nxt, c.una) { // sent again from una, but the guest had it
		c.nxt = c.una
		t.discard(c) // takes the kernel's offset with it, which fell behind
	}
	if c.cwnd != 0 {
		if c.cwnd += n; c.cwnd >= c.maxWnd {
			c.cwnd = 0
		}
	}
	c.lastData, c.dupAcks, c.tries = t.env.Now, 0, 0
	c.rtxAt = 0
	if c.max != c.una {
		c.rtxAt = t.env.Now + rto(0)
	}
	t.queue(c)
	if c.inRecovery {
		t.partialAck(c, s)
	}
}

// inTimeWait answers a guest that repeats its FIN, and makes way for a new
// connection between the same ends (RFC 9293 section 3.10.7.4, RFC 6191).
func (t *TCP) inTimeWait(c *conn, f *ring.Frame, s *segment) (kept bool) {
	switch {
	case s.has(wire.RST):
		if judgeReset(s.seq, c.rcvAck, c.rcvNxt, c.edge) == resetAccept {
			t.remove(c)
		}
	case s.has(wire.SYN) && wire.SeqLT(c.rcvNxt, s.seq):
		t.remove(c)
		return t.input(f)
	default:
		t.sendControl(c, wire.ACK, c.max, nil)
	}
	return false
}
