package tcpx

import (
	"penne/internal/sys"
	"penne/internal/wire"
)

// Timers, in nanoseconds, and their limits.
const (
	// firstRTO is RFC 6298 rules 2.1 and 2.4: a second before anything is
	// measured, and never less. The path to the guest is so short that every
	// measurement would end at that floor, so none is made. mostRTO is rule
	// 2.5.
	firstRTO, mostRTO = 1e9, 60e9
	// synTries and dataTries are after how many expiries in a row we give
	// up: 123 s for a SYN, close to Linux's tcp_syn_retries 6 and on purpose
	// below the 3 minutes of RFC 9293 section 3.8.3; 363 s for data, of which
	// it wants 100 s.
	synTries, dataTries = 6, 10
	// keepaliveAfter is the silence after which a guest is asked for a sign
	// of life, and the distance of questions that it does not answer.
	// deadProbes unanswered ones end the flow. With answers the distance
	// doubles up to keepaliveMost, so that idle flows cost next to nothing.
	keepaliveAfter, keepaliveMost = 30e9, 480e9
	deadProbes                    = 8
	// idleLimit ends a flow on which no data moved: twice the least that
	// RFC 5382 section 5 (REQ-5) lets a translator wait.
	idleLimit = 2 * (2*3600 + 4*60) * 1e9
	// poolRecheck is how soon a flow whose window the pool's shortage closed
	// looks again.
	poolRecheck = 10e6
)

// rto is the retransmission timeout after tries expiries in a row.
func rto(tries uint8) int64 {
	return min(int64(firstRTO)<<min(tries, 6), mostRTO)
}

// Expire runs the timers that are due.
func (t *TCP) Expire() {
	for n := len(t.due); n == len(t.due); {
		n = t.wheel.Expire(t.env.Now, t.due[:])
		for _, slot := range t.due[:n] {
			t.timer(&t.conns[slot])
		}
	}
}

// arm sees to it that the wheel wakes the flow for its next deadline. It moves
// the wheel's timer only to earlier times: one that has become too early finds
// nothing to do and is set again, which is cheaper than moving it with every
// packet.
func (t *TCP) arm(c *conn) {
	at := earliest(c.rtxAt, earliest(c.ackAt, c.idleAt))
	if at == 0 || c.armed != 0 && c.armed <= at {
		return
	}
	c.armed = at
	t.wheel.Set(c.slot, at)
}

