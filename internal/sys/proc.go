package sys

import (
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// SetDumpable lets others of the same uid, and us through /proc, look at this
// process even if it was started with capabilities of its file.
func SetDumpable() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }

// SetThreadName sets the calling thread's name, of which 15 bytes count; the
// main thread's is the process's in ps(1) and pgrep(1).
func SetThreadName(name string) {
	b, err := unix.BytePtrFromString(name)
	if err == nil {
		_ = unix.Prctl(unix.PR_SET_NAME, ptr(b), 0, 0, 0)
		runtime.KeepAlive(b)
	}
}

// PidfdOpen returns a descriptor of a process (Linux 5.3), readable once it has
// ended. It is non-blocking, so that os.NewFile leaves waiting to the poller;
// the flag PIDFD_NONBLOCK came only with 5.10.
func PidfdOpen(pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// PidfdSignal sends sig to the process of a pidfd.
func PidfdSignal(fd int, sig syscall.Signal) error {
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// PidfdEnded tells whether the process of a pidfd has ended; it need not be a
// child.
func PidfdEnded(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1
}

// AwaitPidfd waits until the process of a pidfd has ended, without blocking a
// thread. It returns early if f is closed.
func AwaitPidfd(f *os.File) {
	rc, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = rc.Read(func(fd uintptr) bool { return PidfdEnded(int(fd)) })
}

// Wait reaps the child pid, waiting until it has ended.
func Wait(pid int) (syscall.WaitStatus, error) {
	for {
		var ws syscall.WaitStatus
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		if err != syscall.EINTR {
			return ws, err
		}
	}
}

// HasEnded tells whether the child pid has ended, and leaves it to be reaped.
func HasEnded(pid int) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && info.Signo != 0
}
