package sys

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// DropGroups drops all supplementary groups.
func (s *Script) DropGroups() {
	s.add(stepCall, "drop groups", unix.SYS_SETGROUPS, 0, 0)
}

// Identity sets the real, effective and saved user and group ids.
func (s *Script) Identity(uid, gid uint32) {
	g, u := uintptr(gid), uintptr(uid)
	s.add(stepCall, "change group", unix.SYS_SETRESGID, g, g, g)
	s.add(stepCall, "change user", unix.SYS_SETRESUID, u, u, u)
}

// IdentityKeepingCaps is Identity from uid 0 to another one that keeps the
// capabilities; [Script.AmbientCaps] preserves them across execve.
func (s *Script) IdentityKeepingCaps(uid, gid uint32) {
	s.add(stepCall, "keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1)
	s.Identity(uid, gid)
	s.capset(permittedCaps(), 0)
}

// AmbientCaps makes the capabilities survive execve by a user other than 0:
// those that we have now, or, if the script has joined another user namespace,
// all of them.
func (s *Script) AmbientCaps(joined bool) {
	set := permittedCaps()
	if joined {
		set = everyCap()
	}
	s.capset(set, set)
	for c := uintptr(0); set>>c != 0; c++ {
		if set>>c&1 != 0 {
			s.add(stepCall, "raise a capability", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c)
		}
	}
}

// capset makes the capabilities in set permitted and effective, and those of
// inheritable inheritable.
func (s *Script) capset(set, inheritable uint64) {
	h := &capHeader{version: unix.LINUX_CAPABILITY_VERSION_3}
	d := &capData{}
	for i := range d {
		shift := 32 * i
		d[i].effective = uint32(set >> shift)
		d[i].permitted = uint32(set >> shift)
		d[i].inheritable = uint32(inheritable >> shift)
	}
	s.keep = append(s.keep, h, d)
	s.add(stepCall, "set capabilities", unix.SYS_CAPSET, ptr(h), ptr(d))
}

// permittedCaps is the permitted set of the calling thread.
func permittedCaps() uint64 {
	_, permitted, err := Caps()
	if err != nil {
		return 0
	}
	return permitted
}

// everyCap is the set of all capabilities that this kernel knows.
func everyCap() (set uint64) {
	for c := uintptr(0); c < 64; c++ {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err != nil {
			break
		}
		set |= 1 << c
	}
	return set
}

// SignalMask blocks exactly the signals in mask, bit n-1 being signal n.
func (s *Script) SignalMask(mask uint64) {
	m := &mask
	s.keep = append(s.keep, m)
	s.add(stepCall, "set the signal mask", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, ptr(m), 0, 8)
}

// SignalActions ignores the signals in set, numbered as for SignalMask, and
// resets all others. It must come before [Script.SignalMask], else a pending
// signal runs a handler of the Go program that this was cloned from.
func (s *Script) SignalActions(ignored uint64) {
	ignore, reset := &sigaction{handler: sigIgn}, &sigaction{}
	s.keep = append(s.keep, ignore, reset)
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		act := reset
		if HasSignal(ignored, sig) {
			act = ignore
		}
		s.add(stepTry, "set a signal's action", unix.SYS_RT_SIGACTION, uintptr(sig), ptr(act), 0, 8)
	}
}

// FileLimit sets RLIMIT_NOFILE.
func (s *Script) FileLimit(soft, hard uint64) {
	l := &unix.Rlimit{Cur: soft, Max: hard}
	s.keep = append(s.keep, l)
	s.add(stepTry, "set the limit of open files", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, ptr(l), 0)
}
