package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pktinfoWords is the room of one in6_pktinfo control message, the longer of the
// two kinds, in words of eight octets: CMSG_SPACE of 64-bit machines.
const pktinfoWords = (unix.SizeofCmsghdr + unix.SizeofInet6Pktinfo + 7) / 8

// Dest is where an unconnected socket sends to: the peer's address, and the local
// address to send from. The zero Dest is no address.
type Dest struct {
	name Sockaddr
	ctl  [pktinfoWords]uint64
	len  int // octets of ctl in use
}

// ReplyDest sets d to reply to the i-th datagram: with local, from the address it
// was sent to, else (multicast, broadcast) from one that the kernel chooses.
// EnablePacketInfo must have been called.
func (r *RecvRow) ReplyDest(i int, d *Dest, local bool) {
	*d = Dest{name: r.name[i]}
	d.name.len = r.hdr[i].hdr.Namelen
	if !local {
		return
	}
	if b := r.control(i, unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo); b != nil {
		d.put(unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		copy(d.data()[4:8], b[4:8]) // ipi_spec_dst; ipi_ifindex 0 is any interface
		return
	}
	if b := r.control(i, unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo); b != nil {
		d.put(unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		copy(d.data()[:16], b[:16])
	}
}

// Set sets d to send to peer from the local address from, v4-mapped for IPv4;
// if that is unspecified, the kernel chooses. For a dual-stack socket an IPv4
// peer must be v4-mapped, in an IPv6 Sockaddr.
func (d *Dest) Set(peer *Sockaddr, from *[16]byte) {
	d.name, d.len = *peer, 0
	v4 := isMapped(from)
	switch {
	case [4]byte(from[12:]) == [4]byte{} && (v4 || *from == [16]byte{}):
	case v4:
		d.ctl = [pktinfoWords]uint64{}
		d.put(unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		copy(d.data()[4:8], from[12:]) // ipi_spec_dst; ipi_ifindex 0 is any interface
	default:
		d.ctl = [pktinfoWords]uint64{}
		d.put(unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		copy(d.data()[:16], from[:])
	}
}

// AnyAddress lets the kernel choose the source address, and tells whether that
// is a change.
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
	h.Name, h.Namelen = to.name.ptr(), to.name.Len()
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

// SendSingly sends the i-th message, which the kernel refused, as datagrams of
// size octets with a system call each, to the Dest if it is not nil. It returns
// how many were sent and the last error. Each piece of the message but the last
// must be a multiple of size long. It does not block.
func (s *SendRow) SendSingly(fd, i, size int, to *Dest) (sent int, errno Errno) {
	h := &s.hdr[i].hdr
	s.one = unix.Msghdr{Iov: &s.oneIov}
	s.one.SetIovlen(1)
	if to != nil {
		s.one.Name, s.one.Namelen = to.name.ptr(), to.name.Len()
		if to.len > 0 {
			s.one.Control = (*byte)(unsafe.Pointer(&to.ctl[0]))
			s.one.SetControllen(to.len)
		}
	}
	for _, piece := range unsafe.Slice(h.Iov, int(h.Iovlen)) {
		b := unsafe.Slice(piece.Base, int(piece.Len))
		for more := true; more; more = len(b) > 0 { // once for an empty datagram
			n := min(size, len(b))
			SetIovec(&s.oneIov, b[:n])
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
