package sys

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Errno is the kernel's error number; 0 is success.
type Errno = syscall.Errno

// Error numbers that the packet path compares against.
const (
	EAGAIN        = unix.EAGAIN
	EINTR         = unix.EINTR
	EINPROGRESS   = unix.EINPROGRESS
	ECONNABORTED  = unix.ECONNABORTED
	ECONNREFUSED  = unix.ECONNREFUSED
	ECONNRESET    = unix.ECONNRESET
	EPIPE         = unix.EPIPE
	ENETUNREACH   = unix.ENETUNREACH
	EHOSTUNREACH  = unix.EHOSTUNREACH
	ETIMEDOUT     = unix.ETIMEDOUT
	EADDRINUSE    = unix.EADDRINUSE
	EACCES        = unix.EACCES
	EPERM         = unix.EPERM
	EMFILE        = unix.EMFILE
	ENFILE        = unix.ENFILE
	ENOBUFS       = unix.ENOBUFS
	ENOMEM        = unix.ENOMEM
	EMSGSIZE      = unix.EMSGSIZE
	EINVAL        = unix.EINVAL
	EIO           = unix.EIO
	EBADF         = unix.EBADF
	EOPNOTSUPP    = unix.EOPNOTSUPP
	EAFNOSUPPORT  = unix.EAFNOSUPPORT
	EADDRNOTAVAIL = unix.EADDRNOTAVAIL
)

// Epoll event bits.
const (
	EPOLLIN        = unix.EPOLLIN
	EPOLLOUT       = unix.EPOLLOUT
	EPOLLERR       = unix.EPOLLERR
	EPOLLHUP       = unix.EPOLLHUP
	EPOLLRDHUP     = unix.EPOLLRDHUP
	EPOLLET        = 1 << 31
	EPOLLEXCLUSIVE = 1 << 28
)

// Event is one readiness report: the event bits and the token the descriptor
// was added with.
type Event struct {
	Bits  uint32
	Token uint64
}

// Epoll is one epoll instance, owned by one thread.
type Epoll struct {
	fd  int
	raw []unix.EpollEvent
}

// NewEpoll makes an instance that reports up to batch events a wait.
func NewEpoll(batch int) (*Epoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll instance: %w", err)
	}
	return &Epoll{fd: fd, raw: make([]unix.EpollEvent, batch)}, nil
}

// Close closes the instance, not the descriptors it watches.
func (e *Epoll) Close() error { return unix.Close(e.fd) }

// Add watches fd for events and reports them with token. It does not block.
func (e *Epoll) Add(fd int, events uint32, token uint64) Errno {
	return e.ctl(unix.EPOLL_CTL_ADD, fd, events, token)
}

// Del ends watching fd; closing the last copy of a descriptor does so too.
func (e *Epoll) Del(fd int) Errno { return e.ctl(unix.EPOLL_CTL_DEL, fd, 0, 0) }

func (e *Epoll) ctl(op, fd int, events uint32, token uint64) Errno {
	ev := unix.EpollEvent{Events: events, Fd: int32(token), Pad: int32(token >> 32)}
	_, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(e.fd), uintptr(op), uintptr(fd),
		uintptr(unsafe.Pointer(&ev)), 0, 0)
	return errno
}

// Poll puts the events that are ready now into out and returns how many; it
// never blocks.
func (e *Epoll) Poll(out []Event) int {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(e.fd),
		uintptr(unsafe.Pointer(&e.raw[0])), uintptr(min(len(out), len(e.raw))), 0, 0, 0)
	return e.take(out, n, errno)
}

// Wait blocks until something is ready, the timeout has passed (negative: for
// ever), or a signal came, and returns how many events it put into out. It
// tells the Go scheduler that it may block. Resolution is a nanosecond where
// the kernel has epoll_pwait2 (5.11), else timeouts are rounded up to 1 ms.
func (e *Epoll) Wait(out []Event, timeout time.Duration) int {
	return e.wait(out, timeout, false)
}

// WaitRaw is Wait without telling the Go scheduler: the caller keeps its P
// until the runtime preempts it by a signal after 10 ms, which ends the wait;
// whoever stops the world waits for that, too. Waking up from it is cheaper.
func (e *Epoll) WaitRaw(out []Event, timeout time.Duration) int {
	return e.wait(out, timeout, true)
}

// noPwait2 is set once the kernel has said ENOSYS.
var noPwait2 atomic.Bool

func (e *Epoll) wait(out []Event, timeout time.Duration, raw bool) int {
	fd, at, size := uintptr(e.fd), unsafe.Pointer(&e.raw[0]), uintptr(min(len(out), len(e.raw)))
	var ts *unix.Timespec
	ms := -1
	if timeout >= 0 {
		t := unix.NsecToTimespec(int64(timeout))
		ts, ms = &t, int((timeout+time.Millisecond-1)/time.Millisecond)
	}
	for {
		var n uintptr
		var errno Errno
		coarse := noPwait2.Load()
		switch {
		case coarse && raw:
			n, _, errno = syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(at), size, uintptr(ms), 0, 0)
		case coarse:
			n, _, errno = syscall.Syscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(at), size, uintptr(ms), 0, 0)
		case raw:
			n, _, errno = syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT2, fd, uintptr(at), size, uintptr(unsafe.Pointer(ts)), 0, 0)
		default:
			n, _, errno = syscall.Syscall6(unix.SYS_EPOLL_PWAIT2, fd, uintptr(at), size, uintptr(unsafe.Pointer(ts)), 0, 0)
		}
		if errno != unix.ENOSYS || coarse {
			return e.take(out, n, errno)
		}
		noPwait2.Store(true)
	}
}

func (e *Epoll) take(out []Event, n uintptr, errno Errno) int {
	if errno != 0 { // EINTR, the only error a healthy instance gives
		return 0
	}
	for i := range int(n) {
		ev := &e.raw[i]
		out[i] = Event{Bits: ev.Events, Token: uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32}
	}
	return int(n)
}
