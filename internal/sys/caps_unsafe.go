package sys

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// capget reads the calling thread's capabilities. The pointers live for the
// call, in whose expression they are made.
func capget(h *capHeader, d *capData) error {
	_, _, errno := unix.Syscall(unix.SYS_CAPGET, uintptr(unsafe.Pointer(h)), uintptr(unsafe.Pointer(d)), 0)
	if errno != 0 {
		return os.NewSyscallError("capget", errno)
	}
	return nil
}

// capset sets the calling thread's capabilities. The pointers live for the
// call, in whose expression they are made.
func capset(h *capHeader, d *capData) error {
	_, _, errno := unix.Syscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(h)), uintptr(unsafe.Pointer(d)), 0)
	if errno != 0 {
		return os.NewSyscallError("capset", errno)
	}
	return nil
}

// capsetAll sets the capabilities of every thread. The pointers escape to the
// heap (go:uintptrescapes), whose objects do not move while other threads read
// them.
func capsetAll(h *capHeader, d *capData) error {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(h)), uintptr(unsafe.Pointer(d)), 0)
	if errno != 0 {
		return os.NewSyscallError("capset", errno)
	}
	return nil
}
