package sys

import "golang.org/x/sys/unix"

// CloseOnExecFrom marks every open descriptor from fd upwards to be closed on
// exec, where the kernel can do it (5.11).
func CloseOnExecFrom(fd int) {
	_ = unix.CloseRange(uint(fd), uint(^uint32(0)), unix.CLOSE_RANGE_CLOEXEC)
}

// SetCloseOnExec marks fd to be closed on exec.
func SetCloseOnExec(fd int) { unix.CloseOnExec(fd) }

// Inode returns device and inode of an open file, which identify a namespace.
func Inode(fd int) (dev, ino uint64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, 0, err
	}
	return uint64(st.Dev), st.Ino, nil
}

// OpenFD opens path for reading, close-on-exec, without the runtime's poller and
// without waiting for the writer of a named pipe.
func OpenFD(path string) (int, error) {
	return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
}

// Dup2 makes to a duplicate of from that survives exec.
func Dup2(from, to int) error { return unix.Dup3(from, to, 0) }
