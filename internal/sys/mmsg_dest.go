package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Room of the control messages of one datagram that is sent on: an in6_pktinfo,
// the longer of the two kinds, and the UDP_SEGMENT size. Each is a multiple of
// eight octets long, as CMSG_SPACE has it on 64-bit machines.
const (
	pktinfoWords = (unix.SizeofCmsghdr + unix.SizeofInet6Pktinfo + 7) / 8
	segmentWords = (unix.SizeofCmsghdr + 2 + 7) / 8
)

// Dest is where an unconnected socket sends to: the peer's address, and the local
// address to send from. It must stay where it is while a RelayRow holds messages
// for it. The zero Dest leads nowhere.
type Dest struct {
	name Sockaddr
	ctl  [pktinfoWords]uint64
	len  int // octets of ctl in use
}

// ReplyDest makes d the way back for the i-th datagram: answers leave from the
// address it came to, or, if local says that no answer may (multicast,
// broadcast), from the one the kernel chooses. PacketInfo must have been asked
// for.
func (r *RecvRow) ReplyDest(i int, d *Dest, local bool) {
	*d = Dest{name: r.name[i]}
	d.name.len = r.hdr[i].hdr.Namelen
	if !local {
		return
	}
	if b := r.control(i, unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo); b != nil {
		d.put(unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		copy(d.data()[4:8], b[4:8]) // ipi_spec_dst; no interface is prescribed
		return
	}
	if b := r.control(i, unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo); b != nil {
		d.put(unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		copy(d.data()[:16], b[:16])
	}
}

// Set makes d the way to peer. What is sent leaves from the local address from,
// v4-mapped for IPv4; unspecified lets the kernel choose. An IPv6 socket that
// serves IPv4 as well wants a v4-mapped peer in an IPv6 Sockaddr.
func (d *Dest) Set(peer *Sockaddr, from *[16]byte) {
	d.name, d.len = *peer, 0
	v4 := isMapped(from)
	switch {
	case [4]byte(from[12:]) == [4]byte{} && (v4 || *from == [16]byte{}):
	case v4:
		d.ctl = [pktinfoWords]uint64{}
		d.put(unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		copy(d.data()[4:8], from[12:]) // ipi_spec_dst; no interface is prescribed
	default:
		d.ctl = [pktinfoWords]uint64{}
		d.put(unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		copy(d.data()[:16], from[:])
	}
}

// AnyAddress lets the kernel choose the address that answers leave from, and
// tells whether that is a change. Messages that were added before still ask for
// the old one, but for SendSingly.
func (d *Dest) AnyAddress() bool {
	had := d.len > 0
	d.len = 0
	return had
}

// put begins the control message, with size octets of data.
func (d *Dest) put(level, typ int32, size int) {
	c := (*unix.Cmsghdr)(unsafe.Pointer(&d.ctl[0]))
	c.Level, c.Type = level, typ
	c.SetLen(unix.SizeofCmsghdr + size)
	d.len = (unix.SizeofCmsghdr + size + 7) &^ 7
}

func (d *Dest) data() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&d.ctl[unix.SizeofCmsghdr/8])), pktinfoWords*8-unix.SizeofCmsghdr)
}

// SendTo is Send for an unconnected socket: all messages go to the same Dest.
func (s *SendRow) SendTo(fd, first int, to *Dest) (int, Errno) {
	for i := first; i < s.n; i++ {
		s.setDest(i, to)
	}
	n, errno := s.Send(fd, first)
	for i := first; i < s.n; i++ {
		s.hdr[i].hdr.Name, s.hdr[i].hdr.Namelen = nil, 0
	}
	return n, errno
}

// setDest addresses the i-th message, maybe for the second time.
func (s *SendRow) setDest(i int, to *Dest) {
	h, c := &s.hdr[i].hdr, &s.ctl[i]
	h.Name, h.Namelen = to.name.Ptr(), to.name.Len()
	at := sendSegment
	if h.Control == &c[0] { // it has a UDP_SEGMENT message
		at = 0
	}
	copy(c[sendSegment:], unsafe.Slice((*byte)(unsafe.Pointer(&to.ctl[0])), to.len))
	h.Control = nil
	h.SetControllen(0)
	if n := sendSegment - at + to.len; n > 0 {
		h.Control = &c[at]
		h.SetControllen(n)
	}
}

