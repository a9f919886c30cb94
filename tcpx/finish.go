package tcpx

import (
	"math"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
)

// drainLimit is how long the socket of a guest that is gone may refuse what is
// left of its stream: about as long as Linux keeps a socket that nobody holds.
const drainLimit = 5 * 60e9

// timeWaitTime is how long a flow that we ended first is remembered, to answer
// a guest that repeats its FIN. The tap hardly loses frames and reorders none
// for longer than a pass, so waiting for twice the MSL of two minutes (RFC
// 9293 section 3.4.2) would serve nothing here.
const timeWaitTime = 1e9

// finished ends the flow when both FINs are acknowledged; the kernel delivers
// what is left in the socket.
func (t *TCP) finished(c *conn) bool {
	if !c.guestFIN || !c.shut || !c.finAcked() || c.rcvAck != c.rcvNxt || c.consume > 0 {
		return false
	}
	sys.Close(int(c.fd))
	c.fd = -1
	if !c.finFirst {
		t.remove(c) // the guest waits, not we
		return true
	}
	c.state = timeWait
	c.rtxAt, c.ackAt, c.idleAt = t.env.Now+timeWaitTime, 0, 0
	return true
}

// remove ends the flow's record, and its socket if there is one still.
func (t *TCP) remove(c *conn) {
	if c.fd >= 0 {
		sys.Close(int(c.fd))
	}
	t.env.Pool.PutAll(c.tail)
	t.env.Pool.PutAll(c.strays)
	t.wheel.Cancel(c.slot)
	t.env.Release(t.table.HashAt(c.slot))
	t.table.Remove(c.slot)
	t.lastSlot = -1
	c.reset()
	t.env.Count.TCPClosed++
	t.env.Count.TCPFlows = uint64(t.table.Len())
}

// guestGone ends a flow that the guest has ended, or forgotten. A stream whose
// FIN is taken is whole, and was or will be acknowledged: as a remote on a bare
// network, ours still gets all of it. Linux forgets a connection that nobody
// holds a minute after its FIN was acknowledged, and a slow remote takes longer.
func (t *TCP) guestGone(c *conn) {
	if !c.guestFIN || c.shut {
		t.endHost(c)
		return
	}
	c.state, c.lastData = draining, t.env.Now
	c.rtxAt, c.ackAt, c.idleAt = 0, 0, t.env.Now+keepaliveAfter
	t.queue(c)
}

// drain goes on with a flow whose guest is gone, until the socket has all of
// its stream. What the remote says is for nobody, but it may have to say it
// before it listens again.
func (t *TCP) drain(c *conn) {
	before := c.tailLen
	t.sendTail(c)
	if c.tailLen != before {
		c.lastData = t.env.Now
	}
	switch {
	case c.shut, c.failed, t.env.Now-c.lastData >= drainLimit:
		t.endHost(c)
	default:
		swallow(c)
	}
}

// endHost closes the socket of a flow and removes the flow. If the guest's
// stream is whole and in the socket the kernel delivers the rest of it; else the
// remote gets a RST.
func (t *TCP) endHost(c *conn) {
	switch {
	case c.fd < 0:
	case c.shut:
		// Close with octets unread resets the connection. So it should where
		// the guest has not taken them, unless that costs the guest's own.
		t.discard(c)
		if n, errno := sys.OutQueue(int(c.fd)); errno != 0 || n > 0 {
			swallow(c)
		}
	default:
		sys.Reset(int(c.fd))
		c.fd = -1
		t.env.Count.TCPReset++
	}
	t.remove(c)
}

// swallow throws away what the remote has sent so far. One call ends at the end
// of what is there, or at an urgent mark; the bound is for a remote that sends
// as fast as we read.
func swallow(c *conn) {
	for range peekRounds {
		if n, errno := sys.Discard(int(c.fd), math.MaxInt32); n <= 0 || errno != 0 {
			return
		}
	}
}

// resetGuest ends a flow whose host side is gone: the guest gets a RST.
func (t *TCP) resetGuest(c *conn) {
	t.tellGuest(c)
	t.env.Count.TCPReset++
	t.remove(c)
}

// tellGuest sends the RST that fits how far the flow is.
func (t *TCP) tellGuest(c *conn) {
	switch c.state {
	case connecting: // it has no sequence number of ours yet
		s := outSegment{ack: c.rcvNxt, flags: wire.RST | wire.ACK}
		t.sendBare(c, &s)
	case synSent: // it may not have seen our SYN
		s := outSegment{seq: c.max, flags: wire.RST}
		t.sendBare(c, &s)
	case synRcvd, open:
		s := outSegment{seq: c.max, ack: c.ackTo, flags: wire.RST | wire.ACK}
		t.sendBare(c, &s)
	}
}

// abort ends a flow with a guest that does not answer.
func (t *TCP) abort(c *conn) {
	t.tellGuest(c)
	t.guestGone(c)
}

// hostFailed tells the guest that the remote reset the connection, behind what
// it had sent before.
func (t *TCP) hostFailed(c *conn) {
	if c.state == open {
		c.readable, c.rdhup = !c.finSent, !c.cut
		t.discard(c)
		t.pump(c)
	}
	t.resetGuest(c)
}

// sendBare sends a segment without payload as it is.
func (t *TCP) sendBare(c *conn, s *outSegment) {
	f := t.env.Out.Next()
	c.build(f, s)
	t.env.Out.Commit(1)
}

// refuse answers a segment that belongs to no flow, or to none as it stands,
// with a RST (RFC 9293 section 3.10.7.1).
func (t *TCP) refuse(f *ring.Frame, s *segment) {
	if !f.H.Src.IsUnicastHost() {
		t.env.Count.Drop(stats.BadSource)
		return
	}
	var c conn
	mac := wire.MAC(f.Bytes()[6:12])
	c.setHeader(&mac, &t.env.Rules.OurMAC, &endpoints{f.H.Dst, f.H.Src, f.H.DstPort, f.H.SrcPort})
	out := outSegment{ack: s.seq + s.span(), flags: wire.RST | wire.ACK}
	if s.has(wire.ACK) {
		out = outSegment{seq: s.ack, flags: wire.RST}
	}
	t.sendBare(&c, &out)
}
