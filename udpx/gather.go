package udpx

import (
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
)

// maxCopy is the longest message that is copied to join a run: a write to the tap
// costs as much as copying tens of kilobytes.
const maxCopy = 16 << 10

// run is the frame that is being put together from consecutive messages of a row,
// in the frame of the first of them. Those merged by the kernel (UDP_GRO) and single
// datagrams may join.
//
// Receiving datagrams right behind each other, without the copy, would take a second
// iovec for each message, for what is longer than expected. At 1400 octets that costs
// the kernel as much as the copy; at 8972 it would save a fifth (kernel 6.18).
type run struct {
	h     *header // nil: there is no run
	at    int     // its first message
	size  int     // length of each datagram but the last
	total int     // octets
	count int     // datagrams
	limit int     // of total
	open  bool    // more may join
}

// prepareRow makes the payload areas of the next frames of Out the receive row's
// buffers, want of them if possible, and returns how many.
//
// Message i is then in frame i behind the committed ones. Commits and flushes move
// that base, and u.shift is what to add to i then. Frames are committed in the order
// of their messages, each after being swapped to the front, which leaves the later
// ones where they are.
func (u *UDP) prepareRow(want int) int {
	out := u.env.Out
	if out.Room() < min(want, minRow) {
		out.Flush()
	}
	n := min(want, out.Room())
	for i := range n {
		u.recv.SetBuf(i, payloadOf(out.Peek(i)))
	}
	u.shift = 0
	return n
}

// payloadOf is the payload area of a frame for the guest, large enough for any
// message.
func payloadOf(f *ring.Frame) []byte {
	return f.Slot()[ring.PayloadOffset : ring.PayloadOffset+maxDatagram]
}

// emit sends the i-th message of the row to the guest with headers h, in one frame
// with those before it where possible. Messages are emitted in order, though some
// may be left out; finish must follow the last.
func (u *UDP) emit(h *header, i int) {
	n, size, count := u.recv.Len(i), u.recv.Segment(i), 1
	if size == 0 || size >= n {
		size = n
	} else {
		count = (n + size - 1) / size
	}
	u.env.Count.UDPToGuest += uint64(count)
	r := &u.run
	if r.h == h && r.takes(n, size, count) {
		copy(u.payload(r.at)[r.total:], u.payload(i)[:n])
	} else {
		u.finish()
		ip := h.ipLen() + wire.UDPLen
		*r = run{h: h, at: i, size: size, limit: maxDatagram - ip, open: ip+size <= u.mtu()}
	}
	r.total += n
	r.count += count
	r.open = r.open && n > 0 && size == r.size && n%size == 0
}

// payload is the buffer of the i-th message of the row, which was not sent yet.
func (u *UDP) payload(i int) []byte { return payloadOf(u.env.Out.Peek(i + u.shift)) }

// takes tells whether a message of n octets, count datagrams of size octets each, may
// join r.
func (r *run) takes(n, size, count int) bool {
	return r.open && n > 0 && n <= maxCopy && r.total+n <= r.limit && r.count+count <= sys.MaxSegments &&
		(size == r.size || count == 1 && n < r.size)
}

// finish commits the run that is being put together, if there is one.
func (u *UDP) finish() {
	r := &u.run
	h := r.h
	if h == nil {
		return
	}
	r.h = nil
	if ip := h.ipLen() + wire.UDPLen; ip+r.size > u.mtu() || r.total > r.limit {
		u.sendPieces(h, r.at, r.total, r.size)
		return
	}
	out := u.env.Out
	out.Swap(0, r.at+u.shift)
	h.put(out.Peek(0), &u.guest, 0, r.total, r.size)
	out.Commit(1)
	u.shift--
}
