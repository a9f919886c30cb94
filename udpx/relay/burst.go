package relay

import (
	"penne/internal/stats"
	"penne/internal/sys"
)

// burst is a row of messages to be sent by one socket.
type burst struct {
	row     *sys.SendRow
	part    [rowSize]part
	fd      int
	to      *sys.Dest
	segMax  uint16
	refused uint64 // datagrams lost to ICMP port unreachable
}

// part describes one message of the row: datagrams of size octets, of which the
// last may be shorter.
type part struct {
	size, count uint16
	total       uint32 // octets
	open        bool   // more datagrams may join
}

// begin starts a burst by fd; to is nil for a connected socket. Segments are at
// most segMax octets long.
func (b *burst) begin(fd int, to *sys.Dest, segMax uint16) {
	b.row.Reset()
	b.fd, b.to, b.segMax, b.refused = fd, to, segMax, 0
}

// addMessage adds the i-th message of in; what the kernel merged (UDP_GRO) stays
// one message, if the kernel can split it again.
func (r *Relay) addMessage(in *sys.RecvRow, i int) {
	data, size := in.Data(i), in.Segment(i)
	if size == 0 || size >= len(data) {
		r.addDatagram(data)
		return
	}
	if r.segment && size <= int(r.out.segMax) {
		r.addMerged(data, size)
		return
	}
	for len(data) > 0 {
		n := min(size, len(data))
		r.addDatagram(data[:n])
		data = data[n:]
	}
}

// addMerged adds merged datagrams of size octets as one message.
func (r *Relay) addMerged(data []byte, size int) {
	b := &r.out
	r.reserve()
	b.row.Add(data)
	b.row.Segment(uint16(size))
	b.part[b.row.Len()-1] = part{size: uint16(size), count: uint16((len(data) + size - 1) / size), total: uint32(len(data))}
}

// addDatagram adds one datagram, to the last message if it has the same length.
func (r *Relay) addDatagram(data []byte) {
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

// flush sends what was added. What the socket refuses is dropped and counted.
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
			r.sendSingly(i, p)
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

// degrade tells whether errno means that UDP_SEGMENT was refused, and notes it:
// EIO from a device without checksum offload (kernels before 6.11), else segments
// of this length do not fit the path's MTU.
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

// noSource tells whether errno may mean that the source address is none of this
// machine's: EINVAL for IPv6, ENETUNREACH for IPv4.
func noSource(errno sys.Errno) bool { return errno == sys.EINVAL || errno == sys.ENETUNREACH }

// sendSingly sends the datagrams of the i-th message one by one. If the kernel
// refuses the source address, it chooses one itself: the peer may have sent to a
// broadcast address, which a dual-stack socket does not tell from others.
func (r *Relay) sendSingly(i int, p *part) {
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
