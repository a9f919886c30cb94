package sys

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// quoteMax is how much of the packet that caused an error is kept: an ICMP
// error carries at most 576 octets (RFC 1812 section 4.3.2.3) or 1280 (RFC 4443
// section 2.4) in all.
const quoteMax = 1280

// ErrorQueue reads the errors that the kernel queued for sockets (ip(7),
// IP_RECVERR). All its memory is made by NewErrorQueue. Owned by one thread.
type ErrorQueue struct {
	hdr  unix.Msghdr
	iov  Iovec
	name Sockaddr
	ctl  [128]byte
	data [quoteMax]byte
	n    int
}

// NewErrorQueue makes a reader for any number of sockets.
func NewErrorQueue() *ErrorQueue {
	q := &ErrorQueue{}
	SetIovec(&q.iov, q.data[:])
	q.hdr.Name, q.hdr.Iov, q.hdr.Control = q.name.ptr(), &q.iov, &q.ctl[0]
	q.hdr.SetIovlen(1)
	return q
}

// SocketFault is one queued error.
type SocketFault struct {
	Errno Errno
	// ICMP tells that an ICMP or ICMPv6 message caused it: Type and Code are
	// those of the message. Else the kernel itself raised it.
	ICMP       bool
	Type, Code uint8
	// Info is the path MTU for messages that are too long.
	Info uint32
	// Offender sent the ICMP message (v4-mapped for IPv4).
	Offender [16]byte
	// HasOffender tells whether Offender is known.
	HasOffender bool
}

// Next takes the oldest queued error of fd into f and returns false when there
// is none. It does not block.
func (q *ErrorQueue) Next(fd int, f *SocketFault) bool {
	for {
		q.hdr.Namelen, q.hdr.Flags = sockaddrSize, 0
		q.hdr.SetControllen(len(q.ctl))
		n, _, errno := syscall.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&q.hdr)),
			unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if errno != 0 {
			return false
		}
		q.n = int(n)
		if q.parse(f) {
			return true
		}
	}
}

// Quote is the start of the packet that caused the last error: of its UDP
// payload, or, for ping sockets, from its ICMP header on. It may be empty, and
// is valid until the next call of Next.
func (q *ErrorQueue) Quote() []byte { return q.data[:q.n] }

// parse reads struct sock_extended_err, and the offender's address behind it.
func (q *ErrorQueue) parse(f *SocketFault) bool {
	const size = int(unsafe.Sizeof(unix.SockExtendedErr{}))
	ctl := q.ctl[:min(uint64(q.hdr.Controllen), uint64(len(q.ctl)))]
	b := findControl(ctl, unix.SOL_IP, unix.IP_RECVERR, size)
	if b == nil {
		b = findControl(ctl, unix.SOL_IPV6, unix.IPV6_RECVERR, size)
	}
	if b == nil {
		return false
	}
	*f = SocketFault{
		Errno: Errno(binary.NativeEndian.Uint32(b)), Type: b[5], Code: b[6],
		ICMP: b[4] == unix.SO_EE_ORIGIN_ICMP || b[4] == unix.SO_EE_ORIGIN_ICMP6,
		Info: binary.NativeEndian.Uint32(b[8:]),
	}
	var sa Sockaddr
	copy(sa.raw[:], b[size:])
	f.Offender, _, _, f.HasOffender = sa.Inet()
	return true
}
