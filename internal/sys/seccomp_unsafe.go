package sys

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LoadSeccomp installs the filter on all threads of the process, and keeps execve(2)
// from granting privileges to them (PR_SET_NO_NEW_PRIVS), without which the kernel
// takes filters from the privileged only.
func LoadSeccomp(prog []SockFilter) error {
	if len(prog) == 0 || len(prog) > unix.BPF_MAXINSNS {
		return fmt.Errorf("load seccomp filter: %d instructions", len(prog))
	}
	// The flag is the thread's that sets it, until the filter takes it to the others.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_SET_NO_NEW_PRIVS", err)
	}
	// Before Linux 5.16 a filter enables speculation mitigations, which are
	// for programs that run untrusted code: we do not.
	flags := uintptr(unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW)
	err := seccompFilter(flags, prog)
	if errors.Is(err, unix.EINVAL) { // Linux 4.17
		err = seccompFilter(unix.SECCOMP_FILTER_FLAG_TSYNC, prog)
	}
	return err
}

// seccompFilter passes prog by pointers that live for the call: the kernel
// copies the program.
func seccompFilter(flags uintptr, prog []SockFilter) error {
	p := &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	tid, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(p)))
	runtime.KeepAlive(p)
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	if tid != 0 {
		return fmt.Errorf("seccomp: thread %d has another filter", tid)
	}
	return nil
}
