package udpx

import (
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/ring"
)

// maxPieces bounds the datagrams of a superpacket from the guest: four times what any
// kernel makes (UDP_MAX_SEGMENTS), so that one frame cannot keep a shard busy for
// long.
const maxPieces = 512

// largeBuffer is the size of receive buffers, and of send buffers once the default
// was full. The kernel caps it at net.core.rmem_max and wmem_max.
const largeBuffer = 4 << 20

// message is the contents of one entry of the send row: the payloads of frames frames
// from f on, or the octets from..to of the payload of f alone.
type message struct {
	f        *ring.Frame
	frames   int
	from, to uint32
	segment  uint16 // length of each datagram but the last; 0: one datagram
	count    uint32 // datagrams
}

// cursor is a position in a flow's queue: a frame, and an offset into its payload if
// it is a superpacket.
type cursor struct {
	f   *ring.Frame
	off uint32
}

// transmit sends the frames queued on r and frees them.
func (u *UDP) transmit(r *record) {
	at := cursor{f: r.head}
	if r.via != 0 {
		u.setDest(r)
	}
	for at.f != nil {
		u.setTTL(r, at.f.H.TTL)
		first := at.f
		at = u.pack(r, at)
		u.sendRow(r)
		u.freeFrames(first, at.f)
	}
	r.head, r.tail = nil, nil
}

// freeFrames puts the frames from first up to, but not including, end into the pool.
func (u *UDP) freeFrames(first, end *ring.Frame) {
	for f := first; f != end; {
		next := f.Next
		u.env.Pool.Put(f)
		f = next
	}
}

// setTTL sets the socket's TTL to the guest's, so that traceroute works. The kernel's
// default is taken to be the usual one. A listener's socket keeps its TTL, since
// other flows share it.
func (u *UDP) setTTL(r *record, ttl uint8) {
	const usual = 64
	ttl = max(ttl, 1)
	if ttl == r.ttl || r.ttl == 0 && ttl == usual || r.via != 0 {
		return
	}
	if sys.SetTTL(r.fd, !r.peer.Is4(), ttl) == 0 {
		r.ttl = ttl
	}
}

// pack fills the send row with what is queued from at on, as long as there is room
// and the TTL is the same, and returns where it stopped.
func (u *UDP) pack(r *record, at cursor) cursor {
	u.send.Reset()
	ttl := at.f.H.TTL
	for at.f != nil && at.f.H.TTL == ttl && u.send.Room() {
		if superSize(at.f) != 0 {
			at = u.packSuper(r, at)
			continue
		}
		at = u.packRun(r, at)
	}
	return at
}

// superSize is the length of the datagrams in the superpacket f, 0 if f is one
// datagram.
func superSize(f *ring.Frame) uint32 {
	size := uint32(f.Offload.GSOSize)
	if f.Offload.GSOType != ring.GSOUDPL4 || size >= f.H.PayloadLen {
		return 0
	}
	return size
}

// packSuper adds one message: as many datagrams of the superpacket at at as
// UDP_SEGMENT allows.
func (u *UDP) packSuper(r *record, at cursor) cursor {
	size, n := superSize(at.f), at.f.H.PayloadLen
	m := message{f: at.f, frames: 1, from: at.off, to: min(at.off+size, n), count: 1}
	if u.segment && size <= uint32(r.segMax) {
		fit := min(sys.MaxSegments, sys.MaxSegmented/size)
		m.to = min(at.off+size*fit, n)
		m.count = (m.to - m.from + size - 1) / size
	}
	u.add(&m, at.f.L4Payload()[m.from:m.to], uint16(size))
	if m.to < n {
		return cursor{at.f, m.to}
	}
	return cursor{f: at.f.Next}
}

// packRun adds one message: the datagram at at and those of its run that follow.
func (u *UDP) packRun(r *record, at cursor) cursor {
	f := at.f
	size := f.H.PayloadLen
	m := message{f: f, frames: 1, to: size, count: 1}
	ttl, total, next := f.H.TTL, size, f.Next
	u.add(&m, f.L4Payload(), uint16(size))
	if !u.segment || size == 0 || size > uint32(r.segMax) {
		return cursor{f: next}
	}
	last := &u.msgs[u.send.Len()-1]
	for ; next != nil && u.joins(next, size, ttl); next = next.Next {
		n := next.H.PayloadLen
		total += n
		if total > sys.MaxSegmented || last.count == sys.MaxSegments || !u.send.RoomToExtend() {
			break
		}
		u.send.Extend(next.L4Payload())
		last.count++
		last.frames++
		if n < size {
			next = next.Next
			break
		}
	}
	if last.count > 1 {
		last.segment = uint16(size)
		u.send.Segment(last.segment)
	}
	return cursor{f: next}
}

