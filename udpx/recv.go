package udpx

import (
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard/flow"
)

const (
	// maxDatagram is the longest message, merged by UDP_GRO or not.
	maxDatagram = 65535
	// firstWant is how many messages a flow's first receive asks for.
	firstWant = 4
	// maxRounds is the most rows that one call of Event receives.
	maxRounds = 4
	// minRow is the smallest row worth a receive: below it Out is flushed.
	minRow = recvRow / 2
	// maxOctets bounds the expected size of a row, so that one call of Event
	// receives a few megabytes at most, and each row is still in the cache
	// when it is sent on.
	maxOctets = 1 << 20
)

// Event handles the epoll events of a flow's or a listener's socket. Stale tokens,
// of a flow that has ended in this pass, are ignored.
func (u *UDP) Event(tok flow.Token, bits uint32) {
	if tok.Kind() == flow.KindListenUDP {
		u.listenerEvent(tok, bits)
		return
	}
	if !u.table.Live(tok) {
		return
	}
	slot := tok.Slot()
	if bits&sys.EPOLLIN != 0 {
		u.receive(slot)
	}
	if bits&sys.EPOLLERR != 0 {
		u.report(slot)
	}
}

// receive sends the guest the datagrams that wait in the socket of the flow at slot.
func (u *UDP) receive(slot int32) {
	r := &u.rec[slot]
	msgs, octets := 0, 0
	for range maxRounds {
		asked := u.prepareRow(int(r.want))
		n, errno := u.recv.Recv(r.fd, asked)
		if errno != 0 {
			break // EAGAIN, or an error that EPOLLERR reports as well
		}
		octets += u.deliver(r, slot, n)
		msgs += n
		r.want = wanted(msgs, octets)
		if n < asked {
			break
		}
	}
	if msgs > 0 {
		u.touch(r, &r.fromHost)
	}
}

// wanted is how many messages to ask for after a burst of msgs, at least one, and
// octets: more than came, so that a row that is not full means that the socket is
// empty, but no more than maxOctets hold.
func wanted(msgs, octets int) uint8 {
	each := octets/msgs + 1
	return uint8(min(2*msgs, recvRow, max(maxOctets/each, firstWant)))
}

// deliver sends the n messages of the receive row, which came to the socket of the
// flow at slot, to the guest, and returns their octets.
func (u *UDP) deliver(r *record, slot int32, n int) (octets int) {
	u.guest = u.env.Guest.MAC()
	for i := range n {
		octets += u.recv.Len(i)
		ip, port, _, ok := u.recv.From(i).Inet()
		switch {
		case !ok:
			u.env.Count.Drop(stats.Malformed)
		case u.recv.Truncated(i):
			u.env.Count.Drop(stats.TooLong)
		case wire.Addr(ip) == r.peer && port == r.peerPort:
			u.emit(&r.hdr, i)
		default:
			u.stray(slot, i)
		}
	}
	u.finish()
	return octets
}

// mtu is the MTU of the guest's link, if that has one, but at least the 68 octets of
// RFC 791 section 3.2.
func (u *UDP) mtu() int {
	if u.env.Rules.MTU == 0 {
		return 65535
	}
	return max(u.env.Rules.MTU, 68)
}

// stray handles the i-th message, which came to the socket of the flow at slot before
// that was connected, and not from its peer: it goes where it would have gone
// without the socket.
func (u *UDP) stray(slot int32, i int) {
	r := &u.rec[slot]
	if l := u.listenerOn(r.hostPort, !r.peer.Is4()); l != nil {
		u.lastInbound.slot = -1 // it may be another listener's
		u.inbound(l, i)
		return
	}
	ip, port, _, _ := u.recv.From(i).Inet()
	src := wire.Addr(ip)
	key := *u.table.Key(slot)
	if from, ok := u.env.Rules.ToGuest(&src, u.env.Guest); ok {
		key.Remote, key.RemotePort = from, port
		if s := u.table.Find(&key, u.table.Hash(&key)); s >= 0 && u.rec[s].peer == src {
			u.touch(&u.rec[s], &u.rec[s].fromHost)
			u.emit(&u.rec[s].hdr, i)
			return
		}
	}
	u.env.Count.Drop(stats.NoFlow)
}
