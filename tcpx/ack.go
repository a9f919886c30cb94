package tcpx

import (
	"penne/internal/sys"
	"penne/internal/wire"
)

// Times of the acknowledgment policy, in nanoseconds.
const (
	// defaultShortPath is Config.ShortPath's default. With a remote that near,
	// octets in the socket are as good as delivered.
	defaultShortPath = 1e6
	// holdSlack is how long, beyond the path's round trip, an octet may stay
	// unacknowledged: half of Linux's least retransmission timeout, 200 ms.
	holdSlack = 100e6
	// minRecheck and maxRecheck bound the interval at which the socket is asked
	// how much the remote has acknowledged.
	minRecheck, maxRecheck = 250e3, 50e6
	// minRTTAge and maxRTTAge bound the age of a measured round-trip time under
	// traffic. On what seems a long path it is soon measured again, since the
	// first measurement includes neighbour discovery.
	minRTTAge, maxRTTAge = 20e6, 1e9
)

// roomFor is how many octets beyond rcvNxt the guest may send: the flow's
// allowance, within its share of the pool, less the tail.
func (t *TCP) roomFor(c *conn) uint32 {
	room := min(c.allowance, poolShare(t.env.Pool.Free(), t.reserve))
	if room <= c.tailLen {
		return 0
	}
	return room - c.tailLen
}

// measureRTT reads the round-trip time of c's socket from the kernel.
func (t *TCP) measureRTT(c *conn) {
	c.rttAt = t.env.Now + maxRTTAge
	srtt, minRTT, errno := sys.TCPRTT(int(c.fd))
	if errno != 0 {
		return
	}
	c.rtt = int64(srtt) * 1000
	if c.lowRTT = int64(minRTT)*1000 < t.shortPath; !c.lowRTT {
		c.rttAt = t.env.Now + max(minRTTAge, min(4*c.rtt, maxRTTAge))
	}
}

// reviewAck advances ackTo: on a short path to what is in the socket, else to what
// the remote has acknowledged; and in any case to what was held for long enough.
func (t *TCP) reviewAck(c *conn) {
	c.ackAt = 0
	if c.ackTo == c.rcvNxt {
		c.held.n = 0
		return
	}
	if t.env.Now >= c.rttAt {
		t.measureRTT(c)
	}
	acked := c.inSocket()
	if !c.lowRTT {
		if n, errno := sys.OutQueue(int(c.fd)); errno == 0 {
			acked -= uint32(n)
		}
	}
	if wire.SeqLT(c.ackTo, acked) {
		c.ackTo = acked
	}
	t.limitHold(c)
}

// limitHold advances ackTo to what has been held for too long, and sets the time
// of the next review.
func (t *TCP) limitHold(c *conn) {
	force, again := c.held.due(t.env.Now, c.rtt+holdSlack, c.ackTo, c.rcvNxt)
	c.ackTo = force
	c.ackAt = again
	if again != 0 && !c.lowRTT {
		c.ackAt = min(again, t.env.Now+max(minRecheck, min(c.rtt/4, maxRecheck)))
	}
}

// Delayed acknowledgments, as in Linux's pingpong mode: a request needs no
// acknowledgment of its own if the answer follows at once and carries it. RFC
// 9293 section 3.8.6.3 allows a delay of half a second, Linux takes 40 ms. A
// server with hundreds of connections answers each within milliseconds.
const (
	// answerTime is the longest delay, and how soon an answer is a quick one.
	answerTime = 20e6
	// pingpongOn is how many quick answers turn the mode on; a delay in vain
	// turns it off for pingpongPenalty more.
	pingpongOn, pingpongPenalty = 4, 32
)

// noteReply counts a quick answer. It is called when octets go to the guest.
func (t *TCP) noteReply(c *conn) {
	if t.env.Now-c.lastTaken < answerTime && c.pingpong < pingpongOn {
		c.pingpong++
	}
}

// delayAck tells whether to delay the acknowledgment of a small request, and sets
// the timer for it.
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

// acknowledge sends an acknowledgment if there is news for the guest.
func (t *TCP) acknowledge(c *conn) {
	switch {
	case c.ackNow, c.ackTo != c.rcvAck && !t.delayAck(c), c.ackTo == c.rcvAck && t.windowMoved(c):
		t.sendControl(c, wire.ACK, c.ackSeq(), nil)
	}
	if c.tail == nil && !c.guestFIN && c.edge-c.rcvNxt < uint32(c.mss) {
		// Closed for want of free frames: no event tells when there are some.
		c.ackAt = earliest(c.ackAt, t.env.Now+poolRecheck)
	}
}

// windowMoved tells whether the window calls for an update of its own.
func (t *TCP) windowMoved(c *conn) bool {
	if c.guestFIN {
		return false
	}
	_, fresh := offer(c.ackTo, c.rcvNxt, t.roomFor(c), c.edge, c.scale)
	return worthUpdate(c.rcvNxt, c.edge, fresh, c.allowance, c.mss)
}
