package sys

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

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
