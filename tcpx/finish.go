package tcpx

import (
	"math"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
)

// drainLimit is how long drain waits for the socket to take more: about as long as
// Linux keeps an orphaned socket.
const drainLimit = 5 * 60e9

// timeWaitTime is how long TIME-WAIT lasts, to answer a retransmitted FIN. The tap hardly loses frames and reorders none
// for longer than a pass, so waiting for twice the MSL of two minutes (RFC
// 9293 section 3.4.2) would serve nothing here.
const timeWaitTime = 1e9

// finished ends the flow, and returns true, when both FINs are acknowledged; the
// kernel delivers what is left in the socket.
func (t *TCP) finished(c *conn) bool {
	if !c.guestFIN || !c.shut || !c.finAcked() || c.rcvAck != c.rcvNxt || c.consume > 0 {
		return false
	}
	sys.Close(int(c.fd))
	c.fd = -1
	if !c.finFirst || c.heir >= 0 {
		t.remove(c) // TIME-WAIT is the guest's, or cut short by the next connection
		return true
	}
	c.state = timeWait
	c.rtxAt, c.ackAt, c.idleAt = t.env.Now+timeWaitTime, 0, 0
	return true
}

// remove closes the flow's socket and frees its frames, timers and slot. The connection
// that waited for this takes its place.
func (t *TCP) remove(c *conn) {
	heir, key := c.heir, *t.table.Key(c.slot)
	if c.fd >= 0 {
		sys.Close(int(c.fd))
	}
	t.env.Pool.PutAll(c.tail)
	t.env.Pool.PutAll(c.outOfOrder)
	t.wheel.Cancel(c.slot)
	t.env.Release(t.table.HashAt(c.slot))
	t.table.Remove(c.slot)
	t.lastSlot = -1
	c.reset()
	t.env.Count.TCPClosed++
	t.env.Count.TCPFlows = uint64(t.table.Len())
	if heir >= 0 {
		t.Accept(int(heir), Inbound{Peer: key.Remote, Guest: key.Guest, PeerPort: key.RemotePort, GuestPort: key.GuestPort})
	}
}

// guestGone ends a flow that the guest has reset or does not answer for. If its FIN
// is taken, so is its whole stream: the remote still gets all of it, as it would
// without us. That is no rare case: Linux forgets an orphaned connection a minute
// after its FIN was acknowledged, and a slow remote takes longer to read.
func (t *TCP) guestGone(c *conn) {
	if !c.guestFIN || c.shut {
		t.endHost(c)
		return
	}
	c.state, c.lastData = draining, t.env.Now
	c.rtxAt, c.ackAt, c.idleAt = 0, 0, t.env.Now+keepaliveAfter
	t.queue(c)
}

// drain sends on the tail of a flow whose guest is gone. What the remote sends is
// discarded: it may have to send it before it reads again.
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
		discardReceived(c)
	}
}

// endHost removes a flow and closes its socket. After the guest's FIN the kernel
// delivers what is in the socket, else the remote gets a RST.
func (t *TCP) endHost(c *conn) {
	switch {
	case c.fd < 0:
	case c.shut:
		// Close with octets unread resets the connection. That is right if the
		// guest did not get them, but not while its own are to be delivered.
		t.discard(c)
		if n, errno := sys.OutQueue(int(c.fd)); errno != 0 || n > 0 {
			discardReceived(c)
		}
	default:
		sys.Reset(int(c.fd))
		c.fd = -1
		t.env.Count.TCPReset++
	}
	t.remove(c)
}

// discardReceived empties the receive queue. One call ends at the end of what is
// there, or at an urgent mark; the bound is for a remote that sends as fast as we
// read.
func discardReceived(c *conn) {
	for range peekRounds {
		if n, errno := sys.Discard(int(c.fd), math.MaxInt32); n <= 0 || errno != 0 {
			return
		}
	}
}

// resetGuest removes a flow whose host side has failed, with a RST to the guest.
func (t *TCP) resetGuest(c *conn) {
	t.sendReset(c)
	t.env.Count.TCPReset++
	t.remove(c)
}

// sendReset sends the guest the RST that is acceptable in the flow's state.
func (t *TCP) sendReset(c *conn) {
	switch c.state {
	case connecting: // in answer to its SYN, which has none of our sequence numbers
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

// abort ends a flow whose guest does not answer.
func (t *TCP) abort(c *conn) {
	t.sendReset(c)
	t.guestGone(c)
}

// hostFailed passes on the remote's reset, after what it had sent before.
func (t *TCP) hostFailed(c *conn) {
	if c.state == open {
		c.readable, c.rdhup = !c.finSent, !c.aborted
		t.discard(c)
		t.pump(c)
	}
	t.resetGuest(c)
}

// sendBare sends s, which has no payload, as it is.
func (t *TCP) sendBare(c *conn, s *outSegment) {
	f := t.env.Out.Next()
	c.build(f, s)
	t.env.Out.Commit(1)
}

// refuse answers a segment with a RST, as RFC 9293 section 3.10.7.1 does one of no
// connection.
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
