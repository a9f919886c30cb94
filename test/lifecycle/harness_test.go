package lifecycle

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"penne/internal/sys"
)

// entryFlags is how the product is linked; see sys.Inherited.
const entryFlags = "-s -w -E penne/internal/sys.entry"

// patience bounds what happens in milliseconds unless something is wrong.
const patience = time.Minute

// bin is the directory with the binaries, which everybody may enter.
var bin string

// nextUID counts the users of tests from firstUID on: no account has such a
// number, nor has another run of these tests.
var nextUID atomic.Int32

func firstUID() int { return 0x40000000 + os.Getpid()%0x400000*64 }

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == counterName {
		os.Exit(counterMain())
	}
	handleSignals()
	os.Exit(runTests(m))
}

// handleSignals keeps what we start from ignoring signals because our caller
// does, as a shell does for a job in the background, and nohup(1): what is
// handled here is not ignored there. Their usual effect stays.
func handleSignals() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP, syscall.SIGINT)
	go func() {
		sig := <-c
		signal.Reset(sig)
		_ = syscall.Kill(os.Getpid(), sig.(syscall.Signal))
		os.Exit(1) // it was ignored
	}()
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "penne-lifecycle-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	if err := build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func build(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-ldflags", entryFlags, "-o", filepath.Join(dir, "penne"), "penne/cmd/penne")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build penne: %w: %s", err, out)
	}
	if err := os.Symlink("penne", filepath.Join(dir, "pasta")); err != nil {
		return err
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, counterName), self, 0o755)
}

// user is whom a test's processes run as.
type user struct {
	t   *testing.T
	uid int
	dir string // the user's own, writable
}

// newUser makes an unprivileged user; at the end of the test nothing of its
// processes may be left. Whoever is not root cannot be another user, and has
// other processes than a test's.
func newUser(t *testing.T) *user {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be a user of its own whose processes can be told from others'")
	}
	openTun(t)
	u := &user{t: t, uid: firstUID() + int(nextUID.Add(1))}
	dir, err := os.MkdirTemp("", "penne-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	u.dir = dir
	if err := os.Chown(dir, u.uid, u.uid); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.mustBeGone() })
	requireUserNS(u)
	return u
}

// openTun lets everybody make taps, as most systems do and some test machines
// do not.
func openTun(t *testing.T) {
	t.Helper()
	const tun = "/dev/net/tun"
	info, err := os.Stat(tun)
	if err != nil {
		t.Skipf("no tap can be made here: %v", err)
	}
	if info.Mode().Perm()&0o006 == 0o006 {
		return
	}
	if err := os.Chmod(tun, 0o666); err != nil {
		t.Skipf("%s is for root only: %v", tun, err)
	}
}

func requireUserNS(u *user) {
	u.t.Helper()
	if out, err := u.command("unshare", "-Urn", "true").CombinedOutput(); err != nil {
		u.t.Skipf("user namespaces are forbidden here: %v: %s", err, out)
	}
}

