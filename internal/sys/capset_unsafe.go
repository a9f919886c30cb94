package sys

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// capset sets the calling thread's capabilities. The pointers live for the
// call, in whose expression they are made.
func capset(h *capHeader, d *capData) error {
	_, _, errno := unix.Syscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(h)), uintptr(unsafe.Pointer(d)), 0)
	if errno != 0 {
		return os.NewSyscallError("capset", errno)
	}
	return nil
}
