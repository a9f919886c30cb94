package netns

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"penne/internal/sys"
)

// child is a child process: the holder or the engine.
type child struct {
	// pid is 0 until known.
	pid int
	// conn is the connection to it.
	conn *sys.Conn
	// script is what it runs before, or instead of, other code.
	script *sys.Script
	// helper is the process which cloned it, to be reaped, or 0.
	helper int
}

// holderFD is the holder's end of its connection; the holder has no other
// descriptors but the standard ones.
const holderFD = 3

// namespaces is what a command gets of its own, besides the user namespace.
const namespaces = sys.CLONE_NEWNET | sys.CLONE_NEWNS | sys.CLONE_NEWPID | sys.CLONE_NEWIPC | sys.CLONE_NEWUTS

// holderSpec are the parameters of startHolder.
type holderSpec struct {
	command   *command
	inherited sys.Inheritance
	id        *identity
	// newUser asks for a new user namespace; else user is the one to join,
	// or -1 to stay in ours.
	newUser bool
	user    int
}

// startHolder makes the namespaces for a command, and the process which holds
// them. Its death signal belongs to the calling thread.
func startHolder(spec *holderSpec) (*child, error) {
	conn, theirs, err := sys.ConnPair()
	if err != nil {
		return nil, fmt.Errorf("make connection to holder: %w", err)
	}
	h := &child{conn: conn, script: holderScript(theirs, spec)}
	pid, err := h.script.Start(spec.flags())
	sys.Close(theirs)
	if err != nil {
		conn.Close()
		return nil, cloneError(err, spec.flags())
	}
	switch {
	case spec.user >= 0:
		h.helper = pid
		err = h.awaitHolder()
	case spec.newUser:
		h.pid = pid
		err = writeMaps(pid, spec.id)
	default:
		h.pid = pid
	}
	if err == nil {
		err = conn.Send(proceed)
	}
	if err != nil {
		h.kill()
		return nil, err
	}
	return h, nil
}

// flags are those of the clone that starts the script.
func (s *holderSpec) flags() uintptr {
	switch {
	case s.user >= 0:
		return 0
	case s.newUser:
		return namespaces | sys.CLONE_NEWUSER
	}
	return namespaces
}

// awaitHolder waits for a helper to join the user namespace and make the holder
// in it. The helper's end is waited for before its word is read: should it be
// killed there may be no word, and no end of the connection either, which the
// holder has.
func (c *child) awaitHolder() error {
	if ws := c.reapHelper(); ws.Signaled() {
		return fmt.Errorf("the process that joins the user namespace ended too early: %s", describe(ws))
	}
	b := make([]byte, sys.NoteSize)
	size, _, err := c.conn.Recv(b)
	if err != nil {
		return fmt.Errorf("hear of the holder: %w", err)
	}
	n, _ := sys.ParseNote(b[:size])
	if n.Kind != noteHolder {
		return holderFailure(c.script, n)
	}
	c.pid = int(n.A)
	return nil
}

// cloneError describes a failure of clone(2).
func cloneError(err error, flags uintptr) error {
	switch {
	case flags == 0:
		return limitError("start a process", err)
	case flags&sys.CLONE_NEWUSER == 0 && errors.Is(err, syscall.EPERM):
		return failure(err, "Failed to %s: %s: without a new user namespace this needs root", createNS, reason(err))
	}
	return userNSError(createNS, err)
}

// holderFailure describes a failed step of the holder's script, except executing the
// command.
func holderFailure(s *sys.Script, n sys.Note) error {
	err := syscall.Errno(n.B)
	if s.Label(n.A) == joinUserNS {
		return joinError(joinUserNS, err, true)
	}
	return userNSError(s.Label(n.A), err)
}

// holderScript leads to the holder. Where it joins a user namespace a clone has
// to come in between: a process cannot move itself to a new PID namespace. Its
// identity there is the caller's, whatever number that has.
func holderScript(conn int, spec *holderSpec) *sys.Script {
	s := sys.NewScript(holderFD)
	if spec.user < 0 {
		s.MoveFD(conn, holderFD)
		holderSteps(s, spec)
		return s
	}
	user := max(conn, spec.user, holderFD) + 1 // unused
	s.MoveFD(spec.user, user)
	s.MoveFD(conn, holderFD)
	if spec.id != nil {
		s.DropGroups()
		s.IdentityKeepingCaps(spec.id.uid, spec.id.gid)
	}
	s.Setns(joinUserNS, user, sys.CLONE_NEWUSER)
	s.Fork(createNS, sys.CLONE_PARENT|namespaces, noteHolder, func() { holderSteps(s, spec) })
	return s
}

// holderSteps are the steps of the holder. It has the caller's identity, or takes the
// one that is mapped to 0 in its new user namespace.
func holderSteps(s *sys.Script, spec *holderSpec) {
	cmd, in := spec.command, spec.inherited
	s.CloseFrom(holderFD + 1)
	s.AwaitByte(holderFD) // it is known, and the maps are written
	if spec.id != nil && spec.newUser {
		s.DropGroups()
		s.Identity(0, 0)
	}
	s.DeathSignal(syscall.SIGKILL)
	s.MountSlave()
	s.TryMountProc()
	s.TryWriteFile("/proc/sys/net/ipv4/ping_group_range", "0 0")
	s.AwaitByte(holderFD) // the network is ready
	s.ForkAndReap("start a process", noteCommand, func() {
		s.SignalActions(in.Ignored)
		s.FileLimit(in.Soft, in.Hard)
		s.SignalMask(in.Mask)
		s.ExecOrScript(execCommand, cmd.path, cmd.argv, os.Environ())
	})
}

// Labels of steps whose failure has a text of its own.
const (
	createNS    = "create namespaces"
	execCommand = "execute the command" // what turns the holder's child into it
)

// writeMaps maps 0 in the user namespace of pid to the caller, or to id.
func writeMaps(pid int, id *identity) error {
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	dir := fmt.Sprintf("/proc/%d/", pid)
	if id == nil {
		// Without privilege a group map is accepted only after this.
		if err := writeExisting(dir+"setgroups", "deny"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return userNSError("restrict groups", err)
		}
	} else {
		uid, gid = id.uid, id.gid
	}
	if err := writeExisting(dir+"uid_map", fmt.Sprintf("0 %d 1\n", uid)); err != nil {
		return userNSError("map users", err)
	}
	if err := writeExisting(dir+"gid_map", fmt.Sprintf("0 %d 1\n", gid)); err != nil {
		return userNSError("map groups", err)
	}
	return nil
}

func writeExisting(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// kill ends the child at once and reaps it. With the holder, the kernel ends
// all that runs in its namespaces.
func (c *child) kill() {
	c.conn.Close()
	if c.pid != 0 {
		_ = syscall.Kill(c.pid, syscall.SIGKILL)
	}
	c.reap()
}

// reap waits for the child's end and tells how it came; if the child has not
// come into being, that is how its helper ended.
func (c *child) reap() syscall.WaitStatus {
	ws := c.reapHelper()
	if c.pid != 0 {
		ws, _ = sys.Wait(c.pid)
		c.pid = 0
	}
	return ws
}

func (c *child) reapHelper() (ws syscall.WaitStatus) {
	if c.helper != 0 {
		ws, _ = sys.Wait(c.helper)
		c.helper = 0
	}
	return ws
}

// status is the exit status that a shell would report for ws.
func status(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return statusSignal + int(ws.Signal())
	}
	return ws.ExitStatus()
}
