package udpx

import (
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
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
	got := false
	for range maxRounds {
		asked := u.room(int(r.want))
		n, errno := u.recv.Recv(r.fd, asked)
		if errno != 0 {
			break // EAGAIN, or an error that EPOLLERR reports as well
		}
		got = true
		u.deliver(r, slot, n)
		r.want = uint8(min(max(n+1, 2*n), recvRow))
		if n < asked {
			break
		}
		u.widen(r, n)
	}
	if got {
		u.touch(r, &r.fromHost)
	}
}

// widen raises the receive buffer of a flow that fills whole rows.
func (u *UDP) widen(r *record, n int) {
	if n == recvRow && !r.wideRecv {
		r.wideRecv = true
		sys.SetReceiveBuffer(r.fd, wideBuffer)
	}
}

// room points the receive row at the next frames for the guest, want of them if
// possible, and returns how many.
func (u *UDP) room(want int) int {
	out := u.env.Out
	if out.Room() < min(want, minRoom) {
		out.Flush()
	}
	n := min(want, out.Room())
	for i := range n {
		u.recv.SetBuf(i, out.Peek(i).Slot()[ring.PayloadOffset:ring.PayloadOffset+maxDatagram])
	}
	return n
}

// deliver gives the first n messages of the receive row, which came to the
// socket of the flow at slot, to the guest.
//
// The messages lie in the frames behind the committed ones. pos is the place of
// the next message there: frames before it were dropped, and are free.
func (u *UDP) deliver(r *record, slot int32, n int) {
	u.guest = u.env.Guest.MAC()
	pos := 0
	for i := range n {
		ip, port, _, ok := u.recv.From(i).Inet()
		switch {
		case !ok || u.recv.Truncated(i):
			u.env.Count.Drop(stats.TooLong)
			pos++
		case wire.Addr(ip) == r.peer && port == r.peerPort:
			pos = u.emit(&r.hdr, i, pos)
		default:
			pos = u.stray(slot, i, pos)
		}
	}
}

// emit sends the i-th message, in the frame at pos, to the guest under h, and
// returns the place of the next.
func (u *UDP) emit(h *header, i, pos int) int {
	n, segment := u.recv.Len(i), u.recv.Segment(i)
	if segment == 0 || segment >= n {
		segment = n
		u.env.Count.UDPToGuest++
	} else {
		u.env.Count.UDPToGuest += uint64((n + segment - 1) / segment)
	}
	ip := h.ipLen() + wire.UDPLen
	if ip+segment > u.mtu() || ip+n > 65535 {
		return u.apart(h, pos, n, segment)
	}
	out := u.env.Out
	out.Swap(0, pos)
	h.put(out.Peek(0), &u.guest, 0, n, segment)
	out.Commit(1)
	return pos
}

// mtu is the MTU of the guest's link; no limit, if there is none to keep, and
// what any link takes at least (RFC 791 section 3.2) if there is.
func (u *UDP) mtu() int {
	if u.env.Rules.MTU == 0 {
		return 65535
	}
	return max(u.env.Rules.MTU, 68)
}

// stray deals with the i-th message, in the frame at pos, which came to the
// socket of the flow at slot from somebody else than its peer, before the
// socket was connected: it goes where it would have gone without that socket.
func (u *UDP) stray(slot int32, i, pos int) int {
	r := &u.rec[slot]
	if l := u.listenerOn(r.hostPort, !r.peer.Is4()); l != nil {
		return u.inbound(l, i, pos)
	}
	ip, port, _, _ := u.recv.From(i).Inet()
	src := wire.Addr(ip)
	key := *u.table.Key(slot)
	if from, ok := u.env.Rules.ToGuest(&src, u.env.Guest); ok {
		key.Remote, key.RemotePort = from, port
		if s := u.table.Find(&key, u.table.Hash(&key)); s >= 0 && u.rec[s].peer == src {
			u.touch(&u.rec[s], &u.rec[s].fromHost)
			return u.emit(&u.rec[s].hdr, i, pos)
		}
	}
	u.env.Count.Drop(stats.NoFlow)
	return pos + 1
}
