package tcpx

import (
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
)

// socketEvents are what every socket is watched for. Edge-triggered, since octets
// that were peeked stay readable.
const socketEvents = sys.EPOLLIN | sys.EPOLLOUT | sys.EPOLLRDHUP | sys.EPOLLPRI | sys.EPOLLET

// newConn makes the record of a claimed flow. Without a slot for it, it releases
// the claim and returns nil.
func (t *TCP) newConn(key *flow.Key, hash uint64, mac *wire.MAC) *conn {
	slot := t.insert(key, hash)
	if slot < 0 {
		t.env.Count.Drop(stats.TableFull)
		t.env.Release(hash)
		return nil
	}
	c := &t.conns[slot]
	c.slot = slot
	c.reset()
	now := t.env.Now
	c.setHeader(mac, &t.env.Rules.OurMAC, &endpoints{key.Remote, key.Guest, key.RemotePort, key.GuestPort})
	c.lastHeard, c.lastData = now, now
	c.allowance = firstAllowance
	iss := t.initialSeq(key)
	c.una, c.nxt, c.max = iss, iss, iss
	t.env.Count.TCPOpened++
	t.env.Count.TCPFlows = uint64(t.table.Len())
	return c
}

// maxEvictScan bounds the search of a full table for a flow in TIME-WAIT.
const maxEvictScan = 64

// insert takes a slot for key, or returns -1. In a full table it reuses that of a
// flow in TIME-WAIT: where the limit of descriptors keeps the table small, many
// short connections within timeWaitTime would else be refused.
func (t *TCP) insert(key *flow.Key, hash uint64) int32 {
	if slot := t.table.Insert(key, hash); slot >= 0 {
		return slot
	}
	for range min(maxEvictScan, len(t.conns)) {
		if t.evictHand++; t.evictHand >= len(t.conns) {
			t.evictHand = 0
		}
		if c := &t.conns[t.evictHand]; c.state == timeWait {
			t.remove(c)
			return t.table.Insert(key, hash)
		}
	}
	return -1
}

// initialSeq is the initial sequence number of RFC 6528: a clock of 4 µs plus a
// keyed hash of the flow.
func (t *TCP) initialSeq(key *flow.Key) uint32 {
	return uint32(t.secret.Hash(key)) + uint32(t.env.Now/4000)
}

// guestSYN starts a flow for the guest's SYN, which is answered when the host
// socket has connected or failed.
func (t *TCP) guestSYN(f *ring.Frame, s *segment, key *flow.Key, hash uint64) (kept bool) {
	to, ok := t.env.Rules.ToHost(&key.Remote, key.RemotePort)
	switch {
	case !key.Guest.IsUnicastHost() || key.GuestPort == 0:
		t.env.Count.Drop(stats.BadSource)
		return false
	case !ok || key.RemotePort == 0:
		t.env.Count.Drop(stats.BadDest)
		t.refuse(f, s)
		return false
	}
	if !t.env.Claim(f, hash) {
		return true
	}
	mac := wire.MAC(f.Bytes()[6:12])
	c := t.newConn(key, hash, &mac)
	if c == nil {
		t.refuse(f, s)
		return false
	}
	t.env.Guest.SawAddr(&key.Guest)
	c.state, c.rcvNxt, c.ackTo, c.rcvAck = connecting, s.seq+1, s.seq+1, s.seq+1
	c.edge = c.rcvNxt
	t.readSYN(c, s)
	if errno := t.openSocket(c, &to, key.RemotePort); errno != 0 {
		t.cannotConnect(c, errno)
	}
	return false
}

// readSYN takes the options and the window from the guest's SYN or SYN-ACK. Window
// scale and SACK are in force if both ends offer them (RFC 7323 section 2.2); we
// do whenever the guest does.
func (t *TCP) readSYN(c *conn, s *segment) {
	var o wire.TCPOptions
	s.hdr.Options(&o)
	if o.Malformed {
		t.env.Count.Drop(stats.BadOption)
	}
	c.mss = guestMSS(o.MSS, c.v4(), t.env.Rules.MTU)
	c.chunk = chunkFor(c.mss)
	c.sackOK = o.SACKOK
	if c.scaled = o.HasWS; c.scaled {
		c.guestScale = o.WScale
	}
	c.wnd = uint32(s.wnd) // never scaled in a SYN
	c.maxWnd, c.wl1, c.wl2 = c.wnd, s.seq, s.ack
}

// openSocket makes c's socket and begins to connect it. On an error the socket, if
// there is one, is left to endHost.
func (t *TCP) openSocket(c *conn, to *wire.Addr, port uint16) sys.Errno {
	fd, errno := sys.Socket(sys.Family(to.Is4()), sys.SOCK_STREAM, sys.IPPROTO_TCP)
	if errno != 0 {
		return errno
	}
	c.fd = int32(fd)
	if errno := t.env.BindSource(fd, to); errno != 0 {
		return errno
	}
	t.setOptions(c)
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(to), to.Is4(), port, t.env.Rules.ScopeOf(to))
	if errno := sys.Connect(fd, &sa); errno != 0 && errno != sys.EINPROGRESS {
		return errno
	}
	return t.watch(c)
}

// setOptions sets socket options: no Nagle, since the guest has its own; urgent
// octets stay in the stream; each peek continues where the last one ended.
func (t *TCP) setOptions(c *conn) {
	sys.SetInt(int(c.fd), sys.IPPROTO_TCP, sys.TCP_NODELAY, 1)
	sys.SetInt(int(c.fd), sys.SOL_SOCKET, sys.SO_OOBINLINE, 1)
	t.peeker.start(c)
}

