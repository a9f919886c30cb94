package tcpx

import (
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
)

// timeWaitTime is how long a flow that we ended first is remembered, to answer
// a guest that repeats its FIN. The tap hardly loses frames and reorders none
// for longer than a pass, so the two minutes of RFC 9293 section 3.4.2 have no
// object here.
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

// resetHost ends a flow that the guest ended: the remote gets a RST.
func (t *TCP) resetHost(c *conn) {
	if c.fd >= 0 {
		sys.Reset(int(c.fd))
		c.fd = -1
	}
	t.env.Count.TCPReset++
	t.remove(c)
}

// resetGuest ends a flow whose host side is gone: the guest gets a RST.
func (t *TCP) resetGuest(c *conn) {
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
	t.env.Count.TCPReset++
	t.remove(c)
}

// abort ends a flow towards both ends.
func (t *TCP) abort(c *conn) {
	if c.fd >= 0 {
		sys.Reset(int(c.fd))
		c.fd = -1
	}
	t.resetGuest(c)
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
	if badGuest(&f.H.Src) {
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