// earliest is the earlier of two deadlines, where 0 is none.
func earliest(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// timer does what is due for one flow.
func (t *TCP) timer(c *conn) {
	now := t.env.Now
	c.armed = 0
	if c.ackAt != 0 && now >= c.ackAt {
		c.ackAt = 0
		t.queue(c)
	}
	if c.idleAt != 0 && now >= c.idleAt {
		t.idle(c)
	}
	if c.rtxAt != 0 && now >= c.rtxAt {
		c.rtxAt = 0
		t.expired(c)
	}
	if c.state != unused {
		t.arm(c)
	}
}

// expired is the end of the retransmission timer.
func (t *TCP) expired(c *conn) {
	c.tries++
	t.readdress(c)
	switch {
	case c.state == timeWait:
		t.remove(c)
	case c.state == synSent || c.state == synRcvd:
		if c.tries > synTries {
			t.abort(c)
			return
		}
		t.env.Count.TCPRetransmits++
		t.sendSYN(c)
	case c.max == c.una || c.wnd == 0:
		t.probeWindow(c)
	case c.tries > dataTries:
		t.abort(c)
	default:
		t.goBack(c)
	}
}

// goBack starts again from what the guest has acknowledged, slowly: the socket
// still has the octets.
func (t *TCP) goBack(c *conn) {
	t.env.Count.TCPRetransmits++
	t.discard(c)
	c.nxt, c.cwnd, c.inRecovery, c.dupAcks = c.una, uint32(c.chunk), false, 0
	t.peeker.seek(c)
	c.readable = !c.finSent || c.una != c.finSeq
	c.rtxAt = t.env.Now + rto(c.tries)
	t.queue(c)
}

// probeWindow asks a guest whose window is closed for its state.
func (t *TCP) probeWindow(c *conn) {
	if c.max == c.una && !c.readable {
		c.tries = 0
		return
	}
	if !t.probe(c) {
		return
	}
	c.rtxAt = t.env.Now + rto(c.tries)
}

// probe sends a segment that the guest must answer with its acknowledgment and
// window: an old sequence number and no data. It ends the flow and returns
// false when too many in a row got no answer.
func (t *TCP) probe(c *conn) bool {
	if c.probeOut {
		c.probes++
	}
	if c.probes >= deadProbes {
		t.abort(c)
		return false
	}
	t.readdress(c)
	c.probeOut = true
	t.sendControl(c, wire.ACK, c.una-1, nil)
	return true
}

// readdress is for a guest that does not answer: it may have changed its
// Ethernet address, and what it sent elsewhere tells the new one.
func (t *TCP) readdress(c *conn) {
	if c.tries > 1 || c.probes > 1 {
		mac := t.env.Guest.MAC()
		copy(c.hdr[:], mac[:])
	}
}

// idle looks after a flow on which little happens.
func (t *TCP) idle(c *conn) {
	now := t.env.Now
	if c.state == draining {
		c.idleAt = now + keepaliveAfter
		t.queue(c)
		return
	}
	if now-c.lastData >= idleLimit {
		t.abort(c)
		return
	}
	if quiet := now - c.lastHeard; quiet < keepaliveAfter {
		c.idleAt = c.lastHeard + keepaliveAfter
		return
	}
	wasAsked := c.probeOut
	if !t.probe(c) {
		return
	}
	c.idleAt = now + keepaliveAfter
	if !wasAsked {
		c.idleAt = now + max(keepaliveAfter, min(now-c.lastData, keepaliveMost))
	}
}

// guestProbes notes that the guest asks for a sign of life: it means to keep
// the connection, and wants to know of a remote that is gone.
func (t *TCP) guestProbes(c *conn) {
	c.lastData = t.env.Now
	if !c.keepaliveOn {
		c.keepaliveOn = true
		sys.SetInt(int(c.fd), sys.SOL_SOCKET, sys.SO_KEEPALIVE, 1)
	}
}

// duplicateAck counts acknowledgments that say nothing new while octets are in
// flight: the third means that some were lost (RFC 5681 section 3.2).
func (t *TCP) duplicateAck(c *conn, s *segment) {
	if c.inRecovery || c.nxt != c.max || c.wnd == 0 {
		return // with a closed window they answer our questions
	}
	if c.dupAcks++; c.dupAcks < 3 {
		return
	}
	c.inRecovery, c.recoverTo = true, c.max
	t.resend(c, s)
}

// partialAck goes on with the next gap until everything that was in flight at
// the loss is acknowledged (RFC 6582 section 3.2).
func (t *TCP) partialAck(c *conn, s *segment) {
	if wire.SeqLE(c.recoverTo, c.una) {
		c.inRecovery = false
		return
	}
	t.resend(c, s)
}

// resend sends the first octets again that the guest misses, as far as it does
// not say that it has them.
func (t *TCP) resend(c *conn, s *segment) {
	nxt := c.nxt
	room := c.max - c.una
	if c.finSent {
		room = min(room, c.finSeq-c.una)
	}
	room = min(room, uint32(c.chunk), gapLen(s, c.una))
	t.env.Count.TCPRetransmits++
	t.discard(c)
	c.nxt = c.una
	if room == 0 {
		t.sendControl(c, wire.FIN|wire.ACK, c.finSeq, nil)
	} else {
		t.resendPeeked(c, room)
	}
	c.nxt = nxt
	t.peeker.seek(c)
	c.rtxAt = t.env.Now + rto(c.tries)
}

func (t *TCP) resendPeeked(c *conn, room uint32) {
	if t.env.Out.Room() == 0 {
		t.env.Out.Flush()
	}
	t.peeker.seek(c)
	if n, _, errno := t.peekInto(c, room); errno == 0 && n > 0 {
		t.sendPeeked(c, n, true, false)
	}
}

// gapLen is how many octets from una on the guest misses by its SACK blocks; a
// guest without them may miss everything.
func gapLen(s *segment, una uint32) uint32 {
	gap := ^uint32(0) >> 1
	if len(s.hdr) == wire.TCPLen {
		return gap
	}
	var o wire.TCPOptions
	s.hdr.Options(&o)
	for _, b := range o.SACK[:o.SACKLen] {
		if d := b[0] - una; int32(d) > 0 {
			gap = min(gap, d)
		}
	}
	return gap
}
