package sys

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Kinds of a step.
const (
	stepCall     uint32 = iota // an error ends the script
	stepTry                    // an error does not matter
	stepChain                  // as stepCall, args[0] being the latest result
	stepChainTry               // as stepTry, args[0] being the latest result
	stepOne                    // a result other than 1 ends the script without a note
	stepExec                   // as stepCall, but ENOEXEC leads to the next step
	stepFork                   // the child goes on at step to, the parent with the next one
	stepReap                   // wait for all children; end as the latest forked one did
)

// step is one system call. Pointers in args are kept alive by Script.keep; Go's
// collector does not move what is on the heap.
type step struct {
	nr   uintptr
	args [6]uintptr
	kind uint32
	to   uint32
}

// Exit status of a child whose script failed; the note tells which step.
const scriptFailed = 125

// cloneRun clones the calling thread and runs steps in the child, which never
// returns. A clone of a Go program has one thread, no scheduler, perhaps a
// half-done garbage collection and a stale stack guard: nothing here, nor in
// what it calls, may allocate, grow the stack or reach a preemption point,
// hence nosplit throughout.
//
//go:norace
//go:nosplit
//go:noinline
func cloneRun(flags uintptr, steps *step, n uintptr, noteFD uintptr, note *Note) (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	runSteps(steps, n, noteFD, note)
	return 0, 0
}

//go:norace
//go:nosplit
//go:noinline
func runSteps(steps *step, n uintptr, noteFD uintptr, note *Note) {
	var last, forked uintptr
	for pc := uintptr(0); pc < n; pc++ {
		s := (*step)(unsafe.Add(unsafe.Pointer(steps), pc*unsafe.Sizeof(step{})))
		if s.kind == stepReap {
			reap(forked)
		}
		first := s.args[0]
		if s.kind == stepChain || s.kind == stepChainTry {
			first = last
		}
		r, _, errno := syscall.RawSyscall6(s.nr, first, s.args[1], s.args[2], s.args[3], s.args[4], s.args[5])
		if s.kind == stepOne && r != 1 {
			break
		}
		if errno != 0 && s.kind != stepTry && s.kind != stepChainTry && (s.kind != stepExec || errno != unix.ENOEXEC) {
			note.A, note.B = uint32(pc), uint32(errno)
			syscall.RawSyscall6(unix.SYS_WRITE, noteFD, uintptr(unsafe.Pointer(note)), unsafe.Sizeof(*note), 0, 0, 0)
			break
		}
		if s.kind == stepFork {
			if r == 0 {
				pc = uintptr(s.to) - 1
			}
			forked = r
		}
		if s.kind != stepChain && s.kind != stepChainTry {
			last = r
		}
	}
	for {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, scriptFailed, 0, 0, 0, 0, 0)
	}
}

// reap waits for children until pid has ended, and ends as it did: with its
// status, or 128 and the number of the signal that killed it.
//
//go:norace
//go:nosplit
//go:noinline
func reap(pid uintptr) {
	var status uint32
	for {
		r, _, errno := syscall.RawSyscall6(unix.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&status)), 0, 0, 0, 0)
		if errno == unix.EINTR || errno == 0 && r != pid {
			continue
		}
		code := uintptr(status>>8) & 0xff
		if sig := status & 0x7f; sig != 0 {
			code = 128 + uintptr(sig)
		}
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, code, 0, 0, 0, 0, 0)
	}
}

// Start clones the calling process with flags (CLONE_NEW..., to which SIGCHLD
// is added) and runs the script in the child. All signals are blocked around
// the clone and in the child until the script says otherwise, so that no Go
// signal handler ever runs there. The child's parent death signal, if the
// script asks for one, belongs to the calling thread: keep it locked.
func (s *Script) Start(flags uintptr) (pid int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old uint64
	all := ^uint64(0)
	sigprocmask(unix.SIG_SETMASK, &all, &old)
	r, errno := cloneRun(flags|uintptr(unix.SIGCHLD), &s.steps[0], uintptr(len(s.steps)), uintptr(s.noteFD), &s.note)
	sigprocmask(unix.SIG_SETMASK, &old, nil)
	runtime.KeepAlive(s)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}

func ptr[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }

// capHeader and capData are the kernel's struct __user_cap_header_struct and
// twice struct __user_cap_data_struct, version 3.
type capHeader struct {
	version uint32
	pid     int32
}

type capData [2]struct{ effective, permitted, inheritable uint32 }

// fdMessage is a message that carries a note and one descriptor, laid out for
// sendmsg(2); the descriptor's slot can be the target of CLONE_PIDFD.
type fdMessage struct {
	hdr  unix.Msghdr
	iov  unix.Iovec
	cmsg struct {
		hdr unix.Cmsghdr
		fd  int32
		_   int32
	}
	note Note
}

func newFDMessage(kind uint32) *fdMessage {
	m := &fdMessage{note: Note{Kind: kind}}
	m.iov.Base = (*byte)(unsafe.Pointer(&m.note))
	m.iov.SetLen(int(unsafe.Sizeof(m.note)))
	m.hdr.Iov = &m.iov
	m.hdr.SetIovlen(1)
	m.hdr.Control = (*byte)(unsafe.Pointer(&m.cmsg))
	m.hdr.SetControllen(unix.CmsgSpace(4))
	m.cmsg.hdr.Level, m.cmsg.hdr.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
	m.cmsg.hdr.SetLen(unix.CmsgLen(4))
	m.cmsg.fd = -1
	return m
}
