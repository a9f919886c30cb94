package sys

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Capabilities (capabilities(7)), as bits of a set.
const (
	CapNetBindService uint64 = 1 << unix.CAP_NET_BIND_SERVICE
	CapNetAdmin       uint64 = 1 << unix.CAP_NET_ADMIN
)

// AllThreads tells whether calls that must be made by every thread of the
// process can be made: not in a program linked with cgo, as the race detector's
// is.
func AllThreads() bool {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_GET_DUMPABLE, 0, 0)
	return errno != syscall.ENOTSUP
}

// Caps returns the calling thread's effective and permitted capabilities.
func Caps() (effective, permitted uint64, err error) {
	h, d := capHeader{version: unix.LINUX_CAPABILITY_VERSION_3}, capData{}
	if err := capget(&h, &d); err != nil {
		return 0, 0, err
	}
	return uint64(d[0].effective) | uint64(d[1].effective)<<32, uint64(d[0].permitted) | uint64(d[1].permitted)<<32, nil
}

// DropCaps drops, in all threads, every capability but those of keep that are
// permitted, which become the effective ones; the inheritable set and with
// it the ambient one become empty. It returns what was kept.
//
// The bounding set stays: it limits what execve(2) may grant, dropping each of
// its 41 capabilities takes a round through all threads (0.2 ms), and callers
// never execute anything, which [LoadSeccomp] would make harmless anyway.
func DropCaps(keep uint64) (kept uint64, err error) {
	_, permitted, err := Caps()
	if err != nil {
		return 0, err
	}
	kept = permitted & keep
	h, d := capHeader{version: unix.LINUX_CAPABILITY_VERSION_3}, capData{}
	for i := range d {
		d[i].effective = uint32(kept >> (32 * i))
		d[i].permitted = d[i].effective
	}
	return kept, capsetAll(&h, &d)
}

// ClearDumpable keeps other processes of our uid from tracing us and from
// reading our memory, and the kernel from dumping core. Our files under /proc
// belong to root from then on.
func ClearDumpable() error {
	return os.NewSyscallError("prctl PR_SET_DUMPABLE", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
}
