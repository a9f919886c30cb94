package udpx

import (
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
)

// maxCopy bounds the messages that are copied to join a run: a write to the tap
// costs as much as copying tens of kilobytes.
const maxCopy = 16 << 10

// run is the superpacket that is being put together from the messages of a row:
// datagrams of one length that came one behind the other, whether the kernel
// merged them (UDP_GRO) or the row has them one by one. A single datagram is a
// run of one. It lies in the frame of its first message.
//
// Receiving them right behind each other would need a second buffer for each
// message, for what is longer than expected. That costs the kernel as much as
// copying 1400 octets costs here, and saves a fifth of the time for those of
// 8972 (kernel 6.18).
type run struct {
	h     *header // nil: there is none
	at    int     // its first message
	size  int     // length of each datagram but the last
	total int     // octets
	count int     // datagrams
	limit int     // of total
	open  bool    // more may join
}

// room points the receive row at the next frames for the guest, want of them if
// possible, and returns how many.
//
// Message i is in the i-th frame behind the committed ones, and further ahead by
// u.moved once there are others. Frames are committed in the order of messages,
// each being swapped to the front first: that leaves the later ones where they
// are.
func (u *UDP) room(want int) int {
	out := u.env.Out
	if out.Room() < min(want, minRoom) {
		out.Flush()
	}
	n := min(want, out.Room())
	for i := range n {
		u.recv.SetBuf(i, payloadOf(out.Peek(i)))
	}
	u.moved = 0
	return n
}

// payloadOf is where the payload of a frame for the guest lies.
func payloadOf(f *ring.Frame) []byte {
	return f.Slot()[ring.PayloadOffset : ring.PayloadOffset+maxDatagram]
}

// emit sends the i-th message of the row to the guest under h, in one frame with
// those before it where that is possible. Messages are emitted in their order,
// or not at all; finish comes after the last.
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

// payload is where the i-th message of the row lies, unless it was sent.
func (u *UDP) payload(i int) []byte { return payloadOf(u.env.Out.Peek(i + u.moved)) }

// takes tells whether a message of n octets, count datagrams of size each, may
// join r: the last of a run may be shorter.
func (r *run) takes(n, size, count int) bool {
	return r.open && n > 0 && n <= maxCopy && r.total+n <= r.limit && r.count+count <= sys.MaxSegments &&
		(size == r.size || count == 1 && n < r.size)
}

// finish sends the run that is being put together, if there is one.
func (u *UDP) finish() {
	r := &u.run
	h := r.h
	if h == nil {
		return
	}
	r.h = nil
	if ip := h.ipLen() + wire.UDPLen; ip+r.size > u.mtu() || r.total > r.limit {
		u.apart(h, r.at, r.total, r.size)
		return
	}
	out := u.env.Out
	out.Swap(0, r.at+u.moved)
	h.put(out.Peek(0), &u.guest, 0, r.total, r.size)
	out.Commit(1)
	u.moved--
}
