package sys

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// SplitCaps is DropCaps with two sets: all threads keep those of keep, and have
// those of dormant in their permitted set only. They become effective on a
// thread that calls [RaiseCaps], and on no other once capset(2) is forbidden.
func SplitCaps(keep, dormant uint64) (kept uint64, err error) {
	_, permitted, err := Caps()
	if err != nil {
		return 0, err
	}
	kept = permitted & keep
	all := permitted & (keep | dormant)
	h, d := capHeader{version: unix.LINUX_CAPABILITY_VERSION_3}, capData{}
	for i := range d {
		d[i].effective = uint32(kept >> (32 * i))
		d[i].permitted = uint32(all >> (32 * i))
	}
	return kept, capsetAll(&h, &d)
}

// RaiseCaps makes all capabilities that the calling thread is permitted
// effective on it alone. The thread must be locked and never unlocked: other
// goroutines would have them.
func RaiseCaps() error {
	h, d := capHeader{version: unix.LINUX_CAPABILITY_VERSION_3}, capData{}
	if err := capget(&h, &d); err != nil {
		return err
	}
	for i := range d {
		d[i].effective = d[i].permitted
	}
	return capset(&h, &d)
}

// CapsReach tells whether the calling thread's capabilities hold over the
// network namespace of an open file: whether the user namespace that owns it is
// ours or one below it (NS_GET_USERNS, Linux 4.9).
func CapsReach(netns int) (bool, error) {
	fd, err := unix.IoctlRetInt(netns, unix.NS_GET_USERNS)
	if errors.Is(err, syscall.EPERM) {
		return false, nil // its user namespace is none of ours
	}
	if err != nil {
		return false, err
	}
	unix.Close(fd)
	return true, nil
}
