package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MapReserve maps size octets of private anonymous memory without reserving
// swap for it (MAP_NORESERVE) and without huge pages: pages become resident
// when they are touched. The memory lies outside the Go heap and never moves.
func MapReserve(size int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	// A huge page would make the first octet of a slot cost 2 MiB. A kernel
	// without transparent huge pages says EINVAL, which comes to the same.
	_ = unix.Madvise(b, unix.MADV_NOHUGEPAGE)
	return b, nil
}

// Unmap ends a mapping made by MapReserve.
func Unmap(b []byte) error { return unix.Munmap(b) }

// DontNeed returns the pages of b to the kernel (MADV_DONTNEED); they read as
// zero afterwards. b must start on a page boundary, else nothing happens; the
// page that it ends in is lost as a whole.
func DontNeed(b []byte) {
	syscall.RawSyscall(unix.SYS_MADVISE, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MADV_DONTNEED)
}