// command prepares a command of the user. The program "pasta" is ours, and
// quiet.
func (u *user) command(argv ...string) *exec.Cmd {
	if argv[0] == "pasta" {
		argv = append([]string{filepath.Join(bin, "pasta"), "-q"}, argv[1:]...)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = u.dir
	cmd.Env = []string{"PATH=" + bin + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + u.dir}
	if u.uid != 0 {
		id := uint32(u.uid)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	}
	return cmd
}

// run is a command that has been started.
type run struct {
	*exec.Cmd
	t      *testing.T
	pidfd  *os.File
	guard  *time.Timer
	feed   *os.File // what startOpen keeps open
	out    *lines
	stdout bytes.Buffer
	stderr bytes.Buffer
	status int
}

// start starts a command; its standard output can be read by lines.
func (u *user) start(argv ...string) *run {
	u.t.Helper()
	return u.startWith(nil, argv...)
}

// startWith is start with a standard input, nil for an empty one.
func (u *user) startWith(stdin io.Reader, argv ...string) *run {
	u.t.Helper()
	r := &run{Cmd: u.command(argv...), t: u.t}
	r.Stdin = stdin
	pr, pw, err := os.Pipe()
	if err != nil {
		u.t.Fatal(err)
	}
	r.Stdout, r.Stderr = pw, &r.stderr
	r.out = newLines(io.TeeReader(pr, &r.stdout))
	if err := r.Start(); err != nil {
		u.t.Fatal(err)
	}
	pw.Close()
	u.t.Cleanup(func() { pr.Close() })
	fd, err := sys.PidfdOpen(r.Process.Pid)
	if err != nil {
		u.t.Fatal(err)
	}
	r.pidfd = os.NewFile(uintptr(fd), "pidfd")
	r.guard = time.AfterFunc(patience, func() {
		r.t.Errorf("%v did not end; processes: %v", r.Args, processes(u.uid))
		_ = r.Process.Kill()
	})
	return r
}

// wait waits for the command's end and returns its status, 128 and more for a
// signal.
func (r *run) wait() int {
	r.t.Helper()
	_ = r.Wait()
	r.guard.Stop()
	r.pidfd.Close()
	ws, _ := r.ProcessState.Sys().(syscall.WaitStatus)
	r.status = ws.ExitStatus()
	if ws.Signaled() {
		r.status = 128 + int(ws.Signal())
	}
	return r.status
}

// signal sends a signal to the command's process.
func (r *run) signal(sig syscall.Signal) {
	r.t.Helper()
	if err := r.Process.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
}

// expectLine reads the next line of output.
func (r *run) expectLine(want string) {
	r.t.Helper()
	if got := r.out.next(); got != want {
		r.t.Fatalf("%v prints %q, want %q (errors %q)", r.Args, got, want, r.stderr.String())
	}
}

// finish runs a command to its end.
func (u *user) finish(argv ...string) *run {
	u.t.Helper()
	r := u.start(argv...)
	r.wait()
	r.out.rest()
	return r
}

// expect checks status and the two outputs; a nil text is not compared.
func (r *run) expect(status int, stdout, stderr string) {
	r.t.Helper()
	if r.status != status || r.stdout.String() != stdout || r.stderr.String() != stderr {
		r.t.Errorf("%v: status %d, output %q, errors %q,\nwant %d, %q, %q",
			r.Args[1:], r.status, r.stdout.String(), r.stderr.String(), status, stdout, stderr)
	}
}

// lines reads lines.
type lines struct{ r io.Reader }

func newLines(r io.Reader) *lines { return &lines{r} }

// next returns the next line without its end, or what there is before the end
// of the file.
func (l *lines) next() string {
	b := make([]byte, 1)
	var line []byte
	for {
		n, err := l.r.Read(b)
		if n == 1 && b[0] != '\n' {
			line = append(line, b[0])
		}
		if err != nil || n == 1 && b[0] == '\n' {
			return string(line)
		}
	}
}

// rest reads to the end of the file.
func (l *lines) rest() { _, _ = io.Copy(io.Discard, l.r) }

// process is what /proc says of one.
type process struct {
	pid, parent int
	argv        []string
	state       string
}

func (p process) String() string {
	return fmt.Sprintf("%d (of %d, %s) %q", p.pid, p.parent, p.state, p.argv)
}

// isEngine tells whether it is an engine that has reached its program.
func (p process) isEngine() bool {
	return len(p.argv) > 0 && strings.HasPrefix(p.argv[0], "penne: engine")
}

// processes lists the processes of a uid.
func processes(uid int) (list []process) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		var st syscall.Stat_t
		if err := syscall.Stat(dir, &st); err != nil {
			continue
		}
		p, owner, ok := readProcess(dir)
		if p.state == "Z" && p.parent == 1 {
			continue // gone, but for the system's own process 1
		}
		if ok && owner == uid {
			list = append(list, p)
		}
	}
	return list
}

// readProcess reads one directory of /proc. The owner is the real uid, since
// the directory's is root's for some.
func readProcess(dir string) (p process, owner int, ok bool) {
	b, err := os.ReadFile(dir + "/status")
	if err != nil {
		return p, 0, false
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		switch key {
		case "Pid":
			p.pid, _ = strconv.Atoi(fields[0])
		case "PPid":
			p.parent, _ = strconv.Atoi(fields[0])
		case "Uid":
			owner, _ = strconv.Atoi(fields[0])
		case "State":
			p.state = fields[0]
		}
	}
	if b, err := os.ReadFile(dir + "/cmdline"); err == nil && len(b) > 0 {
		p.argv = strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	}
	return p, owner, p.pid != 0
}

// Fields of statOf.
const (
	statGroup   = 2
	statSession = 3
	statTTY     = 4
)

// statOf are the fields of a process's /proc/PID/stat after its name.
func statOf(t *testing.T, pid int) []string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
}

// find waits until one of the user's processes fits; ok is false if that has
// not come when the command has ended.
func (r *run) find(uid int, fits func(process) bool) (p process, ok bool) {
	for !sys.PidfdEnded(int(r.pidfd.Fd())) {
		for _, p := range processes(uid) {
			if fits(p) {
				return p, true
			}
		}
	}
	return p, false
}

// engineOf finds the command's engine, a process of u.
func (r *run) engineOf(u *user) process {
	r.t.Helper()
	engine, ok := r.find(u.uid, process.isEngine)
	if !ok {
		r.t.Fatal("no engine")
	}
	return engine
}

// waitGone waits for the end of all of the user's processes but some.
func (u *user) waitGone(but ...*run) {
	u.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		left := slices.DeleteFunc(processes(u.uid), func(p process) bool { return p.isOne(but) })
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			u.t.Errorf("these stay: %v", left)
			return
		}
		awaitProcess(left[0].pid)
	}
}

// awaitProcess waits for a process's end, and where it is a zombie for its
// reaping; it gives up after a while.
func awaitProcess(pid int) {
	fd, err := sys.PidfdOpen(pid)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	guard := time.AfterFunc(patience/4, func() { f.Close() })
	sys.AwaitPidfd(f)
	if guard.Stop() {
		f.Close()
	}
}

// mustBeGone ends what is left, which is a failure.
func (u *user) mustBeGone() {
	u.t.Helper()
	if left := processes(u.uid); len(left) > 0 {
		u.t.Errorf("left behind: %v", left)
		u.killAll()
	}
}

// killAll ends the user's processes.
func (u *user) killAll() {
	for _, p := range processes(u.uid) {
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
	}
}
