package sys

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Flags of clone(2), unshare(2) and setns(2).
const (
	CLONE_NEWUSER = unix.CLONE_NEWUSER
	CLONE_NEWNET  = unix.CLONE_NEWNET
	CLONE_NEWNS   = unix.CLONE_NEWNS
	CLONE_NEWPID  = unix.CLONE_NEWPID
	CLONE_NEWIPC  = unix.CLONE_NEWIPC
	CLONE_NEWUTS  = unix.CLONE_NEWUTS
	CLONE_PARENT  = unix.CLONE_PARENT
)

// Note is the message between a script's process and its parent.
type Note struct {
	// Kind tells what A and B mean; NoteFailed is a script's own, the
	// others are for its author to choose.
	Kind, A, B uint32
}

// NoteFailed is the kind of a note that step A of the script failed with errno B.
const NoteFailed = 0xfa11

// NoteSize is the length of a note as sent, in bytes.
const NoteSize = 12

// ParseNote reads a note; ok is false for any other message.
func ParseNote(b []byte) (n Note, ok bool) {
	if len(b) != NoteSize {
		return n, false
	}
	e := binary.NativeEndian
	return Note{e.Uint32(b), e.Uint32(b[4:]), e.Uint32(b[8:])}, true
}

// Bytes returns the note as sent.
func (n Note) Bytes() []byte {
	b := make([]byte, 0, NoteSize)
	e := binary.NativeEndian
	return e.AppendUint32(e.AppendUint32(e.AppendUint32(b, n.Kind), n.A), n.B)
}

// Script is the list of system calls that a cloned, single-threaded child of a
// Go process makes, usually ending in execve. It is built beforehand, for
// nothing can be allocated in such a child. A call that fails sends a [Note] of
// kind NoteFailed to the note descriptor and ends the child, unless the method
// that added it says otherwise.
type Script struct {
	steps  []step
	labels []string
	keep   []any
	noteFD int
	note   Note
}

// NewScript starts a script which reports to the message socket noteFD, as
// numbered in the child.
func NewScript(noteFD int) *Script {
	return &Script{noteFD: noteFD, note: Note{Kind: NoteFailed}}
}

// Label says in words what step n of the script does: "create a thing".
func (s *Script) Label(n uint32) string {
	if int(n) >= len(s.labels) {
		return "do step " + fmt.Sprint(n)
	}
	return s.labels[n]
}

func (s *Script) add(kind uint32, label string, nr uintptr, args ...uintptr) {
	st := step{nr: nr, kind: kind}
	copy(st.args[:], args)
	s.steps = append(s.steps, st)
	s.labels = append(s.labels, label)
}

func (s *Script) cString(t string) uintptr {
	p, err := unix.BytePtrFromString(t)
	if err != nil { // a NUL inside: the kernel would see a shorter name
		p = new(byte)
	}
	s.keep = append(s.keep, p)
	return ptr(p)
}

func (s *Script) cStrings(l []string) uintptr {
	p := make([]*byte, len(l)+1)
	for i, t := range l {
		p[i], _ = unix.BytePtrFromString(t)
		if p[i] == nil {
			p[i] = new(byte)
		}
	}
	s.keep = append(s.keep, p)
	return ptr(&p[0])
}

// Exec replaces the child by the program at path.
func (s *Script) Exec(label, path string, argv, env []string) {
	s.add(stepCall, label, unix.SYS_EXECVE, s.cString(path), s.cStrings(argv), s.cStrings(env))
}

// Fork makes a child of the child, with flags of clone(2). The grandchild
// runs the steps of inner, which must end in [Script.Exec]; the child goes on.
// With CLONE_PARENT the new one is the starter's own child; announce is the
// kind of the note that tells the starter its pid in A.
func (s *Script) Fork(label string, flags uintptr, announce uint32, inner func()) {
	n := &Note{Kind: announce}
	s.keep = append(s.keep, n)
	at := s.forkStep(label, flags|unix.CLONE_PARENT_SETTID, ptr(&n.A))
	s.add(stepCall, "announce a process", unix.SYS_WRITE, uintptr(s.noteFD), ptr(n), NoteSize)
	s.add(stepCall, "end a process", unix.SYS_EXIT_GROUP, 0)
	s.steps[at].to = uint32(len(s.steps))
	inner()
}

// ForkAndReap makes a child of the child, sends its pidfd behind a note of
// kind announce, and reaps whatever ends until that child does, with whose
// status it ends itself: what process 1 of a namespace has to do. The
// grandchild runs the steps of inner, which must end in [Script.Exec].
func (s *Script) ForkAndReap(label string, announce uint32, inner func()) {
	m := newFDMessage(announce)
	s.keep = append(s.keep, m)
	at := s.forkStep(label, unix.CLONE_PIDFD, ptr(&m.cmsg.fd))
	s.add(stepCall, "announce a process", unix.SYS_SENDMSG, uintptr(s.noteFD), ptr(&m.hdr), unix.MSG_NOSIGNAL)
	s.add(stepReap, "reap processes", 0)
	s.steps[at].to = uint32(len(s.steps))
	inner()
}

func (s *Script) forkStep(label string, flags, tid uintptr) int {
	s.add(stepFork, label, unix.SYS_CLONE, flags|uintptr(unix.SIGCHLD), 0, tid)
	return len(s.steps) - 1
}

