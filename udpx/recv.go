package udpx

import (
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard/flow"
)

const (
	// maxDatagram is the room for one message: no datagram, and nothing that
	// UDP_GRO merged, is longer.
	maxDatagram = 65535
	// firstWant is what a flow's first receive asks for.
	firstWant = 4
	// maxRounds bounds what one call of Event takes from a socket.
	maxRounds = 4
	// minRoom is the least row worth a receive.
	minRoom = recvRow / 2
	// maxOctets bounds what a row is to bring, so that one call of Event
	// takes a few megabytes at most, as large as its messages may be, and
	// that they are still in the cache when they are sent on.
	maxOctets = 1 << 20
)

// Event deals with a flow's or a listener's readiness. Stale tokens, of a flow
// that has ended in this pass, are ignored.
func (u *UDP) Event(tok flow.Token, bits uint32) {
	if tok.Kind() == flow.KindListenUDP {
		u.accept(tok, bits)
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

// receive takes datagrams from the flow at slot to the guest.
func (u *UDP) receive(slot int32) {
	r := &u.rec[slot]
	msgs, octets := 0, 0
	for range maxRounds {
		asked := u.room(int(r.want))
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

// wanted is what to ask for after a burst of so many messages, at least one, and
// octets: more than came, so that a row that is not full tells that there are no
// others, but no more than is good for the cache.
func wanted(msgs, octets int) uint8 {
	each := octets/msgs + 1
	return uint8(min(2*msgs, recvRow, max(maxOctets/each, firstWant)))
}

// deliver gives the first n messages of the receive row, which came to the
// socket of the flow at slot, to the guest, and returns how many octets they
// brought.
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

// mtu is the MTU of the guest's link; no limit, if there is none to keep, and
// what any link takes at least (RFC 791 section 3.2) if there is.
func (u *UDP) mtu() int {
	if u.env.Rules.MTU == 0 {
		return 65535
	}
	return max(u.env.Rules.MTU, 68)
}

// stray deals with the i-th message, which came to the socket of the flow at
// slot from somebody else than its peer, before the socket was connected: it
// goes where it would have gone without that socket.
func (u *UDP) stray(slot int32, i int) {
	r := &u.rec[slot]
	if l := u.listenerOn(r.hostPort, !r.peer.Is4()); l != nil {
		u.heard.slot = -1 // maybe another listener's
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
