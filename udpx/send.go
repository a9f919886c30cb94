package udpx

import (
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/ring"
)

// maxPieces bounds the datagrams of a superpacket: four times what any kernel
// makes (UDP_MAX_SEGMENTS), so that one frame cannot keep a shard busy for long.
const maxPieces = 512

// wideBuffer is what a socket's buffer is raised to when the default proves
// small; the kernel caps it at net.core.wmem_max or rmem_max.
const wideBuffer = 4 << 20

// message is what went into one entry of the send row: frames whole datagrams,
// from f on, or the octets from..to of the payload of f alone.
type message struct {
	f        *ring.Frame
	frames   int
	from, to uint32
	segment  uint16 // length of each datagram but the last; 0: one datagram
	count    uint32 // datagrams
}

// cursor is a place in a flow's queue: a frame, and an offset into the payload
// of a superpacket.
type cursor struct {
	f   *ring.Frame
	off uint32
}

// transmit sends the frames queued on r and gives them back.
func (u *UDP) transmit(r *record) {
	at := cursor{f: r.head}
	if r.via != 0 {
		u.lead(r)
	}
	for at.f != nil {
		u.hops(r, at.f.H.TTL)
		first := at.f
		at = u.pack(r, at)
		u.sendRow(r)
		u.giveBack(first, at.f)
	}
	r.head, r.tail = nil, nil
}

// giveBack puts the frames from first up to, and without, end into the pool.
func (u *UDP) giveBack(first, end *ring.Frame) {
	for f := first; f != end; {
		next := f.Next
		u.env.Pool.Put(f)
		f = next
	}
}

// hops makes the socket's TTL the guest's, so that traceroute works. The
// kernel's own default is taken to be the usual one. A listener's socket keeps
// its own: it serves others as well.
func (u *UDP) hops(r *record, ttl uint8) {
	const usual = 64
	ttl = max(ttl, 1)
	if ttl == r.ttl || r.ttl == 0 && ttl == usual || r.via != 0 {
		return
	}
	if sys.SetTTL(r.fd, !r.peer.Is4(), ttl) == 0 {
		r.ttl = ttl
	}
}

// pack fills the send row from at on, as far as there is room and the TTL stays
// the same, and returns where it ended.
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

// packSuper adds one message from a superpacket: as many of its datagrams as
// one send takes.
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

// packRun adds one message of the datagram at at and those after it of the same
// length; a shorter one ends the run.
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

// joins tells whether f may follow in a run of datagrams of size octets.
func (u *UDP) joins(f *ring.Frame, size uint32, ttl uint8) bool {
	return f.H.TTL == ttl && f.H.PayloadLen > 0 && f.H.PayloadLen <= size && superSize(f) == 0
}

// add adds m, whose payload is b, to the send row.
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
		n, errno := u.push(r, u.send, i)
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

// full counts the messages that a full socket did not take: a router with a
// full queue drops as well.
func (u *UDP) full(msgs []message) {
	for i := range msgs {
		u.env.Count.Drops[stats.SocketFull] += uint64(msgs[i].count)
	}
}

// push sends messages of row from the first-th on, and returns how many went
// and why the next one did not. A refusal is tried once more: a pending ICMP
// error is reported in place of the next send, and a full buffer may grow.
func (u *UDP) push(r *record, row *sys.SendRow, first int) (int, sys.Errno) {
	n, errno := u.post(r, row, first)
	if errno != 0 && (u.retry(r, errno) || u.anySource(r, errno, row == u.replay || u.msgs[first].segment == 0)) {
		n, errno = u.post(r, row, first)
	}
	return n, errno
}

// post is one sendmmsg.
func (u *UDP) post(r *record, row *sys.SendRow, first int) (int, sys.Errno) {
	if r.via != 0 {
		return row.SendTo(r.fd, first, &u.way)
	}
	return row.Send(r.fd, first)
}

// retry tells whether to send the same message again after errno.
func (u *UDP) retry(r *record, errno sys.Errno) bool {
	switch errno {
	case sys.EAGAIN:
		if r.wideSend {
			return false
		}
		r.wideSend = true
		return sys.SetSendBuffer(r.fd, wideBuffer) == 0
	case sys.ENOBUFS, sys.EMSGSIZE, sys.EINVAL, sys.EIO:
		return false
	}
	return r.via == 0 // who shares a socket hears of no ICMP errors
}

// refused deals with a message the kernel did not take: one of several
// datagrams is sent again as single ones, else it is lost, as on any network,
// and the guest is told why if there is a way.
func (u *UDP) refused(r *record, m *message, errno sys.Errno) {
	if m.segment != 0 && u.degrade(r, m, errno) {
		u.sendSingly(r, m)
		return
	}
	u.lost(r, m.f, m.count, errno)
}

// degrade notes that UDP_SEGMENT was refused, and tells whether that is what
// errno means: EIO where the device cannot sum (kernels before 6.11), else that
// datagrams of this length do not fit the path's MTU.
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
		n, errno := u.push(r, u.replay, i)
		u.env.Count.UDPToHost += uint64(n)
		if i += n; errno != 0 {
			u.lost(r, m.f, 1, errno)
			i++
		}
	}
}

// lost counts count datagrams that could not be sent, f being the first.
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
