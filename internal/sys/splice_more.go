package sys

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// SpliceMore is Splice from a pipe to a stream socket with the announcement
// that more follows at once (SPLICE_F_MORE): the kernel keeps what does not
// fill a segment until then. NoDelay sends it if nothing follows after all.
func SpliceMore(from, to, n int) (int, Errno) {
	r, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n),
		unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MORE)
	return int(r), errno
}
