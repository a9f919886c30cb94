package relay

import (
	"penne/internal/stats"
	"penne/internal/sys"
)

// burst is what is being sent to one socket.
type burst struct {
	row     *sys.SendRow
	part    [row]part
	fd      int
	to      *sys.Dest
	segMax  uint16
	refused uint64 // datagrams lost to ICMP port unreachable
}

// part is what one message of the row carries: datagrams of size octets, the
// last maybe shorter.
type part struct {
	size, count uint16
	total       uint32 // octets
	open        bool   // more datagrams may join
}

// begin starts a burst to fd; to is nil for a connected socket. Segments are
// segMax octets long at most.
func (b *burst) begin(fd int, to *sys.Dest, segMax uint16) {
	b.row.Reset()
	b.fd, b.to, b.segMax, b.refused = fd, to, segMax, 0
}

// message adds the i-th message of in: as it is, where the kernel merged
// datagrams (UDP_GRO) and can cut them again.
func (r *Relay) message(in *sys.RecvRow, i int) {
	data, size := in.Data(i), in.Segment(i)
	if size == 0 || size >= len(data) {
		r.datagram(data)
		return
	}
	if r.segment && size <= int(r.out.segMax) {
		r.merged(data, size)
		return
	}
	for len(data) > 0 {
		n := min(size, len(data))
		r.datagram(data[:n])
		data = data[n:]
	}
}

// merged adds a row of datagrams of size octets.
func (r *Relay) merged(data []byte, size int) {
	b := &r.out
	r.reserve()
	b.row.Add(data)
	b.row.Segment(uint16(size))
	b.part[b.row.Len()-1] = part{size: uint16(size), count: uint16((len(data) + size - 1) / size), total: uint32(len(data))}
}

// datagram adds one datagram; those of equal length go out as one message.
func (r *Relay) datagram(data []byte) {
	b := &r.out
	r.reserve()
	n := len(data)
	if p := b.last(); p != nil && p.takes(n) {
		b.row.Extend(data)
		p.count++
		p.total += uint32(n)
		p.open = n == int(p.size)
		if p.count == 2 {
			b.row.Segment(p.size)
		}
		return
	}
	b.row.Add(data)
	b.part[b.row.Len()-1] = part{
		size: uint16(n), count: 1, total: uint32(n),
		open: r.segment && n > 0 && n <= int(b.segMax),
	}
}

func (b *burst) last() *part {
	if b.row.Len() == 0 {
		return nil
	}
	return &b.part[b.row.Len()-1]
}

// takes tells whether a datagram of n octets may join p.
func (p *part) takes(n int) bool {
	return p.open && n > 0 && n <= int(p.size) && p.count < sys.MaxSegments && p.total+uint32(n) <= sys.MaxSegmented
}

// reserve makes room for one more message or piece.
func (r *Relay) reserve() {
	if !r.out.row.Room() {
		r.flush()
	}
}

// flush sends what was added. What the sockets refuse is lost, as on any
// network, and counted.
func (r *Relay) flush() {
	b := &r.out
	for i := 0; i < b.row.Len(); {
		n, errno := b.send(i)
		for _, p := range b.part[i : i+n] {
			r.env.Count.SplicedBytes += uint64(p.total)
		}
		if i += n; errno == 0 {
			continue
		}
		p := &b.part[i]
		switch {
		case errno == sys.ECONNREFUSED && b.to == nil:
			b.refused += b.rest(i)
			i = b.row.Len()
		case errno == sys.EAGAIN:
			r.env.Count.Drops[stats.SocketFull] += b.rest(i)
			i = b.row.Len()
		case p.count > 1 && r.degrade(p, errno), b.to != nil && noSource(errno):
			r.singly(i, p)
		default:
			r.env.Count.Drops[reasonOf(errno)] += uint64(p.count)
		}
		i++
	}
	b.row.Reset()
}

// send sends the messages from the first-th on, as SendRow.Send does.
func (b *burst) send(first int) (int, sys.Errno) {
	if b.to == nil {
		return b.row.Send(b.fd, first)
	}
	return b.row.SendTo(b.fd, first, b.to)
}

// rest counts the datagrams from the i-th message on.
func (b *burst) rest(i int) (n uint64) {
	for _, p := range b.part[i:b.row.Len()] {
		n += uint64(p.count)
	}
	return n
}

// degrade notes that UDP_SEGMENT was refused, and tells whether that is what
// errno means: EIO where the device cannot sum (kernels before 6.11), else that
// datagrams of this length do not fit the path's MTU.
func (r *Relay) degrade(p *part, errno sys.Errno) bool {
	switch errno {
	case sys.EIO, sys.EOPNOTSUPP:
		r.segment = false
	case sys.EINVAL, sys.EMSGSIZE:
		r.out.segMax = min(r.out.segMax, p.size-1)
	default:
		return false
	}
	return true
}

// noSource tells whether errno may mean that the address to answer from is no
// address of this machine's: EINVAL for IPv6, ENETUNREACH for IPv4.
func noSource(errno sys.Errno) bool { return errno == sys.EINVAL || errno == sys.ENETUNREACH }

// singly sends the datagrams of the i-th message one by one. If it is the
// address to answer from that the kernel does not take, it chooses one itself:
// the peer may have written to a broadcast address, which a dual-stack socket
// does not tell from others.
func (r *Relay) singly(i int, p *part) {
	b := &r.out
	sent, errno := b.row.SendSingly(b.fd, i, int(p.size), b.to)
	if sent == 0 && noSource(errno) && b.to != nil && b.to.AnyAddress() {
		sent, errno = b.row.SendSingly(b.fd, i, int(p.size), b.to)
	}
	r.env.Count.SplicedBytes += min(uint64(sent)*uint64(p.size), uint64(p.total))
	if lost := int(p.count) - sent; lost > 0 {
		r.env.Count.Drops[reasonOf(errno)] += uint64(lost)
	}
}
