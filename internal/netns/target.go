package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"penne/internal/conf"
	"penne/internal/sys"
)

// target is what the engine serves. Descriptors are -1 where there is none;
// all are closed on exec until the engine's script says otherwise.
type target struct {
	// user is the user namespace to join.
	user int
	// net is the network namespace.
	net int
	// process is the pidfd of a process; the engine ends when it does.
	process int
	// watch is an inotify instance whose watch watchID tells that watchName
	// is removed from its directory. Where the kernel grants none, dir is
	// that directory, to be looked into.
	watch, watchID int
	dir            int
	watchName      string
}

func newTarget() *target { return &target{user: -1, net: -1, process: -1, watch: -1, dir: -1} }

// close closes all descriptors, once.
func (t *target) close() {
	for _, fd := range []*int{&t.user, &t.net, &t.process, &t.watch, &t.dir} {
		if *fd >= 0 {
			sys.Close(*fd)
		}
		*fd = -1
	}
}

// existingTarget opens the namespaces that the command line names. The pidfd or watch
// comes first, so that the end of a process or name is not missed.
func existingTarget(p *conf.Pasta) (*target, error) {
	t := newTarget()
	var err error
	if p.PID != 0 {
		err = t.openProcess(p)
	} else {
		err = t.openPath(p)
	}
	if err == nil {
		err = t.dropOwnUserNS()
	}
	if err == nil && p.ConfigNet {
		err = t.refuseOwnNet()
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *target) openProcess(p *conf.Pasta) (err error) {
	if t.process, err = sys.PidfdOpen(p.PID); err != nil {
		t.process = -1
		return failure(err, "Failed to find process %d: %s: give the ID of one that runs", p.PID, reason(err))
	}
	dir := fmt.Sprintf("/proc/%d/ns/", p.PID)
	if t.net, err = openNS("network namespace", dir+"net", true); err != nil {
		return err
	}
	userns := p.Userns
	if userns == "" {
		userns = dir + "user"
	}
	if p.NetnsOnly {
		return nil
	}
	t.user, err = openNS("user namespace", userns, true)
	return err
}

func (t *target) openPath(p *conf.Pasta) (err error) {
	if !p.NoNetnsQuit {
		if err := t.watchPath(p.Netns); err != nil {
			return err
		}
	}
	if t.net, err = openNS("network namespace", p.Netns, p.Userns != ""); err != nil {
		return err
	}
	if p.Userns == "" {
		return nil
	}
	t.user, err = openNS("user namespace", p.Userns, true)
	return err
}

// watchPath arranges to be told when path goes, and, if it leads into /proc,
// which tells nothing, when the process does.
func (t *target) watchPath(path string) (err error) {
	if pid, ok := processBehind(path); ok {
		t.process, err = sys.PidfdOpen(pid)
		if err != nil {
			t.process = -1
			return joinError("open network namespace "+path, err, true)
		}
	}
	if strings.HasPrefix(path, "/proc/") {
		return nil
	}
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	if err = t.watchDir(dir, name); err != nil {
		return joinError("open network namespace "+path, err, true)
	}
	return nil
}

// watchDir arranges to be told when name goes from dir. A user's inotify
// instances and watches may all be taken (inotify(7), limits), which is no
// reason to refuse a container: the engine then looks by itself.
func (t *target) watchDir(dir, name string) (err error) {
	t.watchName = name
	if t.watch, err = sys.NewInotify(); err == nil {
		if t.watchID, err = sys.WatchRemoval(t.watch, dir); err == nil {
			return nil
		}
	}
	if t.dir, err = sys.OpenDir(dir); err != nil {
		t.dir = -1
	}
	return err
}

// maxLinks bounds a chain of symbolic links.
const maxLinks = 8

// processBehind returns the process in whose /proc directory path is, or leads
// by symbolic links. We ourselves do not count: the engine is another one.
func processBehind(path string) (pid int, ok bool) {
	for range maxLinks {
		if pid, ok := processOf(path); ok {
			return pid, pid != os.Getpid()
		}
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return 0, false
		}
		path = filepath.Join(dir, filepath.Base(path))
		if pid, ok := processOf(path); ok {
			return pid, pid != os.Getpid()
		}
		to, err := os.Readlink(path)
		if err != nil {
			return 0, false
		}
		if path = to; !filepath.IsAbs(to) {
			path = filepath.Join(dir, to)
		}
	}
	return 0, false
}

