package sys

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// UsableCPUs lists the CPUs that the calling thread may run on, in order.
func UsableCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("read CPU affinity: %w", err)
	}
	var cpus []int
	for cpu := 0; len(cpus) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// PinThread lets the calling thread, which must be locked, run on one CPU only.
func PinThread(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin thread to CPU %d: %w", cpu, err)
	}
	return nil
}

// SetSlice asks that the calling thread, which must be locked, be scheduled in slices
// of d, 0.1 to 100 ms, instead of the kernel's default, some milliseconds. Kernels
// before 6.12 accept it without effect. A thread whose policy is neither SCHED_NORMAL nor
// SCHED_BATCH is left as it is.
func SetSlice(d time.Duration) error {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return fmt.Errorf("read scheduling attributes: %w", err)
	}
	if attr.Policy != unix.SCHED_NORMAL && attr.Policy != unix.SCHED_BATCH {
		return nil
	}
	attr.Runtime = uint64(d)
	if err := unix.SchedSetAttr(0, attr, 0); err != nil {
		return fmt.Errorf("set scheduling slice: %w", err)
	}
	return nil
}

// Yield lets another thread run on this CPU, if one wants to.
func Yield() { syscall.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
