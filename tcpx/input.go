package tcpx

import (
	"penne/internal/stats"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
)

// Input takes TCP frames of the guest that wire.Parse found whole, and owns them
// from then on. When it returns, in-sequence payload is in the sockets, as far as
// they had room. Answers wait for Flush, except those that must be one for each
// segment: duplicate acknowledgments and RSTs.
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

// input handles one frame. kept means that it is in a flow's queues or with
// another shard; else it is still the caller's.
func (t *TCP) input(f *ring.Frame) (kept bool) {
	key := flow.KeyOf(&f.H)
	slot := t.lastSlot
	var hash uint64
	if slot < 0 || key != t.lastKey {
		hash = t.table.Hash(&key)
		slot = t.table.Find(&key, hash)
	}
	if slot < 0 {
		return t.inClosed(f, &key, hash)
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

// inClosed handles a segment of no flow in this shard.
func (t *TCP) inClosed(f *ring.Frame, key *flow.Key, hash uint64) (kept bool) {
	if t.env.HandToOwner(f, hash) {
		return true
	}
	s := readSegment(f.Bytes(), &f.H)
	switch {
	case s.has(wire.RST):
	case f.Bytes()[0]&1 != 0 || !key.Remote.IsUnicastHost():
		// Multicast or broadcast: RFC 9293 section 3.9.2.3 wants silence.
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
	// The guest may have changed its Ethernet address; a segment in the
	// window is believed.
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

// outOfWindow answers a segment outside the window: retransmissions, keepalives
// and window probes need an acknowledgment, of which one a pass is enough.
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
		t.guestKeepalive(c)
	}
	c.ackNow = true
	t.queue(c)
}

// challenge sends a challenge ACK (RFC 5961 sections 3.2, 4.2 and 5.2), rate
// limited.
func (t *TCP) challenge(c *conn) {
	if t.challenges.allow(t.env.Now) {
		t.sendControl(c, wire.ACK, c.ackSeq(), nil)
	}
}

// guestReset handles a RST from the guest.
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

// takeAck handles the acknowledgment and the window of a segment; false means
// that the segment is not acceptable.
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

// takeWindow updates the guest's window unless s is older than the last update
// (RFC 9293 section 3.10.7.4).
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
			c.tries, c.rtxAt = 0, 0 // no more probing
		}
	}
	c.wnd, c.wl1, c.wl2 = wnd, s.seq, s.ack
	c.maxWnd = max(c.maxWnd, wnd)
}

// advance moves una to a new acknowledgment. The octets are discarded from the
// socket when the flow is settled.
func (t *TCP) advance(c *conn, s *segment) {
	n := s.ack - c.una
	c.una = s.ack
	c.consume += n
	if c.finAcked() {
		c.consume-- // the FIN is no octet of the socket
	}
	if wire.SeqLT(c.nxt, c.una) { // after goBack: the guest had more than it said
		c.nxt = c.una
		t.discard(c) // moves SO_PEEK_OFF too, which had fallen behind
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

// inTimeWait acknowledges a retransmitted FIN, and accepts a SYN for a new
// connection with the same addresses and ports (RFC 9293 section 3.10.7.4,
// RFC 6191).
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
