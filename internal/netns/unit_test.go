package netns

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"penne/internal/conf"
	"penne/internal/sys"
)

func TestFindCommand(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	for path, mode := range map[string]os.FileMode{
		first + "/plain": 0o644, second + "/plain": 0o755,
		first + "/useless": 0o644,
		first + "/good":    0o755, second + "/good": 0o755,
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(first+"/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", first+":"+filepath.Join(dir, "missing")+":"+second)
	for _, c := range []struct {
		name, path string
		status     int
		text       string
	}{
		{"good", first + "/good", 0, ""},
		{"plain", second + "/plain", 0, ""},
		{"useless", "", 126, "useless: permission denied"},
		{"dir", "", 126, "dir: is a directory"},
		{"absent", "", 127, "absent: command not found"},
		{first + "/good", first + "/good", 0, ""},
		{first + "/useless", "", 126, first + "/useless: permission denied"},
		{first + "/absent", "", 127, first + "/absent: no such file or directory"},
	} {
		path, err := findCommand(c.name)
		switch {
		case c.status == 0 && (err != nil || path != c.path):
			t.Errorf("%s: %q, %v, want %q", c.name, path, err, c.path)
		case c.status != 0 && (err == nil || statusOf(err) != c.status || err.Error() != c.text):
			t.Errorf("%s: %v with status %d, want %s with %d", c.name, err, statusOf(err), c.text, c.status)
		}
	}
}

func TestResolveShell(t *testing.T) {
	t.Setenv("SHELL", "/bin/cat")
	c, err := resolveCommand(nil)
	if err != nil || c.path != "/bin/cat" || !reflect.DeepEqual(c.argv, []string{"-cat"}) {
		t.Errorf("got %+v, %v", c, err)
	}
	t.Setenv("SHELL", "")
	c, err = resolveCommand(nil)
	if err != nil || c.path != "/bin/sh" || !reflect.DeepEqual(c.argv, []string{"-sh"}) {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestRunAs(t *testing.T) {
	for _, c := range []struct {
		in   conf.RunAs
		want identity
		err  string
	}{
		{conf.RunAs{HasUID: true, UID: 4242424}, identity{4242424, 4242424}, ""},
		{conf.RunAs{HasUID: true, UID: 4242424, HasGID: true, GID: 7}, identity{4242424, 7}, ""},
		{conf.RunAs{Login: "root"}, identity{0, 0}, ""},
		{conf.RunAs{Login: "root", HasGID: true, GID: 9}, identity{0, 9}, ""},
		{conf.RunAs{Login: "root", Group: "root"}, identity{0, 0}, ""},
		{conf.RunAs{Login: "no-such-user"}, identity{}, "--runas: no user 'no-such-user'"},
		{conf.RunAs{Login: "root", Group: "no-such-group"}, identity{}, "--runas: no group 'no-such-group'"},
	} {
		got, err := runAs(&c.in)
		switch {
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("%+v: %v, %v, want %v", c.in, got, err, c.want)
		case c.err != "" && (err == nil || err.Error() != c.err):
			t.Errorf("%+v: %v, want %s", c.in, err, c.err)
		}
	}
}

func TestServeAs(t *testing.T) {
	own := &conf.RunAs{HasUID: true, UID: uint32(os.Geteuid()), HasGID: true, GID: uint32(os.Getegid())}
	other := &conf.RunAs{HasUID: true, UID: 4242424}
	if os.Geteuid() != 0 {
		if id, err := serveAs(nil); id != nil || err != nil {
			t.Errorf("a user becomes %v, %v", id, err)
		}
		if id, err := serveAs(own); id != nil || err != nil {
			t.Errorf("asked to stay, a user becomes %v, %v", id, err)
		}
		if id, err := serveAs(other); err == nil {
			t.Errorf("a user may become %v", id)
		}
		return
	}
	if id, err := serveAs(other); err != nil || *id != (identity{4242424, 4242424}) {
		t.Errorf("root becomes %v, %v", id, err)
	}
	if !sys.InInitialUserNamespace() {
		t.Skip("not root of the initial user namespace")
	}
	if id, err := serveAs(nil); err != nil || id == nil || id.uid == 0 {
		t.Errorf("root becomes %v, %v", id, err)
	}
	if id, err := serveAs(own); err == nil {
		t.Errorf("root may serve as %v", id)
	}
}

func TestEngineConn(t *testing.T) {
	for _, c := range []struct {
		argv []string
		fd   int
		ok   bool
	}{
		{nil, 0, false},
		{[]string{"pasta"}, 0, false},
		{[]string{"penne: engine"}, 0, false},
		{[]string{"penne: engine x"}, 0, false},
		{[]string{"penne: engine 2"}, 0, false},
		{[]string{"penne: engine 12", "pasta"}, 12, true},
	} {
		if fd, ok := engineConn(c.argv); ok != c.ok || ok && fd != c.fd {
			t.Errorf("%q: %d, %v", c.argv, fd, ok)
		}
	}
}

func TestHandover(t *testing.T) {
	for _, n := range []int{0, 1, portsPerMessage, portsPerMessage + 1, 4 * 1023} {
		want := &handover{NetNS: 5, Target: -1, Watch: 7, WatchID: 1, Dir: 8, Log: -1, Capture: 9, WatchName: "a name", Attended: true, Command: true}
		for i := range n {
			want.Ports = append(want.Ports, PrivilegedPort{
				FD: 10 + i, TCP: i%2 == 0, Iface: "lo",
				Addr: netip.IPv6LinkLocalAllNodes(), Port: uint16(i),
			})
		}
		a, fd, err := sys.ConnPair()
		if err != nil {
			t.Fatal(err)
		}
		b, err := sys.NewConn(fd)
		if err != nil {
			t.Fatal(err)
		}
		sent := make(chan error, 1)
		go func() { sent <- want.send(a) }()
		got, err := receiveHandover(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.Ports, want.Ports) {
			t.Errorf("%d ports arrive as %d others", n, len(got.Ports))
		}
		got.Ports, want.Ports = nil, nil
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		a.Close()
		if _, err := receiveHandover(b); err == nil {
			t.Error("a hand-over comes from a closed connection")
		}
		b.Close()
	}
}

func TestProcessOf(t *testing.T) {
	for _, c := range []struct {
		path string
		pid  int
		ok   bool
	}{
		{"/proc/12/ns/net", 12, true},
		{"/proc/12/task/13/ns/net", 12, true},
		{"/proc/self/ns/net", 0, false},
		{"/proc/12", 0, false},
		{"/proc/-1/ns/net", -1, false},
		{"/run/netns/12/x", 0, false},
	} {
		if pid, ok := processOf(c.path); ok != c.ok || ok && pid != c.pid {
			t.Errorf("%s: %d, %v", c.path, pid, ok)
		}
	}
}

func TestExistingTargetErrors(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		p    conf.Pasta
		want string
	}{
		{conf.Pasta{PID: gone.Process.Pid}, "Failed to find process " + strconv.Itoa(gone.Process.Pid) + ": no such process: give the ID of one that runs"},
		{conf.Pasta{Netns: plain}, "Failed to open network namespace " + plain + ": "},
		{conf.Pasta{Netns: "/nonexistent/x"}, "Failed to open network namespace /nonexistent/x: no such file or directory: give one that exists"},
		{conf.Pasta{Netns: filepath.Dir(plain) + "/x"},
			"Failed to open network namespace " + filepath.Dir(plain) + "/x: no such file or directory: give one that exists"},
		{conf.Pasta{Netns: "/proc/self/ns/user"}, "Failed to open network namespace /proc/self/ns/user: invalid argument: this is no"},
		{conf.Pasta{Netns: "/proc/self/ns/net", Userns: "/proc/self/ns/net"}, "Failed to open user namespace /proc/self/ns/net: "},
	} {
		tg, err := existingTarget(&c.p)
		if err == nil {
			tg.close()
			t.Errorf("%+v: no error", c.p)
			continue
		}
		if !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%+v: %q, want %q", c.p, err, c.want)
		}
	}
}

// Our own user namespace is not to be joined: the kernel would refuse.
func TestOwnUserNamespace(t *testing.T) {
	tg, err := existingTarget(&conf.Pasta{PID: os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	defer tg.close()
	if tg.user >= 0 || tg.net < 0 || tg.process < 0 {
		t.Errorf("got %+v", tg)
	}
}

// A command's user namespace is opened, if it is neither new nor our own.
func TestCommandTarget(t *testing.T) {
	for _, path := range []string{"", "/proc/self/ns/user"} {
		tg, err := commandTarget(&conf.Pasta{Userns: path})
		if err != nil || tg.user >= 0 {
			t.Errorf("%q: %+v, %v", path, tg, err)
		}
	}
	tg, err := commandTarget(&conf.Pasta{Userns: "/proc/self/ns/net"})
	want := "Failed to open user namespace /proc/self/ns/net: invalid argument: this is no namespace of that kind"
	if err == nil || err.Error() != want {
		t.Errorf("got %+v, %v, want %s", tg, err, want)
	}
}

func TestTunError(t *testing.T) {
	err := TunError(&fs.PathError{Op: "open", Path: sys.TunPath, Err: syscall.ENODEV})
	want := "Failed to open /dev/net/tun: no such device: load the tun module or make it accessible"
	if err.Error() != want || !errors.Is(err, syscall.ENODEV) || statusOf(err) != 1 {
		t.Errorf("got %q with status %d", err, statusOf(err))
	}
	err = TunError(fmt.Errorf("create tap: %w", syscall.ENOTTY))
	want = "Failed to open /dev/net/tun: inappropriate ioctl for device: load the tun module or make it accessible"
	if err.Error() != want {
		t.Errorf("for another file: %q", err)
	}
	busy := fmt.Errorf("create tap: %w", syscall.EBUSY)
	if err := TunError(busy); err != busy {
		t.Errorf("another error becomes %q", err)
	}
}

// What no setting explains may be a chroot or a filter; used-up namespaces are neither.
func TestUserNSError(t *testing.T) {
	for err, want := range map[syscall.Errno]string{
		syscall.EPERM:  "Failed to create namespaces: operation not permitted: ",
		syscall.ENOSPC: "Failed to create namespaces: no space left on device: ",
	} {
		got := userNSError("create namespaces", err).Error()
		hint, ok := strings.CutPrefix(got, want)
		if !ok || hint == "" || strings.Contains(got, "\n") {
			t.Errorf("got %q, want %q and what to do", got, want)
		}
	}
}

// A limit is no matter of privilege.
func TestCloneError(t *testing.T) {
	const (
		processes = ": resource temporarily unavailable: there are as many processes as are allowed, raise the limit (ulimit -u, or pids.max of the cgroup)"
		full      = ": no space left on device: there are as many namespaces as are allowed, raise the limits user.max_*_namespaces (sysctl)"
	)
	for _, c := range []struct {
		flags uintptr
		err   syscall.Errno
		want  string
	}{
		{0, syscall.EAGAIN, "Failed to start a process" + processes},
		{0, syscall.ENOMEM, "Failed to start a process: cannot allocate memory: there is too little memory"},
		{0, syscall.EINVAL, "Failed to start a process: invalid argument"},
		{namespaces, syscall.EAGAIN, "Failed to create namespaces" + processes},
		{namespaces, syscall.ENOSPC, "Failed to create namespaces" + full},
		{namespaces, syscall.EPERM, "Failed to create namespaces: operation not permitted: without a new user namespace this needs root"},
		{namespaces | sys.CLONE_NEWUSER, syscall.EAGAIN, "Failed to create namespaces" + processes},
	} {
		if got := cloneError(c.err, c.flags); got.Error() != c.want || !errors.Is(got, c.err) {
			t.Errorf("flags %#x, %v: %q, want %q", c.flags, c.err, got, c.want)
		}
	}
}

// What a helper that was killed leaves undone ends the launcher, which cannot
// hear of it from a process that never was.
func TestHelperKilled(t *testing.T) {
	killed := func() *child {
		cmd := exec.Command("sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		conn, theirs, err := sys.ConnPair()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sys.Close(theirs) })
		return &child{helper: cmd.Process.Pid, conn: conn}
	}
	holder := killed()
	defer holder.conn.Close()
	want := "the process that joins the user namespace ended too early: killed by signal 9"
	if err := holder.awaitHolder(); err == nil || err.Error() != want {
		t.Errorf("holder: %v, want %s", err, want)
	}
	var stderr strings.Builder
	l := &Launcher{Config: &conf.Config{Program: "pasta"}, Stderr: &stderr}
	engine := killed()
	r := &launch{Launcher: l, engine: engine, commandFD: -1, target: newTarget()}
	defer engine.conn.Close()
	status, done := r.onReady()
	if want := "pasta: the engine ended too early: killed by signal 9\n"; status != 1 || !done || stderr.String() != want {
		t.Errorf("engine: status %d, %v, %q, want 1 and %q", status, done, stderr.String(), want)
	}
}

func TestRelay(t *testing.T) {
	now := time.Unix(100, 0)
	var sent []string
	r := newSignalForwarder()
	r.now = func() time.Time { return now }
	r.send = func(fd int, sig syscall.Signal) error {
		sent = append(sent, fmt.Sprintf("%d:%d", fd, sig))
		return nil
	}
	r.forward(-1, syscall.SIGTERM)
	r.forward(-1, syscall.SIGHUP)
	if sent != nil {
		t.Errorf("sent to nobody: %v", sent)
	}
	r.flush(5)
	r.forward(5, syscall.SIGTERM) // the same one, by another way
	now = now.Add(duplicateWindow)
	r.forward(5, syscall.SIGTERM)
	if want := []string{"5:15", "5:1", "5:15"}; !reflect.DeepEqual(sent, want) {
		t.Errorf("sent %v, want %v", sent, want)
	}
}

// Two TERM that may be meant as one are no second request, the next one is.
func TestRelayInsists(t *testing.T) {
	start := time.Unix(100, 0)
	now := start
	r := newSignalForwarder()
	r.now = func() time.Time { return now }
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{0, false}, {0, false}, {insistAfter - 1, false}, {insistAfter, true}, {time.Hour, true}} {
		now = start.Add(c.after)
		if got := r.insists(); got != c.want {
			t.Errorf("TERM %v after the first: %v", c.after, got)
		}
	}
}

// An engine that fails before it reads is no reason to wait until it does, and
// its words come through.
func TestEngineDiesBeforeHandover(t *testing.T) {
	notNS, err := sys.OpenFD(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	tg := newTarget()
	tg.user = notNS
	defer tg.close()
	ports := make([]PrivilegedPort, 100*portsPerMessage) // far more than a socket buffer holds
	for i := range ports {
		ports[i].FD = -1
	}
	e, err := startEngine(&engineSpec{target: tg, hand: handover{Ports: ports}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.kill()
	b := make([]byte, sys.NoteSize)
	size, _, err := e.conn.Recv(b)
	n, ok := sys.ParseNote(b[:size])
	if err != nil || !ok {
		t.Fatalf("its last words are %q, %v", b[:size], err)
	}
	if got := engineFailure(e.script, n).Error(); got != "Failed to join the user namespace: invalid argument: this is no namespace of that kind" {
		t.Errorf("it says %q", got)
	}
}

// endedChild is a child that has executed argv, if it could, and has ended. It
// is to be reaped, and its words are to be heard.
func endedChild(t *testing.T, label string, argv ...string) *child {
	t.Helper()
	conn, theirs, err := sys.ConnPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s := sys.NewScript(theirs)
	s.Exec(label, argv[0], argv, nil)
	pid, err := s.Start(0)
	sys.Close(theirs)
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := sys.PidfdOpen(pid)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(pidfd), label)
	defer f.Close()
	sys.AwaitPidfd(f)
	return &child{pid: pid, conn: conn, script: s}
}

// The engine's end is heard of before the holder's, which came first: the status
// is the command's, and what the holder said of one that could not be executed
// is not lost. The engine is not waited for once more.
func TestEngineEndHeardFirst(t *testing.T) {
	for _, c := range []struct {
		argv   []string
		status int
		said   string
	}{
		{[]string{"/bin/sh", "-c", "exit 7"}, 7, ""},
		{[]string{"/nonexistent/x"}, statusNotFound, "pasta: x: no such file or directory\n"},
	} {
		var said strings.Builder
		engine := endedChild(t, "execute the engine", "/bin/true")
		r := &launch{
			Launcher: &Launcher{Config: &conf.Config{Program: "pasta"}, Stderr: &said}, command: &command{argv: []string{"x"}},
			target: newTarget(), ready: true, commandFD: -1,
			holder: endedChild(t, execCommand, c.argv...), engine: engine, events: make(chan event),
		}
		if status, done := r.onEvent(event{from: engine, err: io.EOF}); done {
			t.Fatalf("status %d before the holder was heard", status)
		}
		go r.listen(r.holder)
		if status := r.wait(); status != c.status || said.String() != c.said {
			t.Errorf("%v: status %d, %q, want %d, %q", c.argv, status, said.String(), c.status, c.said)
		}
		if engine.pid != 0 {
			t.Errorf("engine %d is there still", engine.pid)
		}
	}
}

func TestTypedWithoutTerminal(t *testing.T) {
	if typed(syscall.SIGTERM) {
		t.Error("TERM is typed")
	}
}

func TestPIDFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	var p pidFile
	if err := p.write("", 1); err != nil {
		t.Fatal(err)
	}
	p.remove()
	if err := p.write(path, 4711); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "4711\n" {
		t.Errorf("file has %q, %v", b, err)
	}
	p.remove()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after removal: %v", err)
	}
	// Somebody else's file of that name stays.
	if err := p.write(path, 1); err != nil {
		t.Fatal(err)
	}
	other := path + "2"
	if err := os.WriteFile(other, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	p.remove()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("another's file is gone: %v", err)
	}
}

// TestPIDFileLeavesOthers ends after a successor has written to the same file, and
// where the file is none that can be ours alone, as a device is.
func TestPIDFileLeavesOthers(t *testing.T) {
	path, link, pipe := filepath.Join(t.TempDir(), "pid"), filepath.Join(t.TempDir(), "link"), filepath.Join(t.TempDir(), "pipe")
	if err := errors.Join(os.Symlink(path, link), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for _, name := range []string{path, link, pipe} {
		var p, successor pidFile
		if err := p.write(name, 4711); err != nil {
			t.Fatal(err)
		}
		if name == path {
			if err := successor.write(name, 4712); err != nil {
				t.Fatal(err)
			}
		}
		p.remove()
		if _, err := os.Lstat(name); err != nil {
			t.Errorf("%s is gone: %v", filepath.Base(name), err)
		}
	}
}
