package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// BlockSignals blocks, on the calling thread, the signals that the control
// thread handles, so that none of their handlers interrupts a shard. Signals
// of the Go runtime itself (SIGURG for preemption, SIGPROF, faults) stay.
func BlockSignals() {
	var set unix.Sigset_t
	for _, sig := range [...]unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM,
		unix.SIGCHLD, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE, unix.SIGWINCH} {
		addSignal(&set, sig)
	}
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil) // fails for a bad set only
}

func addSignal(set *unix.Sigset_t, sig unix.Signal) {
	bit := uint(sig - 1)
	set.Val[bit/64] |= 1 << (bit % 64)
}

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

// PinThread binds the calling thread to one CPU.
func PinThread(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("bind thread to CPU %d: %w", cpu, err)
	}
	return nil
}
