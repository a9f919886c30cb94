package sys

import (
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// CloseOnExecFrom marks every open descriptor from fd upwards to be closed on
// exec, where the kernel can do it (5.11).
func CloseOnExecFrom(fd int) {
	_ = unix.CloseRange(uint(fd), uint(^uint32(0)), unix.CLOSE_RANGE_CLOEXEC)
}

// SetDumpable lets others of the same uid, and us through /proc, look at this
// process even if it was started with capabilities of its file.
func SetDumpable() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }

// SetThreadName sets the calling thread's name, of which 15 bytes count; the
// main thread's is the process's in ps(1) and pgrep(1).
func SetThreadName(name string) {
	b, err := unix.BytePtrFromString(name)
	if err == nil {
		_ = unix.Prctl(unix.PR_SET_NAME, ptr(b), 0, 0, 0)
	}
}

// PidfdOpen returns a descriptor of a process, readable once it has ended.
func PidfdOpen(pid int) (int, error) { return unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK) }

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

// AwaitPidfd waits for the end of the process of a pidfd, without holding a
// thread. It returns early if f is closed.
func AwaitPidfd(f *os.File) {
	rc, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = rc.Read(func(fd uintptr) bool { return PidfdEnded(int(fd)) })
}

// SetCloseOnExec has fd closed on exec.
func SetCloseOnExec(fd int) { unix.CloseOnExec(fd) }

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

// Inode returns device and inode of an open file: two namespaces are the same
// if these are.
func Inode(fd int) (dev, ino uint64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, 0, err
	}
	return uint64(st.Dev), st.Ino, nil
}

// OpenFD opens path for reading, closed on exec, without making it known to the
// runtime's poller.
func OpenFD(path string) (int, error) {
	return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// Dup2 makes from available as to, which survives exec.
func Dup2(from, to int) error { return unix.Dup3(from, to, 0) }

// ForegroundGroup returns the process group that the terminal fd has in its
// foreground.
func ForegroundGroup(fd int) (int, error) { return unix.IoctlGetInt(fd, unix.TIOCGPGRP) }

// SetForegroundGroup puts a process group in the foreground of the terminal fd,
// from the background too.
func SetForegroundGroup(fd, group int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old uint64
	stop := SignalSet(unix.SIGTTOU)
	sigprocmask(unix.SIG_BLOCK, &stop, &old)
	defer sigprocmask(unix.SIG_SETMASK, &old, nil)
	return os.NewSyscallError("ioctl TIOCSPGRP", unix.IoctlSetPointerInt(fd, unix.TIOCSPGRP, group))
}

// ProcessGroup returns our own process group.
func ProcessGroup() int { return unix.Getpgrp() }
