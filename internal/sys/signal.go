package sys

import (
	"io"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const sigIgn = 1 // SIG_IGN

// sigaction is the kernel's struct, whose mask is 64 bits on amd64 and arm64.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// Written by entry, before the Go runtime has changed anything.
var (
	entryRan     uint64
	entryMask    uint64
	entryIgnored uint64
	entryLimit   [2]uint64
	entryAction  sigaction
)

// entry is where the kernel starts the program, if it was linked with
//
//	-ldflags '-E penne/internal/sys.entry'
//
// It notes what the Go runtime is about to overwrite (see [Inherited]), and
// jumps to the runtime's own entry point.
func entry()

// Go code refers to neither.
var _, _ = entry, &entryAction

// Inheritance is what a process inherits from the one that started it, and
// passes on to those that it starts.
type Inheritance struct {
	// Mask and Ignored are sets of signals, bit n-1 being signal n.
	Mask, Ignored uint64
	// Soft and Hard are the limits of open files (RLIMIT_NOFILE).
	Soft, Hard uint64
}

// Inherited returns what this process was started with. The runtime unblocks
// HUP, INT, QUIT, TERM and CHLD, puts handlers where signals were ignored, and
// raises the soft limit of open files; only a program linked as [entry] says
// knows all of it. Others see what is left: ignored HUP and INT (as long as
// nobody asked to be notified of them), the remaining mask, the raised limit.
func Inherited() Inheritance {
	if atomic.LoadUint64(&entryRan) != 0 {
		return Inheritance{entryMask, entryIgnored, entryLimit[0], entryLimit[1]}
	}
	var in Inheritance
	runtime.LockOSThread()
	sigprocmask(unix.SIG_SETMASK, nil, &in.Mask)
	runtime.UnlockOSThread()
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		var act sigaction
		_, _, e := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&act)), 8, 0, 0)
		if e == 0 && act.handler == sigIgn {
			in.Ignored |= SignalSet(sig)
		}
	}
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil {
		in.Soft, in.Hard = l.Cur, l.Max
	}
	return in
}

// SignalSet returns the set of the given signals, bit n-1 being signal n.
func SignalSet(sigs ...syscall.Signal) (set uint64) {
	for _, sig := range sigs {
		set |= 1 << (uint(sig) - 1)
	}
	return set
}

// HasSignal tells whether sig is in set.
func HasSignal(set uint64, sig syscall.Signal) bool { return set&SignalSet(sig) != 0 }

// sigprocmask changes the calling thread's mask.
//
//go:nosplit
func sigprocmask(how uintptr, set, old *uint64) {
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, how, uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
}

// BlockThreadSignals blocks, on the calling thread, the signals that may be sent
// to the whole process; the thread must be locked and stay so. Others handle
// them. Not blocked are those the Go runtime sends to threads (URG to
// preempt, 33 for AllThreadsSyscall, PROF) and those a thread causes itself.
func BlockThreadSignals() {
	set := SignalSet(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGCHLD,
		unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGWINCH, unix.SIGTSTP, unix.SIGCONT)
	sigprocmask(unix.SIG_BLOCK, &set, nil)
}

// SignalFD returns a descriptor from which the signals of set are read; they
// must be blocked in every thread, which for USR1 and USR2 holds where the
// process was started with them blocked. It does not block.
func SignalFD(set uint64) (int, error) {
	var s unix.Sigset_t
	s.Val[0] = set
	return unix.Signalfd(-1, &s, unix.SFD_CLOEXEC|unix.SFD_NONBLOCK)
}

// ReadSignal reads one signal from r, a reader of what [SignalFD] returned.
func ReadSignal(r io.Reader) (syscall.Signal, error) {
	var info unix.SignalfdSiginfo
	b := (*[unsafe.Sizeof(info)]byte)(unsafe.Pointer(&info))[:]
	_, err := r.Read(b)
	return syscall.Signal(info.Signo), err
}
