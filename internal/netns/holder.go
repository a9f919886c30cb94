package netns

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"penne/internal/sys"
)

// child is a process of ours: the holder or the engine.
type child struct {
	// pid is 0 until known.
	pid int
	// conn joins us to it.
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

// startHolder makes the namespaces for a command, and the process which holds
// them. Its death signal belongs to the calling thread.
func startHolder(cmd *command, in sys.Inheritance, id *identity, userns bool) (*child, error) {
	conn, theirs, err := sys.ConnPair()
	if err != nil {
		return nil, fmt.Errorf("make connection to holder: %w", err)
	}
	defer sys.Close(theirs)
	s := holderScript(theirs, cmd, in, id, userns)
	flags := uintptr(namespaces)
	if userns {
		flags |= sys.CLONE_NEWUSER
	}
	pid, err := s.Start(flags)
	if err != nil {
		conn.Close()
		return nil, cloneError(err, userns)
	}
	h := &child{pid: pid, conn: conn, script: s}
	if userns {
		err = writeMaps(pid, id)
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

func cloneError(err error, userns bool) error {
	if !userns {
		return failure(err, "Failed to create namespaces: %s: without a user namespace this needs root", reason(err))
	}
	return userNSError("create namespaces", err)
}

// holderScript is the holder's life. It has the caller's identity, mapped to
// 0, or becomes the one that is mapped to 0 now.
func holderScript(conn int, cmd *command, in sys.Inheritance, id *identity, userns bool) *sys.Script {
	s := sys.NewScript(holderFD)
	s.MoveFD(conn, holderFD)
	s.CloseFrom(holderFD + 1)
	s.AwaitByte(holderFD) // the maps are written
	if id != nil && userns {
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
	return s
}

// execCommand labels the step that turns the holder's child into the command.
const execCommand = "execute the command"

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

// holderTarget opens the namespaces that the holder holds.
func holderTarget(h *child, userns bool) (*target, error) {
	t := newTarget()
	dir := fmt.Sprintf("/proc/%d/ns/", h.pid)
	var err error
	if t.process, err = sys.PidfdOpen(h.pid); err != nil {
		t.process = -1
	}
	if err == nil {
		t.net, err = sys.OpenFD(dir + "net")
	}
	if err == nil && userns {
		t.user, err = sys.OpenFD(dir + "user")
	}
	if err != nil {
		t.close()
		return nil, fmt.Errorf("open new namespaces: %w", err)
	}
	return t, nil
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
