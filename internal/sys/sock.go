package sys

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Families, types and protocols of sockets that penne makes.
const (
	AF_INET        = unix.AF_INET
	AF_INET6       = unix.AF_INET6
	SOCK_STREAM    = unix.SOCK_STREAM
	SOCK_DGRAM     = unix.SOCK_DGRAM
	IPPROTO_TCP    = unix.IPPROTO_TCP
	IPPROTO_UDP    = unix.IPPROTO_UDP
	IPPROTO_ICMP   = unix.IPPROTO_ICMP
	IPPROTO_ICMPV6 = unix.IPPROTO_ICMPV6
	SHUT_WR        = unix.SHUT_WR
)

// Family is the address family of IPv4 or IPv6.
func Family(v4 bool) int {
	if v4 {
		return AF_INET
	}
	return AF_INET6
}

// Sockaddr is a struct sockaddr_in or sockaddr_in6 as the kernel wants it,
// with its length. The zero value is empty (AF_UNSPEC).
type Sockaddr struct {
	raw [sockaddrSize]byte
	len uint32
}

// SetInet makes s an IPv4 address when v4 is set (the last four octets of ip
// count), else an IPv6 one. scope is the interface index for link-local IPv6
// addresses, else 0.
func (s *Sockaddr) SetInet(ip *[16]byte, v4 bool, port uint16, scope uint32) {
	s.raw = [sockaddrSize]byte{}
	s.raw[2], s.raw[3] = byte(port>>8), byte(port)
	if v4 {
		*(*uint16)(unsafe.Pointer(&s.raw[0])) = unix.AF_INET
		copy(s.raw[4:8], ip[12:])
		s.len = unix.SizeofSockaddrInet4
		return
	}
	*(*uint16)(unsafe.Pointer(&s.raw[0])) = unix.AF_INET6
	copy(s.raw[8:24], ip[:])
	*(*uint32)(unsafe.Pointer(&s.raw[24])) = scope
	s.len = unix.SizeofSockaddrInet6
}

// Inet reads the address back; IPv4 comes out v4-mapped. ok is false for any
// other family.
func (s *Sockaddr) Inet() (ip [16]byte, port uint16, scope uint32, ok bool) {
	port = uint16(s.raw[2])<<8 | uint16(s.raw[3])
	switch *(*uint16)(unsafe.Pointer(&s.raw[0])) {
	case unix.AF_INET:
		ip = [16]byte{10: 0xff, 11: 0xff, 12: s.raw[4], 13: s.raw[5], 14: s.raw[6], 15: s.raw[7]}
		return ip, port, 0, true
	case unix.AF_INET6:
		copy(ip[:], s.raw[8:24])
		return ip, port, *(*uint32)(unsafe.Pointer(&s.raw[24])), true
	}
	return ip, 0, 0, false
}

// sockaddrSize is the room that the kernel may fill when it writes an address.
const sockaddrSize = unix.SizeofSockaddrInet6

// ptr is for a msghdr, and valid as long as s is.
func (s *Sockaddr) ptr() *byte { return &s.raw[0] }

// Len is the length of the address in octets.
func (s *Sockaddr) Len() uint32 { return s.len }

// SetLen is called after the kernel has written n octets into s.
func (s *Sockaddr) SetLen(n uint32) { s.len = n }

// Socket makes a non-blocking, close-on-exec socket.
func Socket(family, typ, proto int) (int, Errno) {
	fd, _, errno := syscall.RawSyscall(unix.SYS_SOCKET, uintptr(family),
		uintptr(typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC), uintptr(proto))
	return int(fd), errno
}

// Close closes fd. It is raw: sockets without SO_LINGER do not block in close.
func Close(fd int) Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
	return errno
}

// Bind binds fd to sa.
func Bind(fd int, sa *Sockaddr) Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&sa.raw[0])), uintptr(sa.len))
	return errno
}

// Connect connects fd to sa; a stream socket answers EINPROGRESS.
func Connect(fd int, sa *Sockaddr) Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa.raw[0])), uintptr(sa.len))
	return errno
}

// Listen makes fd accept connections.
func Listen(fd, backlog int) Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_LISTEN, uintptr(fd), uintptr(backlog), 0)
	return errno
}

// Accept takes one connection from fd, non-blocking and close-on-exec, and
// writes the peer's address into sa.
func Accept(fd int, sa *Sockaddr) (int, Errno) {
	sa.len = sockaddrSize
	n, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&sa.raw[0])),
		uintptr(unsafe.Pointer(&sa.len)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int(n), errno
}

// Sockname writes the local address of fd into sa.
func Sockname(fd int, sa *Sockaddr) Errno {
	sa.len = sockaddrSize
	_, _, errno := syscall.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa.raw[0])),
		uintptr(unsafe.Pointer(&sa.len)))
	return errno
}

// Shutdown ends a direction of fd (SHUT_WR).
func Shutdown(fd, how int) Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), uintptr(how), 0)
	return errno
}

// SetInt sets an integer socket option.
func SetInt(fd, level, opt, value int) Errno {
	v := int32(value)
	_, _, errno := syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt),
		uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	return errno
}

// GetInt reads an integer socket option.
func GetInt(fd, level, opt int) (int, Errno) {
	var v int32
	size := uint32(unsafe.Sizeof(v))
	_, _, errno := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt),
		uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
	return int(v), errno
}

// SocketError takes and clears the pending error of fd (SO_ERROR).
func SocketError(fd int) Errno {
	v, errno := GetInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if errno != 0 {
		return errno
	}
	return Errno(v)
}

// BindToDevice ties fd to the interface (SO_BINDTODEVICE; unprivileged since
// kernel 5.7 while the socket is not bound to another one).
func BindToDevice(fd int, ifname string) error {
	return unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, ifname)
}

// Read is raw: only for descriptors that cannot block.
func Read(fd int, b []byte) (int, Errno) {
	n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

// Write is raw: only for descriptors that cannot block.
func Write(fd int, b []byte) (int, Errno) {
	n, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

// Iovec describes one piece of memory for vectored calls.
type Iovec = unix.Iovec

// SetIovec points v at b, which must stay where it is (arena memory) while v
// is used.
func SetIovec(v *Iovec, b []byte) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
}

// Writev is raw: only for descriptors that cannot block.
func Writev(fd int, iov []Iovec) (int, Errno) {
	n, _, errno := syscall.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
	return int(n), errno
}

// NewEventFD makes a non-blocking event counter (eventfd(2)).
func NewEventFD() (int, error) {
	return unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
}

// Signal adds one to an event counter.
func Signal(eventfd int) {
	one := uint64(1)
	syscall.RawSyscall(unix.SYS_WRITE, uintptr(eventfd), uintptr(unsafe.Pointer(&one)), 8)
}

// Drain resets an event counter.
func Drain(eventfd int) {
	var n uint64
	syscall.RawSyscall(unix.SYS_READ, uintptr(eventfd), uintptr(unsafe.Pointer(&n)), 8)
}

var clockBase = time.Now()

// Now is a monotonic clock in nanoseconds since the process started plus one
// second, so that 0 can mean "never".
func Now() int64 { return int64(time.Since(clockBase)) + int64(time.Second) }

// Dup makes another descriptor of the same open file, close-on-exec.
func Dup(fd int) (int, Errno) {
	n, _, errno := syscall.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	return int(n), errno
}
