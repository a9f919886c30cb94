package sys

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSetSlice sets a slice beside a nice value, which must stay, and none for a
// thread whose policy has no slices.
func TestSetSlice(t *testing.T) {
	done := make(chan bool)
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		want := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: 3}
		if err := unix.SchedSetAttr(0, want, 0); err != nil {
			t.Error(err)
			return
		}
		before := attributes(t)
		if err := SetSlice(100 * time.Microsecond); err != nil {
			t.Error(err)
		}
		// Kernels without slices of a thread's own report 0 before and after.
		if before.Runtime != 0 {
			before.Runtime = uint64(100 * time.Microsecond)
		}
		if got := attributes(t); got != before {
			t.Errorf("attributes are %+v, want %+v", got, before)
		}
		if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0); err != nil {
			t.Error(err)
		}
		before = attributes(t)
		if err := SetSlice(time.Millisecond); err != nil {
			t.Error(err)
		}
		if got := attributes(t); got != before {
			t.Errorf("attributes of an idle thread are %+v, want %+v", got, before)
		}
	}()
	<-done
}

func attributes(t *testing.T) unix.SchedAttr {
	t.Helper()
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Error(err)
		return unix.SchedAttr{}
	}
	return *attr
}
