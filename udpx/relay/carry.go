package relay

import (
	"math/bits"

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
	// maxRounds bounds what one call of Event takes from a socket.
	maxRounds = 4
	// minRoom is the least row worth a receive.
	minRoom = 16
)

// Directions of a flow.
const (
	forth = iota // from the peer to the target
	back
)

// Event deals with the readiness of a flow's or a served listener's socket.
// Stale tokens, of a flow that has ended in this pass, are ignored.
func (r *Relay) Event(tok flow.Token, events uint32) {
	slot := tok.Slot()
	if slot < 0 {
		r.accept(^slot, tok.Gen(), events)
		return
	}
	if !r.table.Live(tok) {
		return
	}
	if events&sys.EPOLLERR != 0 && sys.SocketError(r.rec[slot].fd) == sys.ECONNREFUSED {
		// ICMP port unreachable: nobody listens over there. What arrived
		// before that message is delivered first.
		r.answer(slot)
		r.refused(slot, 1)
		return
	}
	if events&sys.EPOLLIN != 0 {
		r.answer(slot)
	}
}

// refused ends a flow whose target does not listen, count datagrams being lost.
// The peer is not told, since no socket can send the ICMP message; if it tries
// again, so does the relay, with a new flow.
func (r *Relay) refused(slot int32, count uint64) {
	r.env.Count.Drops[stats.BadDest] += count
	r.drop(slot)
}

// accept takes datagrams that came to a served listener.
func (r *Relay) accept(id int32, gen, events uint32) {
	if int(id) >= len(r.listeners) || !r.listeners[id].used || r.listeners[id].gen&0xffffff != gen {
		return
	}
	l := &r.listeners[id]
	if events&sys.EPOLLERR != 0 {
		sys.SocketError(l.FD)
	}
	for range maxRounds {
		asked := r.room(int(l.want))
		n, errno := r.recv.Recv(l.FD, asked)
		if errno != 0 {
			return
		}
		r.take(id, r.recv, n, true)
		l.want = grow(n)
		if n < asked {
			return
		}
	}
}

// room points the receive row at frames that hold nothing now, want of them if
// possible, and returns how many. The frames of the tap's output serve, since
// they are in the cache and nothing stays in them past this call.
func (r *Relay) room(want int) int {
	out := r.env.Out
	if out.Room() < min(want, minRoom) {
		out.Flush()
	}
	n := min(want, out.Room())
	for i := range n {
		r.recv.SetBuf(i, out.Peek(i).Slot()[ring.PayloadOffset:ring.PayloadOffset+maxDatagram])
	}
	return n
}

// Local takes from the first n messages of in, at most 64, which came to the
// shared listener id, those of loopback peers, and sends them on. It returns
// which ones it took, the i-th message being bit i; what they bring has been
// used when it returns. The rest are the caller's.
func (r *Relay) Local(id int32, in *sys.RecvRow, n int) (taken uint64) {
	return r.take(id, in, n, false)
}

// take sends the messages on, flow by flow: those of loopback peers, or all.
func (r *Relay) take(id int32, in *sys.RecvRow, n int, all bool) (taken uint64) {
	var left uint64 // messages that have a flow
	for i := range n {
		ip, port, _, ok := in.From(i).Inet()
		peer := wire.Addr(ip)
		if !all && !(ok && peer.IsLoopback()) {
			continue
		}
		taken |= 1 << i
		if !ok {
			r.env.Count.Drop(stats.Malformed)
			continue
		}
		if in.Truncated(i) {
			r.env.Count.Drop(stats.TooLong)
			continue
		}
		if r.slots[i] = r.flowOf(id, in, i, &peer, port); r.slots[i] >= 0 {
			left |= 1 << i
		}
	}
	for left != 0 {
		left &^= r.forward(left, in)
	}
	return taken
}

// forward sends on all messages of the flow that the first one in left belongs
// to, and returns which.
func (r *Relay) forward(left uint64, in *sys.RecvRow) (done uint64) {
	slot := r.slots[bits.TrailingZeros64(left)]
	f := &r.rec[slot]
	r.out.begin(f.fd, nil, f.segMax[forth])
	for ; left != 0; left &= left - 1 {
		if i := bits.TrailingZeros64(left); r.slots[i] == slot {
			done |= 1 << i
			r.message(in, i)
		}
	}
	r.flush()
	r.touch(f, &f.fromPeer)
	f.segMax[forth] = r.out.segMax
	if r.out.refused > 0 {
		r.refused(slot, r.out.refused)
	}
	return done
}

// answer takes datagrams from a flow's target back to its peer.
func (r *Relay) answer(slot int32) {
	f := &r.rec[slot]
	got := false
	for range maxRounds {
		asked := r.room(int(f.want))
		n, errno := r.recv.Recv(f.fd, asked)
		if errno != 0 {
			break // EAGAIN, or an error that EPOLLERR reports as well
		}
		got = true
		r.giveBack(f, n)
		f.want = grow(n)
		if n < asked {
			break
		}
		if n >= minRoom && !f.wide {
			f.wide = true
			sys.SetReceiveBuffer(f.fd, wideBuffer)
		}
	}
	if got {
		r.touch(f, &f.fromTarget)
	}
}

// grow is what to ask for after n messages came: more than that, so that a full
// row tells that there may be others.
func grow(n int) uint8 { return uint8(min(max(n+1, 2*n), row)) }

// giveBack sends the first n messages of the receive row to f's peer, through
// the listener. The socket may have caught some from others between bind and
// connect: those go nowhere.
func (r *Relay) giveBack(f *record, n int) {
	r.out.begin(r.listeners[f.listener].FD, &f.back, f.segMax[back])
	for i := range n {
		ip, port, _, ok := r.recv.From(i).Inet()
		if !ok || wire.Addr(ip) != f.to || port != f.toPort {
			r.env.Count.Drop(stats.NoFlow)
			continue
		}
		r.message(r.recv, i)
	}
	r.flush()
	f.segMax[back] = r.out.segMax
}
