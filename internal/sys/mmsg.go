package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2): the alignment of Msghdr pads it on
// every architecture that we build for.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// recvControl is room for the control messages of one received datagram: the
// GRO segment size (an int) and one in_pktinfo or in6_pktinfo.
const recvControl = 80

// RecvRow receives rows of datagrams with one recvmmsg each. All its memory is
// made by NewRecvRow; the buffers are the caller's. Owned by one thread. What
// the accessors return is valid until the next Recv.
type RecvRow struct {
	hdr  []mmsghdr
	iov  []Iovec
	name []Sockaddr
	ctl  [][recvControl]byte
}

// NewRecvRow makes a row for up to n datagrams.
func NewRecvRow(n int) *RecvRow {
	r := &RecvRow{
		hdr: make([]mmsghdr, n), iov: make([]Iovec, n),
		name: make([]Sockaddr, n), ctl: make([][recvControl]byte, n),
	}
	for i := range r.hdr {
		h := &r.hdr[i].hdr
		h.Name, h.Iov, h.Control = r.name[i].ptr(), &r.iov[i], &r.ctl[i][0]
		h.SetIovlen(1)
	}
	return r
}

// SetBuf says where the i-th datagram of the next Recv goes: into b, which
// stays where it is (arena memory).
func (r *RecvRow) SetBuf(i int, b []byte) { SetIovec(&r.iov[i], b) }

// Recv takes up to n datagrams from fd into the first n buffers and returns how
// many came. It does not block.
func (r *RecvRow) Recv(fd, n int) (int, Errno) {
	for i := range r.hdr[:n] {
		h := &r.hdr[i].hdr
		h.Namelen, h.Flags = sockaddrSize, 0
		h.SetControllen(recvControl)
	}
	got, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.hdr[0])),
		uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(got), 0
}

// Len is the length of the i-th datagram, in octets; with several segments in
// it (Segment), of all of them.
func (r *RecvRow) Len(i int) int { return int(r.hdr[i].len) }

// Data is the payload of the i-th datagram: the first Len octets of its buffer.
func (r *RecvRow) Data(i int) []byte { return unsafe.Slice(r.iov[i].Base, r.hdr[i].len) }

// Truncated tells whether the i-th datagram was longer than its buffer.
func (r *RecvRow) Truncated(i int) bool { return r.hdr[i].hdr.Flags&unix.MSG_TRUNC != 0 }

// From is the source of the i-th datagram.
func (r *RecvRow) From(i int) *Sockaddr { return &r.name[i] }

// Segment is the length of each of the datagrams that the i-th buffer holds
// one after the other, but for the last, which may be shorter (UDP_GRO); 0 if
// it holds one only.
func (r *RecvRow) Segment(i int) int {
	if b := r.control(i, unix.SOL_UDP, unix.UDP_GRO, 4); b != nil {
		return int(*(*int32)(unsafe.Pointer(&b[0])))
	}
	return 0
}

// Local is the local address the i-th datagram came to, v4-mapped for IPv4,
// once EnablePacketInfo was called. For broadcasts it is the address to reply from
// (ipi_spec_dst, ip(7)).
func (r *RecvRow) Local(i int) (ip [16]byte, ok bool) {
	if b := r.control(i, unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo); b != nil {
		return [16]byte{10: 0xff, 11: 0xff, 12: b[4], 13: b[5], 14: b[6], 15: b[7]}, true
	}
	if b := r.control(i, unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo); b != nil {
		return [16]byte(b[:16]), true
	}
	return ip, false
}

// control finds a control message of the i-th datagram with at least size
// octets of data.
func (r *RecvRow) control(i, level, typ, size int) []byte {
	n := min(uint64(r.hdr[i].hdr.Controllen), recvControl)
	return findControl(r.ctl[i][:n], level, typ, size)
}

// findControl walks control messages (cmsg(3)) that the kernel wrote into b.
func findControl(b []byte, level, typ, size int) []byte {
	const align = unsafe.Sizeof(uintptr(0))
	for len(b) >= unix.SizeofCmsghdr {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		n := uint64(c.Len)
		if n < unix.SizeofCmsghdr || n > uint64(len(b)) {
			return nil
		}
		if int(c.Level) == level && int(c.Type) == typ && n >= uint64(unix.SizeofCmsghdr+size) {
			return b[unix.SizeofCmsghdr:n]
		}
		b = b[min(uint64(len(b)), (n+uint64(align)-1)&^uint64(align-1)):]
	}
	return nil
}

// sendSegment is the room of a UDP_SEGMENT control message, sendControl that of a
// Dest's behind it as well.
const (
	sendSegment = unix.SizeofCmsghdr + 8
	sendControl = sendSegment + pktinfoWords*8
)

// SendRow sends rows of messages over a datagram socket with one sendmmsg each:
// Send where it is connected, SendTo where it is not. A message gathers one or more pieces. All its memory is made
// by NewSendRow; the pieces are the caller's. Owned by one thread.
type SendRow struct {
	hdr  []mmsghdr
	iov  []Iovec
	ctl  [][sendControl]byte
	n    int // messages added
	niov int // pieces added

	one    unix.Msghdr // of SendSingly
	oneIov Iovec
}

// NewSendRow makes a row for up to msgs messages and pieces pieces in all.
func NewSendRow(msgs, pieces int) *SendRow {
	s := &SendRow{hdr: make([]mmsghdr, msgs), iov: make([]Iovec, pieces), ctl: make([][sendControl]byte, msgs)}
	for i := range s.ctl {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&s.ctl[i][0]))
		c.Level, c.Type = unix.SOL_UDP, unix.UDP_SEGMENT
		c.SetLen(unix.SizeofCmsghdr + 2)
	}
	return s
}

// Reset forgets all messages.
func (s *SendRow) Reset() { s.n, s.niov = 0, 0 }

// Len is the number of messages.
func (s *SendRow) Len() int { return s.n }

// Room tells whether Add may be called.
func (s *SendRow) Room() bool { return s.n < len(s.hdr) && s.niov < len(s.iov) }

// RoomToExtend tells whether Extend may be called.
func (s *SendRow) RoomToExtend() bool { return s.niov < len(s.iov) }

// Add starts a message with b, which may be empty and stays where it is (arena
// memory). There must be Room.
func (s *SendRow) Add(b []byte) {
	SetIovec(&s.iov[s.niov], b)
	h := &s.hdr[s.n].hdr
	h.Iov, h.Control, h.Controllen = &s.iov[s.niov], nil, 0
	h.SetIovlen(1)
	s.niov++
	s.n++
}

// Extend adds a piece to the last message.
func (s *SendRow) Extend(b []byte) {
	SetIovec(&s.iov[s.niov], b)
	h := &s.hdr[s.n-1].hdr
	h.SetIovlen(int(h.Iovlen) + 1)
	s.niov++
}

// Segment asks the kernel to send the last message as datagrams of size octets
// each, the last of them maybe shorter (UDP_SEGMENT).
func (s *SendRow) Segment(size uint16) {
	c := &s.ctl[s.n-1]
	*(*uint16)(unsafe.Pointer(&c[unix.SizeofCmsghdr])) = size
	h := &s.hdr[s.n-1].hdr
	h.Control = &c[0]
	h.SetControllen(sendSegment)
}

// Send sends the messages from the first-th on and returns how many the kernel
// took; errno says why the next one was refused, if the very first was. It does
// not block.
func (s *SendRow) Send(fd, first int) (int, Errno) {
	got, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.hdr[first])),
		uintptr(s.n-first), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(got), 0
}