// AwaitByte reads one byte from fd. The end of the file, or an error, ends the
// child without a note.
func (s *Script) AwaitByte(fd int) {
	b := new(byte)
	s.keep = append(s.keep, b)
	s.add(stepOne, "wait", unix.SYS_READ, uintptr(fd), ptr(b), 1)
}

// MoveFD makes to a duplicate of from, closed on exec.
func (s *Script) MoveFD(from, to int) {
	if from != to {
		s.add(stepCall, "move a descriptor", unix.SYS_DUP3, uintptr(from), uintptr(to), unix.O_CLOEXEC)
	}
}

// CloseFrom closes every descriptor from fd upwards, where the kernel can do
// it (5.9); else those not meant to be inherited are closed on exec.
func (s *Script) CloseFrom(fd int) {
	s.add(stepTry, "close descriptors", unix.SYS_CLOSE_RANGE, uintptr(fd), uintptr(^uint32(0)), 0)
}

// ReserveFDs makes the table of descriptors large enough for n of them, as far
// as RLIMIT_NOFILE allows, while it belongs to one thread. Where it is shared,
// each doubling waits for an RCU grace period (expand_fdtable in fs/file.c), some
// milliseconds in which a thread that opens a socket stands still. The table
// stays across execve; a fork makes it small again. Descriptor 0 must be open.
func (s *Script) ReserveFDs(n int) {
	s.add(stepTry, "reserve descriptors", unix.SYS_DUP3, 0, uintptr(n-1), unix.O_CLOEXEC)
	s.CloseFD(n - 1)
}

// CloseFD closes one descriptor.
func (s *Script) CloseFD(fd int) {
	s.add(stepTry, "close a descriptor", unix.SYS_CLOSE, uintptr(fd))
}

// InheritFD leaves fd open across execve.
func (s *Script) InheritFD(fd int) {
	s.add(stepCall, fmt.Sprintf("pass descriptor %d on", fd), unix.SYS_FCNTL, uintptr(fd), unix.F_SETFD, 0)
}

// OpenAs opens a device or file for reading and writing as descriptor fd.
func (s *Script) OpenAs(path string, fd int) {
	s.open(stepCall, "open "+path, path, unix.O_RDWR)
	s.add(stepChain, "open "+path, unix.SYS_DUP3, 0, uintptr(fd), 0)
	s.add(stepChain, "open "+path, unix.SYS_CLOSE)
}

// TryWriteFile writes text to an existing file; failing does not matter.
func (s *Script) TryWriteFile(path, text string) {
	label := "write " + path
	s.open(stepTry, label, path, unix.O_WRONLY)
	s.add(stepChainTry, label, unix.SYS_WRITE, 0, s.cString(text), uintptr(len(text)))
	s.add(stepChainTry, label, unix.SYS_CLOSE)
}

func (s *Script) open(kind uint32, label, path string, flags int) {
	at := unix.AT_FDCWD
	s.add(kind, label, unix.SYS_OPENAT, uintptr(at), s.cString(path), uintptr(flags|unix.O_CLOEXEC))
}

// Setns joins the namespace of a kind (CLONE_NEW...) that fd stands for.
func (s *Script) Setns(label string, fd int, kind uintptr) {
	s.add(stepCall, label, unix.SYS_SETNS, uintptr(fd), kind)
}

// Unshare leaves the namespaces of the kinds in flags for new ones.
func (s *Script) Unshare(label string, flags uintptr) {
	s.add(stepCall, label, unix.SYS_UNSHARE, flags)
}

// MountSlave keeps what is mounted in this mount namespace from propagating to others.
func (s *Script) MountSlave() {
	s.add(stepCall, "detach mounts", unix.SYS_MOUNT, 0, s.cString("/"), 0, unix.MS_REC|unix.MS_SLAVE, 0)
}

// TryMountProc mounts a new /proc. The kernel refuses where other mounts hide
// parts of the old one, as in many containers.
func (s *Script) TryMountProc() {
	proc := s.cString("proc")
	s.add(stepTry, "mount /proc", unix.SYS_MOUNT, proc, s.cString("/proc"), proc,
		unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, 0)
}

// Setsid makes the child the leader of a session of its own.
func (s *Script) Setsid() { s.add(stepCall, "start a session", unix.SYS_SETSID) }

// Setpgid makes the child the leader of a process group of its own.
func (s *Script) Setpgid() { s.add(stepCall, "start a process group", unix.SYS_SETPGID, 0, 0) }

// DeathSignal has the kernel send sig to the child when the thread that
// started it ends. A later change of identity clears it.
func (s *Script) DeathSignal(sig syscall.Signal) {
	s.add(stepCall, "set the death signal", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(sig))
}

// ExecOrScript is Exec, but runs a file of no format that the kernel knows as a
// shell script, as execvp(3) does.
func (s *Script) ExecOrScript(label, path string, argv, env []string) {
	s.add(stepExec, label, unix.SYS_EXECVE, s.cString(path), s.cStrings(argv), s.cStrings(env))
	s.Exec(label, "/bin/sh", append([]string{"sh", path}, argv[1:]...), env)
}