// joins tells whether f may be the next of a run of datagrams of size octets.
func (u *UDP) joins(f *ring.Frame, size uint32, ttl uint8) bool {
	return f.H.TTL == ttl && f.H.PayloadLen > 0 && f.H.PayloadLen <= size && superSize(f) == 0
}

// add adds m, whose octets are b, to the send row.
func (u *UDP) add(m *message, b []byte, size uint16) {
	u.send.Add(b)
	if m.count > 1 {
		m.segment = size
		u.send.Segment(size)
	}
	u.msgs[u.send.Len()-1] = *m
}

// sendRow sends the packed row.
func (u *UDP) sendRow(r *record) {
	for i := 0; i < u.send.Len(); {
		n, errno := u.sendRetrying(r, u.send, i)
		for _, m := range u.msgs[i : i+n] {
			u.env.Count.UDPToHost += uint64(m.count)
		}
		i += n
		if errno == sys.EAGAIN {
			u.full(u.msgs[i:u.send.Len()])
			return
		}
		if errno != 0 {
			u.refused(r, &u.msgs[i], errno)
			i++
		}
	}
}

// full drops the messages that a full socket did not take, as a router with a full
// queue does.
func (u *UDP) full(msgs []message) {
	for i := range msgs {
		u.env.Count.Drops[stats.SocketFull] += uint64(msgs[i].count)
	}
}

// sendRetrying sends messages of row from the first-th on, and returns how many were
// sent and why the next one was not. It retries once where that may help: a pending
// ICMP error makes the next send fail, and a full buffer may grow.
func (u *UDP) sendRetrying(r *record, row *sys.SendRow, first int) (int, sys.Errno) {
	n, errno := u.sendmmsg(r, row, first)
	if errno != 0 && (u.retry(r, errno) || u.anySource(r, errno, row == u.replay || u.msgs[first].segment == 0)) {
		n, errno = u.sendmmsg(r, row, first)
	}
	return n, errno
}

// sendmmsg is one sendmmsg.
func (u *UDP) sendmmsg(r *record, row *sys.SendRow, first int) (int, sys.Errno) {
	if r.via != 0 {
		return row.SendTo(r.fd, first, &u.dest)
	}
	return row.Send(r.fd, first)
}

// retry tells whether to send the same message again after errno, and raises a full
// send buffer.
func (u *UDP) retry(r *record, errno sys.Errno) bool {
	switch errno {
	case sys.EAGAIN:
		if r.sendBufRaised {
			return false
		}
		r.sendBufRaised = true
		return sys.SetSendBuffer(r.fd, largeBuffer) == 0
	case sys.ENOBUFS, sys.EMSGSIZE, sys.EINVAL, sys.EIO:
		return false
	}
	return r.via == 0 // a listener's unconnected socket reports no ICMP errors
}

// refused handles a message that the kernel did not take: several datagrams are sent
// again one by one, a single one is lost.
func (u *UDP) refused(r *record, m *message, errno sys.Errno) {
	if m.segment != 0 && u.degrade(r, m, errno) {
		u.sendSingly(r, m)
		return
	}
	u.lost(r, m.f, m.count, errno)
}

// degrade tells whether errno means that UDP_SEGMENT was refused, and notes that: EIO
// for a device without checksum offload (kernels before 6.11), EINVAL or EMSGSIZE for
// datagrams longer than the path's MTU.
func (u *UDP) degrade(r *record, m *message, errno sys.Errno) bool {
	switch errno {
	case sys.EIO, sys.EOPNOTSUPP:
		u.segment = false
	case sys.EINVAL, sys.EMSGSIZE:
		r.segMax = min(r.segMax, m.segment-1)
	default:
		return false
	}
	return true
}

// sendSingly sends the datagrams of m one by one.
func (u *UDP) sendSingly(r *record, m *message) {
	f := m.f
	u.replay.Reset()
	if m.frames == 1 {
		b := f.L4Payload()
		for from := m.from; from < m.to; from += uint32(m.segment) {
			u.replay.Add(b[from:min(from+uint32(m.segment), m.to)])
		}
	} else {
		for range m.frames {
			u.replay.Add(f.L4Payload())
			f = f.Next
		}
	}
	for i := 0; i < u.replay.Len(); {
		n, errno := u.sendRetrying(r, u.replay, i)
		u.env.Count.UDPToHost += uint64(n)
		if i += n; errno != 0 {
			u.lost(r, m.f, 1, errno)
			i++
		}
	}
}

// lost counts count datagrams that could not be sent, f being the first, and tells
// the guest by ICMP where errno has a message.
func (u *UDP) lost(r *record, f *ring.Frame, count uint32, errno sys.Errno) {
	why := reasonOf(errno)
	if errno == sys.EAGAIN || errno == sys.ENOBUFS {
		why = stats.SocketFull
	}
	u.env.Count.Drops[why] += uint64(count)
	if errno == sys.EMSGSIZE {
		u.tooLong(r, f)
		return
	}
	u.notice.Reject(u.env, f, errno)
}
