package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"penne/internal/sys"
)

func TestTunError(t *testing.T) {
	err := TunError(&fs.PathError{Op: "open", Path: sys.TunPath, Err: syscall.ENODEV})
	want := "Failed to open /dev/net/tun: no such device: load the tun module or make it accessible"
	if err.Error() != want || !errors.Is(err, syscall.ENODEV) || statusOf(err) != 1 {
		t.Errorf("got %q with status %d", err, statusOf(err))
	}
	err = TunError(fmt.Errorf("create tap: %w", syscall.ENOTTY))
	want = "Failed to open /dev/net/tun: inappropriate ioctl for device: load the tun module or make it accessible"
	if err.Error() != want {
		t.Errorf("for another file: %q", err)
	}
	busy := fmt.Errorf("create tap: %w", syscall.EBUSY)
	if err := TunError(busy); err != busy {
		t.Errorf("another error becomes %q", err)
	}
}

func TestUserNSError(t *testing.T) {
	for err, want := range map[syscall.Errno]string{
		syscall.EPERM:  "Failed to create namespaces: operation not permitted: ",
		syscall.ENOSPC: "Failed to create namespaces: no space left on device: ",
	} {
		got := userNSError("create namespaces", err).Error()
		hint, ok := strings.CutPrefix(got, want)
		if !ok || hint == "" || strings.Contains(got, "\n") {
			t.Errorf("got %q, want %q and what to do", got, want)
		}
	}
}

func TestCloneError(t *testing.T) {
	const (
		processes = ": resource temporarily unavailable: there are as many processes as are allowed, raise the limit (ulimit -u, or pids.max of the cgroup)"
		full      = ": no space left on device: there are as many namespaces as are allowed, raise the limits user.max_*_namespaces (sysctl)"
	)
	for _, c := range []struct {
		flags uintptr
		err   syscall.Errno
		want  string
	}{
		{0, syscall.EAGAIN, "Failed to start a process" + processes},
		{0, syscall.ENOMEM, "Failed to start a process: cannot allocate memory: there is too little memory"},
		{0, syscall.EINVAL, "Failed to start a process: invalid argument"},
		{namespaces, syscall.EAGAIN, "Failed to create namespaces" + processes},
		{namespaces, syscall.ENOSPC, "Failed to create namespaces" + full},
		{namespaces, syscall.EPERM, "Failed to create namespaces: operation not permitted: without a new user namespace this needs root"},
		{namespaces | sys.CLONE_NEWUSER, syscall.EAGAIN, "Failed to create namespaces" + processes},
	} {
		if got := cloneError(c.err, c.flags); got.Error() != c.want || !errors.Is(got, c.err) {
			t.Errorf("flags %#x, %v: %q, want %q", c.flags, c.err, got, c.want)
		}
	}
}