// RelayRow is a SendRow whose messages may each have a Dest, for sending from
// an unconnected socket. Owned by one thread.
type RelayRow struct {
	row *SendRow
	to  []*Dest
	ctl [][pktinfoWords + segmentWords]uint64
	one unix.Msghdr // of SendSingly
	iov Iovec
}

// NewRelayRow makes a row for up to n messages of n pieces in all.
func NewRelayRow(n int) *RelayRow {
	return &RelayRow{
		row: NewSendRow(n, n), to: make([]*Dest, n),
		ctl: make([][pktinfoWords + segmentWords]uint64, n),
	}
}

// Reset forgets all messages.
func (s *RelayRow) Reset() { s.row.Reset() }

// Len is the number of messages.
func (s *RelayRow) Len() int { return s.row.Len() }

// Room tells whether Add or Extend may be called.
func (s *RelayRow) Room() bool { return s.row.Room() }

// Extend adds a piece to the last message.
func (s *RelayRow) Extend(b []byte) { s.row.Extend(b) }

// Add starts a message with b, which may be empty and stays where it is (arena
// memory), to the peer of to; nil means the peer the socket is connected to.
func (s *RelayRow) Add(b []byte, to *Dest) {
	s.row.Add(b)
	i := s.row.n - 1
	s.to[i] = to
	address(&s.row.hdr[i].hdr, to)
}

func address(h *unix.Msghdr, to *Dest) {
	h.Name, h.Namelen, h.Control, h.Controllen = nil, 0, nil, 0
	if to == nil {
		return
	}
	h.Name, h.Namelen = to.name.Ptr(), to.name.Len()
	if to.len > 0 {
		h.Control = (*byte)(unsafe.Pointer(&to.ctl[0]))
		h.SetControllen(to.len)
	}
}

// Segment asks the kernel to send the last message as datagrams of size octets
// each, the last of them maybe shorter (UDP_SEGMENT).
func (s *RelayRow) Segment(size uint16) {
	i := s.row.n - 1
	b, words := &s.ctl[i], 0
	if to := s.to[i]; to != nil {
		words = to.len / 8
		copy(b[:words], to.ctl[:words])
	}
	c := (*unix.Cmsghdr)(unsafe.Pointer(&b[words]))
	c.Level, c.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	c.SetLen(unix.SizeofCmsghdr + 2)
	*(*uint16)(unsafe.Pointer(&b[words+unix.SizeofCmsghdr/8])) = size
	h := &s.row.hdr[i].hdr
	h.Control = (*byte)(unsafe.Pointer(&b[0]))
	h.SetControllen((words + segmentWords) * 8)
}

// Send is SendRow.Send.
func (s *RelayRow) Send(fd, first int) (int, Errno) { return s.row.Send(fd, first) }

// SendSingly sends the i-th message, which the kernel refused, as datagrams of size octets, one system call each, and returns how many went and
// the last refusal. Pieces are cut one by one: each but the last must be a
// multiple of size long.
func (s *RelayRow) SendSingly(fd, i, size int) (sent int, errno Errno) {
	h := &s.row.hdr[i].hdr
	address(&s.one, s.to[i])
	s.one.Iov = &s.iov
	s.one.SetIovlen(1)
	for _, piece := range unsafe.Slice(h.Iov, int(h.Iovlen)) {
		b := unsafe.Slice(piece.Base, int(piece.Len))
		for more := true; more; more = len(b) > 0 { // once for an empty datagram
			n := min(size, len(b))
			SetIovec(&s.iov, b[:n])
			b = b[n:]
			_, _, e := syscall.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.one)),
				unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if e != 0 {
				errno = e
				continue
			}
			sent++
		}
	}
	return sent, errno
}
