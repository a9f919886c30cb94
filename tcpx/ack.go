package tcpx

import (
	"penne/internal/sys"
	"penne/internal/wire"
)

// Times of the acknowledgment policy, in nanoseconds.
const (
	// defaultShortPath is the round-trip time below which what the socket took
	// is acknowledged: the socket's own queue is then as good as the remote.
	defaultShortPath = 1e6
	// holdSlack is how long, beyond the path's round trip, an octet may stay
	// unacknowledged. Linux guests repeat themselves after 200 ms at least.
	holdSlack = 100e6
	// leastRecheck and mostRecheck bound how often the socket is asked how
	// far the remote is.
	leastRecheck, mostRecheck = 250e3, 50e6
	// leastRTTAge and mostRTTAge bound how old a measured round-trip time may
	// grow under traffic. On what seems a long path it is measured again soon:
	// the first measure includes the time to find the neighbour.
	leastRTTAge, mostRTTAge = 20e6, 1e9
)

// roomFor is how many octets beyond what is taken the guest may send: the
// flow's allowance, less as the tail fills and as the pool drains.
func (t *TCP) roomFor(c *conn) uint32 {
	room := min(c.allowance, poolShare(t.env.Pool.Free(), t.reserve))
	if room <= c.tailLen {
		return 0
	}
	return room - c.tailLen
}

// measure asks the kernel how long the path of c's socket is.
func (t *TCP) measure(c *conn) {
	c.rttAt = t.env.Now + mostRTTAge
	smoothed, least, errno := sys.TCPRTT(int(c.fd))
	if errno != 0 {
		return
	}
	c.rtt = int64(smoothed) * 1000
	if c.lowRTT = int64(least)*1000 < t.shortPath; !c.lowRTT {
		c.rttAt = t.env.Now + max(leastRTTAge, min(4*c.rtt, mostRTTAge))
	}
}

// reviewAck moves ackTo as far as the policy allows: what the socket took on a
// short path, else what the remote has acknowledged; and in any case what has
// been held back for long enough.
func (t *TCP) reviewAck(c *conn) {
	c.ackAt = 0
	if c.ackTo == c.rcvNxt {
		c.held.n = 0
		return
	}
	if t.env.Now >= c.rttAt {
		t.measure(c)
	}
	good := c.inSocket()
	if !c.lowRTT {
		if n, errno := sys.OutQueue(int(c.fd)); errno == 0 {
			good -= uint32(n)
		}
	}
	if wire.SeqLT(c.ackTo, good) {
		c.ackTo = good
	}
	t.limitHold(c)
}

// limitHold acknowledges what has been held back for too long, and sets the
// time of the next review.
func (t *TCP) limitHold(c *conn) {
	force, again := c.held.due(t.env.Now, c.rtt+holdSlack, c.ackTo, c.rcvNxt)
	c.ackTo = force
	c.ackAt = again
	if again != 0 && !c.lowRTT {
		c.ackAt = min(again, t.env.Now+max(leastRecheck, min(c.rtt/4, mostRecheck)))
	}
}

// Acknowledgments that wait for an answer, as in Linux's pingpong mode. A request is worth no segment of its
// own if the answer comes at once and carries the acknowledgment; RFC 9293
// section 3.8.6.3 allows half a second of waiting, Linux takes 40 ms. A server
// among hundreds of connections answers each one in milliseconds.
const (
	// answerTime is how soon an answer must follow to be waited for.
	answerTime = 20e6
	// pingpongOn is how many quick answers in a row it takes to wait for the
	// next; a wait in vain costs pingpongPenalty of them.
	pingpongOn, pingpongPenalty = 4, 32
)

// noteReply is called when octets go to the guest: were they a quick answer?
func (t *TCP) noteReply(c *conn) {
	if t.env.Now-c.lastTaken < answerTime && c.pingpong < pingpongOn {
		c.pingpong++
	}
}

// delayAck tells whether the acknowledgment of a small request should wait for
// the answer.
func (t *TCP) delayAck(c *conn) bool {
	now := t.env.Now
	if c.pingpong < pingpongOn || c.guestFIN || c.rcvNxt-c.rcvAck >= uint32(c.mss) || t.windowMoved(c) {
		return false
	}
	if c.delayedAt == 0 {
		c.delayedAt = now
	}
	if now-c.delayedAt >= answerTime {
		c.pingpong = -pingpongPenalty
		return false
	}
	c.ackAt = earliest(c.ackAt, c.delayedAt+answerTime)
	return true
}

// acknowledge sends one acknowledgment if the guest should hear something.
func (t *TCP) acknowledge(c *conn) {
	switch {
	case c.ackNow, c.ackTo != c.rcvAck && !t.delayAck(c), c.ackTo == c.rcvAck && t.windowMoved(c):
		t.sendControl(c, wire.ACK, c.max, nil)
	}
	if c.tail == nil && !c.guestFIN && c.edge-c.rcvNxt < uint32(c.mss) {
		// The pool's shortage closed the window: no event will tell its end.
		c.ackAt = earliest(c.ackAt, t.env.Now+poolRecheck)
	}
}

// windowMoved tells whether the window alone is worth a segment.
func (t *TCP) windowMoved(c *conn) bool {
	if c.guestFIN {
		return false
	}
	_, fresh := offer(c.ackTo, c.rcvNxt, t.roomFor(c), c.edge, c.scale)
	return worthUpdate(c.rcvNxt, c.edge, fresh, c.allowance, c.mss)
}
