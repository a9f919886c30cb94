package netns

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"penne/internal/sys"
)

// engineArg0, followed by the number of the connection's descriptor, is argv[0] of
// the engine; the user's own argv follows.
const engineArg0 = "penne: engine "

// ownImage is this program, even if its file has been replaced since.
const ownImage = "/proc/self/exe"

// engineSpec are the parameters of startEngine.
type engineSpec struct {
	argv   []string
	target *target
	hand   handover
	id     *identity
	// ownUser says that the target's user namespace was made for id, which
	// is mapped to 0 there.
	ownUser bool
	// sandbox makes a user namespace for the engine, if none is joined.
	sandbox bool
	// attended says that the launcher keeps running: see engineScript.
	attended bool
	// extra are more descriptors to inherit.
	extra []int
}

// startEngine executes this program again as the engine, inside the target's
// user namespace and in mount, IPC, UTS and PID namespaces of its own. If that
// fails after the clone, the child's connection tells why.
func startEngine(spec *engineSpec) (*child, error) {
	conn, theirs, err := sys.ConnPair()
	if err != nil {
		return nil, fmt.Errorf("make connection to engine: %w", err)
	}
	s := engineScript(conn.FD(), theirs, spec)
	flags := uintptr(0)
	if spec.sandbox {
		flags = sys.CLONE_NEWUSER
	}
	pid, err := s.Start(flags)
	sys.Close(theirs) // otherwise sending would not fail when the child has ended
	if err != nil {
		conn.Close()
		return nil, cloneError(err, flags)
	}
	e := &child{helper: pid, conn: conn, script: s}
	if spec.sandbox {
		if err = writeMaps(pid, nil); err == nil {
			err = conn.Send(proceed)
		}
	}
	if err == nil {
		err = spec.hand.send(conn)
	}
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return e, nil // it has ended, and has sent why
	}
	if err != nil {
		e.kill()
		return nil, err
	}
	return e, nil
}

// engineFDs is room for as many descriptors as one engine commonly has: 128 KiB
// of kernel memory.
const engineFDs = 1 << 14

// engineScript leads from a clone of the launcher to the engine. USR1 and USR2
// stay blocked in all its threads, for signalfd(2).
//
// A daemon has a session of its own. Beside an attended launcher a process group is
// enough for the terminal's signals to pass the engine by, and the session stays
// common with the command's: where the kernel shares CPUs out by session
// (CONFIG_SCHED_AUTOGROUP), the two then settle on one CPU, and the command's peer
// has another, instead of moving about. A terminal may stop processes in the
// background that write to it (stty tostop), unless they ignore SIGTTOU.
func engineScript(ours, theirs int, spec *engineSpec) *sys.Script {
	s := sys.NewScript(theirs)
	s.CloseFD(ours)
	if spec.sandbox {
		s.AwaitByte(theirs)
	}
	t := spec.target
	keep := append([]int{theirs, t.net, t.process, t.watch, t.dir, spec.hand.Log, spec.hand.Capture}, spec.extra...)
	for _, p := range spec.hand.Ports {
		keep = append(keep, p.FD)
	}
	for _, fd := range keep {
		if fd >= 0 {
			s.InheritFD(fd)
		}
	}
	ignored := uint64(0)
	if spec.attended {
		s.Setpgid()
		ignored = sys.SignalSet(syscall.SIGTTOU)
	} else {
		s.Setsid()
	}
	s.OpenAs("/dev/null", 0)
	takeIdentity(s, spec)
	s.Unshare(unshareEngine, sys.CLONE_NEWNS|sys.CLONE_NEWIPC|sys.CLONE_NEWUTS)
	s.MountSlave()
	s.SignalActions(ignored)
	s.SignalMask(sys.SignalSet(syscall.SIGUSR1, syscall.SIGUSR2))
	argv := append([]string{engineArg0 + strconv.Itoa(theirs)}, spec.argv...)
	s.Fork("start the engine", sys.CLONE_PARENT|sys.CLONE_NEWPID, noteEngine, func() {
		s.ReserveFDs(min(sys.RaiseFileLimit(), engineFDs))
		s.Exec("execute the engine", ownImage, argv, os.Environ())
	})
	return s
}

// takeIdentity joins the user namespace and stops being root of the initial one. If
// the user we become is 0 in that namespace, joining comes first, for which owning it
// is enough. In a namespace of others that user, or the caller, may have another ID
// or none, and must keep its capabilities.
func takeIdentity(s *sys.Script, spec *engineSpec) {
	user, id := spec.target.user, spec.id
	if id != nil && !spec.ownUser {
		s.DropGroups()
		s.IdentityKeepingCaps(id.uid, id.gid)
	}
	if user >= 0 {
		s.Setns(joinUserNS, user, sys.CLONE_NEWUSER)
	}
	switch {
	case spec.ownUser && id != nil:
		s.DropGroups()
		s.Identity(0, 0)
	case !spec.ownUser && (id != nil || user >= 0):
		s.AmbientCaps(user >= 0)
	}
}

// Labels of steps whose failure has a hint.
const (
	joinUserNS    = "join the user namespace"
	unshareEngine = "create the engine's namespaces"
)

// engineFailure describes a failed step of the engine's script.
func engineFailure(s *sys.Script, n sys.Note) error {
	err := syscall.Errno(n.B)
	switch label := s.Label(n.A); label {
	case joinUserNS:
		return joinError(label, err, true)
	case unshareEngine:
		if err != syscall.EPERM {
			return limitError(label, err)
		}
		return failure(err, "Failed to %s: %s: joining a network namespace needs capabilities over it, "+
			"run inside its user namespace or give that with --userns", label, reason(err))
	default:
		return limitError(label, err)
	}
}

// engineConn reports whether argv is that of an engine, and which descriptor is
// its connection.
func engineConn(argv []string) (fd int, ok bool) {
	if len(argv) == 0 {
		return 0, false
	}
	number, ok := strings.CutPrefix(argv[0], engineArg0)
	if !ok {
		return 0, false
	}
	fd, err := strconv.Atoi(number)
	return fd, err == nil && fd > 2
}
