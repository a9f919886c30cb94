package tcpx

import (
	"penne/internal/sys"
	"penne/internal/wire"
)

// Timers, in nanoseconds, and their limits.
const (
	// firstRTO is RFC 6298 rules 2.1 and 2.4: the initial value, and the minimum.
	// The path to the guest is so short that every measurement would give that
	// minimum, so none is made. maxRTO is rule 2.5.
	firstRTO, maxRTO = 1e9, 60e9
	// maxSYNTries and maxDataTries are after how many timeouts in a row we give
	// up: 123 s for a SYN, close to Linux's tcp_syn_retries 6 and on purpose
	// below the 3 minutes of RFC 9293 section 3.8.3; 363 s for data, of which
	// it wants 100 s.
	maxSYNTries, maxDataTries = 6, 10
	// keepaliveAfter is the silence after which the guest is sent a keepalive
	// probe, and the interval of unanswered ones, of which deadProbes end the
	// flow. While they are answered the interval doubles up to maxKeepalive, so
	// that idle flows cost next to nothing.
	keepaliveAfter, maxKeepalive = 30e9, 480e9
	deadProbes                   = 8
	// idleLimit ends a flow on which no data passes: twice the minimum of RFC
	// 5382 section 5 (REQ-5).
	idleLimit = 2 * (2*3600 + 4*60) * 1e9
	// poolRecheck is how soon a flow whose window is closed for want of free
	// frames looks again.
	poolRecheck = 10e6
)

// rto is the retransmission timeout after so many in a row.
func rto(tries uint8) int64 {
	return min(int64(firstRTO)<<min(tries, 6), maxRTO)
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

// arm sets the flow's timer for its next deadline. It only ever moves the timer to
// an earlier time: one that fires too early finds nothing to do and is set again,
// which is cheaper than moving it with every packet.
func (t *TCP) arm(c *conn) {
	at := earliest(c.rtxAt, earliest(c.ackAt, c.idleAt))
	if at == 0 || c.armed != 0 && c.armed <= at {
		return
	}
	c.armed = at
	t.wheel.Set(c.slot, at)
}

// earliest is the earlier of two deadlines; 0 is none.
func earliest(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// timer handles the expiry of a flow's timer.
func (t *TCP) timer(c *conn) {
	now := t.env.Now
	c.armed = 0
	if c.ackAt != 0 && now >= c.ackAt {
		c.ackAt = 0
		t.queue(c)
	}
	if c.idleAt != 0 && now >= c.idleAt {
		t.idleExpired(c)
	}
	if c.rtxAt != 0 && now >= c.rtxAt {
		c.rtxAt = 0
		t.rtxExpired(c)
	}
	if c.state != unused {
		t.arm(c)
	}
}

// rtxExpired handles a retransmission timeout.
func (t *TCP) rtxExpired(c *conn) {
	c.tries++
	t.refreshMAC(c)
	switch {
	case c.state == timeWait:
		t.remove(c)
	case c.state == synSent || c.state == synRcvd:
		if c.tries > maxSYNTries {
			t.abort(c)
			return
		}
		t.env.Count.TCPRetransmits++
		t.sendSYN(c)
	case c.max == c.una || c.wnd == 0:
		t.probeWindow(c)
	case c.tries > maxDataTries:
		t.abort(c)
	default:
		t.goBack(c)
	}
}

// goBack retransmits from una on (go-back-N), with slow start: the socket still has
// the octets.
func (t *TCP) goBack(c *conn) {
	t.env.Count.TCPRetransmits++
	t.discard(c)
	c.nxt, c.cwnd, c.inRecovery, c.dupAcks = c.una, uint32(c.chunk), false, 0
	t.peeker.seek(c)
	c.readable = !c.finSent || c.una != c.finSeq
	c.rtxAt = t.env.Now + rto(c.tries)
	t.queue(c)
}

// probeWindow sends a zero-window probe, if there is something to send.
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

// probe sends a keepalive or window probe: an empty segment with an old sequence
// number, which the guest must answer with its acknowledgment and window. After
// too many unanswered ones it ends the flow and returns false.
func (t *TCP) probe(c *conn) bool {
	if c.probeOut {
		c.probes++
	}
	if c.probes >= deadProbes {
		t.abort(c)
		return false
	}
	t.refreshMAC(c)
	c.probeOut = true
	t.sendControl(c, wire.ACK, c.una-1, nil)
	return true
}

// refreshMAC takes the Ethernet address last seen of the guest, which may have
// changed, once the guest does not answer.
func (t *TCP) refreshMAC(c *conn) {
	if c.tries > 1 || c.probes > 1 {
		mac := t.env.Guest.MAC()
		copy(c.hdr[:], mac[:])
	}
}

// idleExpired handles the idle timer: keepalives, and the end of idle flows.
func (t *TCP) idleExpired(c *conn) {
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
	wasProbed := c.probeOut
	if !t.probe(c) {
		return
	}
	c.idleAt = now + keepaliveAfter
	if !wasProbed {
		c.idleAt = now + max(keepaliveAfter, min(now-c.lastData, maxKeepalive))
	}
}

// guestKeepalive handles a keepalive of the guest: it wants to keep the connection
// and to learn of a remote that is gone, so the host sends keepalives as well.
func (t *TCP) guestKeepalive(c *conn) {
	c.lastData = t.env.Now
	if !c.keepaliveOn {
		c.keepaliveOn = true
		sys.SetInt(int(c.fd), sys.SOL_SOCKET, sys.SO_KEEPALIVE, 1)
	}
}

// duplicateAck counts duplicate acknowledgments; the third starts fast
// retransmission (RFC 5681 section 3.2).
func (t *TCP) duplicateAck(c *conn, s *segment) {
	if c.inRecovery || c.nxt != c.max || c.wnd == 0 {
		return // with a closed window they answer our probes
	}
	if c.dupAcks++; c.dupAcks < 3 {
		return
	}
	c.inRecovery, c.recoverTo = true, c.max
	t.resend(c, s)
}

// partialAck retransmits the next gap until everything that was in flight at the
// loss is acknowledged (RFC 6582 section 3.2).
func (t *TCP) partialAck(c *conn, s *segment) {
	if wire.SeqLE(c.recoverTo, c.una) {
		c.inRecovery = false
		return
	}
	t.resend(c, s)
}

// resend retransmits one frame from una on, up to what the guest has by its SACK
// blocks.
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

// resendPeeked retransmits up to room octets at c.nxt.
func (t *TCP) resendPeeked(c *conn, room uint32) {
	if t.env.Out.Room() == 0 {
		t.env.Out.Flush()
	}
	t.peeker.seek(c)
	if n, _, errno := t.peekInto(c, room); errno == 0 && n > 0 {
		t.sendPeeked(c, n, true, false)
	}
}

// gapLen is how many octets from una on the guest lacks by its SACK blocks; without
// any, it may lack everything.
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
