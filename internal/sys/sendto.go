package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Lead makes t the way to peer. What is sent leaves from the local address from,
// v4-mapped for IPv4; unspecified lets the kernel choose. An IPv6 socket that
// serves IPv4 as well wants a v4-mapped peer in an IPv6 Sockaddr.
func (t *Return) Lead(peer *Sockaddr, from *[16]byte) {
	t.name, t.len = *peer, 0
	v4 := isMapped(from)
	switch {
	case [4]byte(from[12:]) == [4]byte{} && (v4 || *from == [16]byte{}):
	case v4:
		t.ctl = [pktinfoWords]uint64{}
		t.put(unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		copy(t.data()[4:8], from[12:]) // ipi_spec_dst; no interface is prescribed
	default:
		t.ctl = [pktinfoWords]uint64{}
		t.put(unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		copy(t.data()[:16], from[:])
	}
}

// SendTo is Send for an unconnected socket: all messages go the way that to
// leads.
func (s *SendRow) SendTo(fd, first int, to *Return) (int, Errno) {
	for i := first; i < s.n; i++ {
		s.lead(i, to)
	}
	n, errno := s.Send(fd, first)
	for i := first; i < s.n; i++ {
		s.hdr[i].hdr.Name, s.hdr[i].hdr.Namelen = nil, 0
	}
	return n, errno
}

// lead addresses the i-th message, maybe for the second time.
func (s *SendRow) lead(i int, to *Return) {
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
