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
	// maxDatagram is the most octets of a message, merged (UDP_GRO) or not.
	maxDatagram = 65535
	// maxRounds bounds what one call of Event takes from a socket.
	maxRounds = 4
	// minBuffers is how many buffers a receive is worth making with: for fewer
	// the tap's output is flushed first.
	minBuffers = 16
)

// Directions of a flow.
const (
	toTarget = iota
	toPeer
)

// Event handles an event of a flow's or a served listener's socket. Stale tokens,
// of a flow that ended earlier in this pass, are ignored.
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
		// ICMP port unreachable: nobody listens there. What arrived before
		// is delivered first.
		r.answer(slot)
		r.refused(slot, 1)
		return
	}
	if events&sys.EPOLLIN != 0 {
		r.answer(slot)
	}
}

// refused ends a flow whose target does not listen, and counts the datagrams lost
// (see Errors in the package doc).
func (r *Relay) refused(slot int32, count uint64) {
	r.env.Count.Drops[stats.BadDest] += count
	r.drop(slot)
}

// accept receives and relays datagrams that came to a served listener.
func (r *Relay) accept(id int32, gen, events uint32) {
	if int(id) >= len(r.listeners) || !r.listeners[id].used || r.listeners[id].gen&0xffffff != gen {
		return
	}
	l := &r.listeners[id]
	if events&sys.EPOLLERR != 0 {
		sys.SocketError(l.FD)
	}
	for range maxRounds {
		asked := r.recvBuffers(int(l.recvNext))
		n, errno := r.recv.Recv(l.FD, asked)
		if errno != 0 {
			return
		}
		r.take(id, r.recv, n, true)
		l.recvNext = grow(n)
		if n < asked {
			return
		}
	}
}

// recvBuffers points the receive row at unused frames, want of them if possible,
// and returns how many. They are the tap's output frames, which are in the cache;
// nothing stays in them after the current call of Event.
func (r *Relay) recvBuffers(want int) int {
	out := r.env.Out
	if out.Room() < min(want, minBuffers) {
		out.Flush()
	}
	n := min(want, out.Room())
	for i := range n {
		r.recv.SetBuf(i, out.Peek(i).Slot()[ring.PayloadOffset:ring.PayloadOffset+maxDatagram])
	}
	return n
}

// Local relays those of the first n messages of in, at most 64, which came to the
// shared listener id, that are from loopback peers. It returns which these are, bit
// i being the i-th message, and does not retain them. The rest are the caller's.
func (r *Relay) Local(id int32, in *sys.RecvRow, n int) (taken uint64) {
	return r.take(id, in, n, false)
}

// take relays the messages, flow by flow: those of loopback peers, or all.
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

// forward relays all messages in left that belong to the first one's flow, and
// returns which these are.
func (r *Relay) forward(left uint64, in *sys.RecvRow) (done uint64) {
	slot := r.slots[bits.TrailingZeros64(left)]
	f := &r.rec[slot]
	r.out.begin(f.fd, nil, f.segMax[toTarget])
	for ; left != 0; left &= left - 1 {
		if i := bits.TrailingZeros64(left); r.slots[i] == slot {
			done |= 1 << i
			r.addMessage(in, i)
		}
	}
	r.flush()
	r.touch(f, &f.fromPeer)
	f.segMax[toTarget] = r.out.segMax
	if r.out.refused > 0 {
		r.refused(slot, r.out.refused)
	}
	return done
}

// answer relays datagrams from a flow's target to its peer.
func (r *Relay) answer(slot int32) {
	f := &r.rec[slot]
	got := false
	for range maxRounds {
		asked := r.recvBuffers(int(f.recvNext))
		n, errno := r.recv.Recv(f.fd, asked)
		if errno != 0 {
			break // EAGAIN, or an error that EPOLLERR reports as well
		}
		got = true
		r.sendBack(f, n)
		f.recvNext = grow(n)
		if n < asked {
			break
		}
		if n >= minBuffers && !f.bufferRaised {
			f.bufferRaised = true
			sys.SetReceiveBuffer(f.fd, raisedBuffer)
		}
	}
	if got {
		r.touch(f, &f.fromTarget)
	}
}

// grow is how many messages to ask for after n came: more, so that getting fewer
// than asked for tells that no others wait.
func grow(n int) uint8 { return uint8(min(max(n+1, 2*n), rowSize)) }

// sendBack sends the first n messages of the receive row to f's peer, by the
// listener's socket. Messages from others, received between bind and connect, are
// dropped.
func (r *Relay) sendBack(f *record, n int) {
	r.out.begin(r.listeners[f.listener].FD, &f.back, f.segMax[toPeer])
	for i := range n {
		ip, port, _, ok := r.recv.From(i).Inet()
		if !ok || wire.Addr(ip) != f.to || port != f.toPort {
			r.env.Count.Drop(stats.NoFlow)
			continue
		}
		r.addMessage(r.recv, i)
	}
	r.flush()
	f.segMax[toPeer] = r.out.segMax
}
