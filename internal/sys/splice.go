package sys

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Pipe makes a non-blocking, close-on-exec pipe and asks for size octets of
// capacity; it returns what it got, which is less once the user's share of
// pipe memory is used up (pipe(7), pipe-user-pages-soft).
func Pipe(size int) (r, w, capacity int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return -1, -1, 0, err
	}
	n, err := unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, size)
	if err != nil {
		if n, err = unix.FcntlInt(uintptr(p[1]), unix.F_GETPIPE_SZ, 0); err != nil {
			n = 4096 // the least a pipe holds
		}
	}
	return p[0], p[1], n, nil
}

// Splice moves up to n octets between a socket and a pipe, by reference where
// the kernel can, and never blocks. more (SPLICE_F_MORE) tells a stream socket that
// more follows at once: the kernel holds a partial segment back until then.
// NoDelay sends it if nothing follows after all.
func Splice(from, to, n int, more bool) (int, Errno) {
	flags := uintptr(unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK)
	if more {
		flags |= unix.SPLICE_F_MORE
	}
	r, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), flags)
	return int(r), errno
}

// Reset closes a stream socket so that its peer gets an RST (SO_LINGER with a
// time of zero).
func Reset(fd int) {
	l := unix.Linger{Onoff: 1}
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &l) // at worst the peer sees a FIN
	Close(fd)
}

// NoDelay disables the Nagle algorithm (TCP_NODELAY).
func NoDelay(fd int) { SetInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) }