// processOf returns the process in whose /proc directory path is.
func processOf(path string) (pid int, ok bool) {
	rest, ok := strings.CutPrefix(path, "/proc/")
	if !ok {
		return 0, false
	}
	digits, _, ok := strings.Cut(rest, "/")
	if !ok {
		return 0, false
	}
	pid, err := strconv.Atoi(digits)
	return pid, err == nil && pid > 0
}

// openNS opens a namespace at path.
func openNS(kind, path string, userns bool) (int, error) {
	fd, err := sys.OpenFD(path)
	if err != nil {
		return -1, joinError("open "+kind+" "+path, err, userns || errors.Is(err, fs.ErrPermission))
	}
	want := sys.CLONE_NEWNET
	if kind == "user namespace" {
		want = sys.CLONE_NEWUSER
	}
	if got, err := sys.NamespaceKind(fd); err != nil || got != want {
		sys.Close(fd)
		return -1, joinError("open "+kind+" "+path, syscall.EINVAL, userns)
	}
	return fd, nil
}

// commandTarget opens the user namespace to make the others for a command in,
// if the command line names one.
func commandTarget(p *conf.Pasta) (*target, error) {
	t := newTarget()
	if p.Userns == "" {
		return t, nil
	}
	var err error
	if t.user, err = openNS("user namespace", p.Userns, true); err == nil {
		err = t.dropOwnUserNS()
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// openHolder opens the namespaces that the holder holds; the user namespace
// only if it is a new one.
func (t *target) openHolder(h *child, newUser bool) (err error) {
	dir := fmt.Sprintf("/proc/%d/ns/", h.pid)
	if t.process, err = sys.PidfdOpen(h.pid); err != nil {
		t.process = -1
	}
	if err == nil {
		t.net, err = sys.OpenFD(dir + "net")
	}
	if err == nil && newUser {
		t.user, err = sys.OpenFD(dir + "user")
	}
	if err != nil {
		return fmt.Errorf("open new namespaces: %w", err)
	}
	return nil
}

// dropOwnUserNS forgets the user namespace if we are in it already: setns(2)
// refuses that.
func (t *target) dropOwnUserNS() error {
	if t.user < 0 {
		return nil
	}
	own, err := isOwn(t.user, "user")
	if own {
		sys.Close(t.user)
		t.user = -1
	}
	return err
}

// refuseOwnNet keeps --config-net from leading the host's traffic into a tap, and
// back to the host.
func (t *target) refuseOwnNet() error {
	own, err := isOwn(t.net, "net")
	if own {
		err = failure(nil, "Failed to configure network namespace: it is our own: give that of a process which has another one")
	}
	return err
}

// isOwn reports whether the namespace fd, of the kind that /proc/self/ns calls so,
// is the one we are in.
func isOwn(fd int, kind string) (bool, error) {
	own, err := sys.OpenFD("/proc/self/ns/" + kind)
	if err != nil {
		return false, fmt.Errorf("open own %s namespace: %w", kind, err)
	}
	defer sys.Close(own)
	d1, i1, err1 := sys.Inode(own)
	d2, i2, err2 := sys.Inode(fd)
	if err := errors.Join(err1, err2); err != nil {
		return false, fmt.Errorf("compare %s namespaces: %w", kind, err)
	}
	return d1 == d2 && i1 == i2, nil
}