// watch adds c's socket to the shard's epoll; closing the socket removes it.
func (t *TCP) watch(c *conn) sys.Errno {
	tok := flow.NewToken(flow.KindTCP, t.table.Gen(c.slot), c.slot)
	return t.env.Epoll.Add(int(c.fd), socketEvents, uint64(tok))
}

// Event notes the epoll events of a flow's socket; Flush acts on them. Stale
// tokens, of a flow that has ended in this pass, are ignored.
func (t *TCP) Event(tok flow.Token, bits uint32) {
	if !t.table.Live(tok) {
		return
	}
	c := &t.conns[tok.Slot()]
	switch {
	case c.fd < 0:
		return
	case c.state == connecting:
		t.hostAnswers(c, bits)
		return
	}
	if bits&sys.EPOLLERR != 0 {
		if errno := sys.SocketError(int(c.fd)); errno != 0 {
			c.fail(errno)
		}
	}
	if bits&sys.EPOLLPRI != 0 {
		c.urgent = true
	}
	if bits&(sys.EPOLLRDHUP|sys.EPOLLHUP) != 0 {
		c.rdhup = true
	}
	if bits&(sys.EPOLLIN|sys.EPOLLRDHUP|sys.EPOLLHUP|sys.EPOLLPRI) != 0 {
		c.readable = true
	}
	if bits&sys.EPOLLOUT != 0 {
		c.blocked = false
	}
	t.queue(c)
}

// hostAnswers handles the result of connect.
func (t *TCP) hostAnswers(c *conn, bits uint32) {
	if bits&(sys.EPOLLERR|sys.EPOLLHUP) != 0 {
		switch errno := sys.SocketError(int(c.fd)); errno {
		case 0:
		case sys.ECONNRESET, sys.EPIPE: // the remote had accepted
			c.fail(errno)
		default:
			t.cannotConnect(c, errno)
			return
		}
	}
	if bits&sys.EPOLLOUT == 0 {
		return
	}
	t.measureRTT(c)
	c.readable = bits&(sys.EPOLLIN|sys.EPOLLRDHUP) != 0
	c.rdhup = bits&sys.EPOLLRDHUP != 0
	c.urgent = bits&sys.EPOLLPRI != 0
	c.state, c.max, c.nxt = synRcvd, c.una+1, c.una+1
	t.sendSYN(c)
}

// sendSYN sends our SYN or SYN-ACK, for the first time or again. Its window is
// not scaled.
func (t *TCP) sendSYN(c *conn) {
	flags, scale, sack := uint8(wire.SYN), ourScale, true
	if c.state == synRcvd {
		flags, sack = wire.SYN|wire.ACK, c.sackOK
		if !c.scaled {
			scale = -1
		}
	}
	s := outSegment{seq: c.una, flags: flags, window: firstAllowance}
	s.opts = synOptions(t.opts[:], ourMSS(c.v4(), t.env.Rules.MTU), scale, sack)
	c.scale = 0
	if c.state == synRcvd {
		t.stamp(c, &s)
	}
	f := t.env.Out.Next()
	c.build(f, &s)
	t.env.Out.Commit(1)
	c.rtxAt = t.env.Now + rto(c.tries)
	t.queue(c)
}

// inConnecting handles a segment from the guest while the host socket connects.
func (t *TCP) inConnecting(c *conn, f *ring.Frame, s *segment) (kept bool) {
	switch {
	case s.has(wire.RST):
		if s.seq == c.rcvNxt {
			t.endHost(c)
		}
	case s.flags&(wire.SYN|wire.ACK) == wire.SYN && s.seq != c.rcvNxt-1:
		t.endHost(c) // the guest has given up the old one
		return t.input(f)
	}
	return false // a retransmitted SYN is answered when connect has ended
}

// inSynRcvd is RFC 9293 section 3.10.7.4 for SYN-RECEIVED.
func (t *TCP) inSynRcvd(c *conn, f *ring.Frame, s *segment) (kept bool) {
	switch {
	case s.has(wire.RST):
		t.guestReset(c, s)
		return false
	case s.has(wire.SYN) && s.seq == c.rcvNxt-1 && !s.has(wire.ACK):
		t.sendSYN(c)
		return false
	case s.has(wire.SYN) && s.seq == c.rcvNxt-1: // simultaneous open
	case !inWindow(s.seq, s.span(), c.rcvNxt, c.edge):
		c.ackNow = true
		t.challenge(c)
		return false
	case s.has(wire.SYN):
		t.challenge(c)
		return false
	}
	if !s.has(wire.ACK) {
		return false
	}
	if s.ack != c.max {
		t.refuse(f, s)
		return false
	}
	t.establish(c, s)
	if s.has(wire.SYN) {
		c.ackNow = true
		return false
	}
	return t.inOpen(c, f, s)
}

// establish opens the flow: the guest has acknowledged our SYN.
func (t *TCP) establish(c *conn, s *segment) {
	c.state, c.una, c.nxt = open, c.max, c.max
	c.tries, c.rtxAt = 0, 0
	if c.scaled {
		c.scale = ourScale
	}
	// Any segment is newer than the SYN, as takeWindow compares them.
	c.wl1, c.wl2 = s.seq-1, s.ack
	c.idleAt = t.env.Now + keepaliveAfter
	t.queue(c)
}
