package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Options and events of stream sockets that the TCP translator uses.
const (
	SOL_SOCKET              = unix.SOL_SOCKET
	SO_KEEPALIVE            = unix.SO_KEEPALIVE
	SO_OOBINLINE            = unix.SO_OOBINLINE
	SO_PEEK_OFF             = unix.SO_PEEK_OFF
	TCP_NODELAY             = unix.TCP_NODELAY
	IPPROTO_IP              = unix.IPPROTO_IP
	IP_BIND_ADDRESS_NO_PORT = unix.IP_BIND_ADDRESS_NO_PORT
	ENETDOWN                = unix.ENETDOWN
	EHOSTDOWN               = unix.EHOSTDOWN
	ENOSPC                  = unix.ENOSPC // epoll_ctl: max_user_watches is reached
	EPOLLPRI                = unix.EPOLLPRI
)

// SendIov writes the pieces of iov, in order, to the stream socket fd. It never
// blocks and never raises SIGPIPE. A count below the sum of the pieces means
// that EPOLLOUT follows: the kernel has noted the lack of room (SOCK_NOSPACE).
func SendIov(fd int, iov []Iovec) (int, Errno) {
	if len(iov) == 1 { // the same, without a message header to copy
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(iov[0].Base)), uintptr(iov[0].Len),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		return int(n), errno
	}
	var m unix.Msghdr
	m.Iov = unsafe.SliceData(iov)
	m.SetIovlen(len(iov))
	n, _, errno := syscall.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&m)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return int(n), errno
}

// PeekIov copies what waits in the stream socket fd, from its SO_PEEK_OFF
// offset on, into the pieces of iov and leaves it in the socket. It never
// blocks; 0 octets mean the end of the stream.
func PeekIov(fd int, iov []Iovec) (int, Errno) {
	if len(iov) == 1 { // the same, without a message header to copy
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(iov[0].Base)), uintptr(iov[0].Len),
			unix.MSG_DONTWAIT|unix.MSG_PEEK, 0, 0)
		return int(n), errno
	}
	var m unix.Msghdr
	m.Iov = unsafe.SliceData(iov)
	m.SetIovlen(len(iov))
	n, _, errno := syscall.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&m)),
		unix.MSG_DONTWAIT|unix.MSG_PEEK)
	return int(n), errno
}

// Discard takes up to n octets out of the stream socket fd without copying them
// (MSG_TRUNC, tcp(7)). SO_PEEK_OFF moves back by as much (kernel 6.9 for IPv4,
// 6.11 for IPv6).
func Discard(fd, n int) (int, Errno) {
	r, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), 0, uintptr(n),
		unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
	return int(r), errno
}

// OutQueue is the number of octets written to the stream socket fd that its
// peer has not acknowledged (SIOCOUTQ); a FIN that shutdown queued counts as one.
func OutQueue(fd int) (int, Errno) {
	var v int32
	_, _, errno := syscall.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCOUTQ, uintptr(unsafe.Pointer(&v)))
	return int(v), errno
}

// TCPOver tells whether the connection of the stream socket fd is over at both ends, in
// TIME-WAIT at most: the kernel may give its addresses and ports to another one
// (tcpi_state, the first octet of TCP_INFO, is TCP_CLOSE).
func TCPOver(fd int) bool {
	const tcpClose = 7
	var info unix.TCPInfo
	errno := tcpInfo(fd, &info, uint32(unsafe.Sizeof(info.State)))
	return errno == 0 && info.State == tcpClose
}

// rttEnd is as far as TCPRTT reads: up to and with tcpi_min_rtt.
const rttEnd = uint32(unsafe.Offsetof(unix.TCPInfo{}.Min_rtt) + 4)

// TCPRTT is the smoothed and the minimum round-trip time of the path of the
// connected stream socket fd, in microseconds (TCP_INFO).
func TCPRTT(fd int) (smoothed, minimum uint32, errno Errno) {
	var info unix.TCPInfo
	errno = tcpInfo(fd, &info, rttEnd)
	return info.Rtt, info.Min_rtt, errno
}

// tcpInfo reads the first size octets of TCP_INFO.
func tcpInfo(fd int, info *unix.TCPInfo, size uint32) Errno {
	_, _, errno := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(info)), uintptr(unsafe.Pointer(&size)), 0)
	return errno
}
