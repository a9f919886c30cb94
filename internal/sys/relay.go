package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Data is what the i-th datagram brought: the first Len octets of its buffer.
func (r *RecvRow) Data(i int) []byte { return unsafe.Slice(r.iov[i].Base, r.hdr[i].len) }

// Room of the control messages of one datagram that is sent on: an in6_pktinfo,
// the longer of the two kinds, and the UDP_SEGMENT size. Each is a multiple of
// eight octets long, as CMSG_SPACE has it on 64-bit machines.
const (
	pktinfoWords = (unix.SizeofCmsghdr + unix.SizeofInet6Pktinfo + 7) / 8
	segmentWords = (unix.SizeofCmsghdr + 2 + 7) / 8
)

// Return is the way back to the peer of an unconnected socket: the peer's
// address, and the local address to answer from. It must stay where it is while
// a RelayRow holds messages for it. The zero Return leads nowhere.
type Return struct {
	name Sockaddr
	ctl  [pktinfoWords]uint64
	len  int // octets of ctl in use
}

// Return writes the way back for the i-th datagram into t: answers leave from
// the address it came to, or, if local says that no answer may (multicast,
// broadcast), from the one the kernel chooses. PacketInfo must have been asked
// for.
func (r *RecvRow) Return(i int, t *Return, local bool) {
	*t = Return{name: r.name[i]}
	t.name.len = r.hdr[i].hdr.Namelen
	if !local {
		return
	}
	if b := r.control(i, unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo); b != nil {
		t.put(unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		copy(t.data()[4:8], b[4:8]) // ipi_spec_dst; no interface is prescribed
		return
	}
	if b := r.control(i, unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo); b != nil {
		t.put(unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		copy(t.data()[:16], b[:16])
	}
}

// AnyAddress lets the kernel choose the address that answers leave from, and
// tells whether that is a change. Messages that were added before still ask for
// the old one, but for SendSingly.
func (t *Return) AnyAddress() bool {
	had := t.len > 0
	t.len = 0
	return had
}

// put begins the control message, with size octets of data.
func (t *Return) put(level, typ int32, size int) {
	c := (*unix.Cmsghdr)(unsafe.Pointer(&t.ctl[0]))
	c.Level, c.Type = level, typ
	c.SetLen(unix.SizeofCmsghdr + size)
	t.len = (unix.SizeofCmsghdr + size + 7) &^ 7
}

func (t *Return) data() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&t.ctl[unix.SizeofCmsghdr/8])), pktinfoWords*8-unix.SizeofCmsghdr)
}

// RelayRow is a SendRow whose messages may each have a Return, for sending from
// an unconnected socket. Owned by one thread.
type RelayRow struct {
	row *SendRow
	to  []*Return
	ctl [][pktinfoWords + segmentWords]uint64
	one unix.Msghdr // of SendSingly
	iov Iovec
}

// NewRelayRow makes a row for up to n messages of n pieces in all.
func NewRelayRow(n int) *RelayRow {
	return &RelayRow{
		row: NewSendRow(n, n), to: make([]*Return, n),
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
func (s *RelayRow) Add(b []byte, to *Return) {
	s.row.Add(b)
	i := s.row.n - 1
	s.to[i] = to
	address(&s.row.hdr[i].hdr, to)
}

func address(h *unix.Msghdr, to *Return) {
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
