package lifecycle

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"penne/internal/sys"
)

// target is a process in a user and network namespace of its own. It waits for
// input, not by exec of sleep: a process in the middle of exec lets nobody look
// at its namespaces.
func (u *user) target() *run {
	u.t.Helper()
	return u.startOpen("up", "unshare", "-Urn", "sh", "-c", "echo up; read never")
}

// startOpen is start with a standard input that stays open until the test's
// end, and waits for the first line of output.
func (u *user) startOpen(line string, argv ...string) *run {
	u.t.Helper()
	in, feed, err := os.Pipe()
	if err != nil {
		u.t.Fatal(err)
	}
	defer in.Close()
	u.t.Cleanup(func() { feed.Close() })
	r := u.startWith(in, argv...)
	r.feed = feed
	r.expectLine(line)
	return r
}

func (r *run) pid() string { return strconv.Itoa(r.Process.Pid) }

// end kills a helper of the test.
func (r *run) end() {
	r.t.Helper()
	r.signal(syscall.SIGKILL)
	r.wait()
}

// hasTap tells whether a process's network namespace has one, other than lo.
func hasTap(t *testing.T, pid string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/" + pid + "/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), ":") > 1
}

// In the foreground the launcher stays until a signal ends the engine, and the
// joined process does not notice.
func TestForegroundSignals(t *testing.T) {
	u := newUser(t)
	target := u.target()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		pidFile := filepath.Join(u.dir, "pid")
		r := u.start("pasta", "-f", "--config-net", "-P", pidFile, target.pid())
		u.awaitFile(r, pidFile)
		if got := u.readFile(pidFile); got != r.pid() {
			t.Errorf("the pid file has %s, want the launcher's %s", got, r.pid())
		}
		if !hasTap(t, target.pid()) {
			t.Error("ready without a tap")
		}
		r.signal(sig)
		r.wait()
		r.expect(0, "", "")
		if left := processes(u.uid); len(left) != 1 {
			t.Errorf("after %v: %v", sig, left)
		}
		if _, err := os.Stat(pidFile); err == nil {
			t.Errorf("after %v the pid file is still there", sig)
		}
		if hasTap(t, target.pid()) {
			t.Errorf("after %v the tap is still there", sig)
		}
	}
	target.end()
}

// An engine in the foreground does not outlive a launcher that is killed, as
// callers end what they have started.
func TestForegroundKilled(t *testing.T) {
	u := newUser(t)
	target := u.target()
	pidFile := filepath.Join(u.dir, "pid")
	r := u.start("pasta", "-f", "--config-net", "-P", pidFile, target.pid())
	u.awaitFile(r, pidFile)
	engine := r.engineOf(u)
	r.signal(syscall.SIGKILL)
	r.wait()
	awaitProcess(engine.pid)
	if hasTap(t, target.pid()) {
		t.Error("the tap is still there")
	}
	target.end()
}

// awaitFile waits until the pid file is complete, or the process has ended.
func (u *user) awaitFile(r *run, path string) {
	u.t.Helper()
	for {
		b, err := os.ReadFile(path)
		if err == nil && strings.HasSuffix(string(b), "\n") {
			return
		}
		if sys.PidfdEnded(int(r.pidfd.Fd())) {
			r.wait()
			u.t.Fatalf("%v ended too early: %d, %s", r.Args, r.status, r.stderr.String())
		}
	}
}

func (u *user) readFile(path string) string {
	u.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		u.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestForegroundTargetEnds(t *testing.T) {
	u := newUser(t)
	target := u.target()
	pidFile := filepath.Join(u.dir, "pid")
	r := u.start("pasta", "-f", "-P", pidFile, target.pid())
	u.awaitFile(r, pidFile)
	target.end()
	r.wait()
	r.expect(0, "", "")
}

// daemon starts pasta in the background and returns its pid, as its pid file
// tells it.
func (u *user) daemon(argv ...string) int {
	u.t.Helper()
	pidFile := filepath.Join(u.dir, "pid")
	r := u.finish(append([]string{"pasta", "--config-net", "-P", pidFile}, argv...)...)
	r.expect(0, "", "")
	pid, err := strconv.Atoi(u.readFile(pidFile))
	if err != nil {
		u.t.Fatal(err)
	}
	return pid
}

// A daemon is ready when its launcher ends with status 0, and has let go of
// everything of its caller: u.finish reads its output to the end.
func TestDaemon(t *testing.T) {
	u := newUser(t)
	target := u.target()
	pid := u.daemon(target.pid())
	if !hasTap(t, target.pid()) {
		t.Error("no tap when the launcher has ended")
	}
	dir := fmt.Sprintf("/proc/%d/", pid)
	for fd := range 3 {
		if to, err := os.Readlink(fmt.Sprintf("%sfd/%d", dir, fd)); to != "/dev/null" && to != "/null" {
			t.Errorf("descriptor %d is %q (%v)", fd, to, err)
		}
	}
	stat := statOf(t, pid)
	if stat[statTTY] != "0" || stat[statSession] == statOf(t, os.Getpid())[statSession] {
		t.Errorf("it has a terminal, or its caller's session: %v", stat)
	}
	var comm string
	if comm = u.readFile(dir + "comm"); comm != "pasta" {
		t.Errorf("its name is %q", comm)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitProcess(pid)
	if hasTap(t, target.pid()) {
		t.Error("the tap is still there")
	}
	target.end()
	u.waitGone()
}

func TestDaemonTargetEnds(t *testing.T) {
	u := newUser(t)
	target := u.target()
	pid := u.daemon(target.pid())
	target.end()
	awaitProcess(pid)
	u.waitGone()
}

// As Podman has it: uid 0 in a user namespace, a bind mount of the network
// namespace, no --userns. The daemon ends when the name goes, unless told not
// to, and only then.
const podman = `
	set -e
	mount -t tmpfs none "$DIR"
	touch "$DIR/ns" "$DIR/other"
	unshare -n sh -c 'mount --bind /proc/self/ns/net "$DIR/ns"'
	[ -z "$LIMIT" ] || echo ${LIMIT#*=} >/proc/sys/user/${LIMIT%=*}
	pasta -q --config-net -P "$DIR/pid" $OPTIONS --netns "$DIR/ns"
	nsenter --net="$DIR/ns" cat /proc/self/net/dev | wc -l
	pid=$(cat "$DIR/pid")
	rm "$DIR/other"
	kill -0 $pid
	echo $pid
	read go || :
	umount "$DIR/ns"
	rm "$DIR/ns"
	case "$OPTIONS" in
	*--no-netns-quit*) kill -0 $pid; kill -TERM $pid;;
	esac
	while [ -e /proc/$pid/fd/0 ]; do :; done # a zombie has none
	echo gone
`

// A user may have no inotify instance left, or no watch, and the daemon must
// not take more than one.
func TestNetnsPath(t *testing.T) {
	u := newUser(t)
	for _, c := range []struct {
		options, limit string
		instances      int
	}{
		{"", "", 1},
		{"--no-netns-quit", "", 1},
		{"", "max_inotify_instances=1", 1},
		{"", "max_inotify_instances=0", 0},
		{"", "max_inotify_watches=0", 1},
	} {
		r := u.startOpen("4", "unshare", "-Urm", "env", "DIR="+u.dir, "OPTIONS="+c.options, "LIMIT="+c.limit, "sh", "-c", podman)
		if pid := r.out.next(); inotifyInstances(pid) != c.instances {
			t.Errorf("%+v: %d inotify instances", c, inotifyInstances(pid))
		}
		r.feed.Close()
		r.wait()
		r.out.rest()
		if !strings.HasSuffix(r.stdout.String(), "\ngone\n") || r.status != 0 {
			t.Errorf("%+v: status %d, %q, %s", c, r.status, r.stdout.String(), r.stderr.String())
		}
		u.waitGone()
	}
}

// inotifyInstances counts those of a process.
func inotifyInstances(pid string) (n int) {
	links, _ := filepath.Glob("/proc/" + pid + "/fd/*")
	for _, l := range links {
		if to, _ := os.Readlink(l); to == "anon_inode:inotify" {
			n++
		}
	}
	return n
}

// A path in /proc tells nothing when it goes: the process does, by whatever
// symbolic link it is named.
func TestNetnsInProc(t *testing.T) {
	u := newUser(t)
	for _, link := range []struct{ name, to, rest string }{
		{"/proc/%s/ns/net", "", ""},
		{"link", "/proc/%s/ns/net", ""},
		{"dir", "/proc/%s/ns", "/net"},
	} {
		target := u.target()
		path := strings.Replace(link.name, "%s", target.pid(), 1)
		if link.to != "" {
			path = filepath.Join(u.dir, link.name)
			if err := os.Symlink(strings.Replace(link.to, "%s", target.pid(), 1), path); err != nil {
				t.Fatal(err)
			}
		}
		pid := u.daemon("--userns", target.usernsOf(), "--netns", path+link.rest)
		if !hasTap(t, target.pid()) {
			t.Error("no tap")
		}
		target.end()
		awaitProcess(pid)
		u.waitGone()
	}
}

// Our own entry in /proc is the launcher's, which the daemon outlives. To be led to
// itself is no network.
func TestNetnsOfOurOwn(t *testing.T) {
	u := newUser(t)
	r := u.finish("unshare", "-Urn", "sh", "-c", `
		ln -s /proc/self/ns/net `+u.dir+`/link
		pasta -q -P `+u.dir+`/pid --netns `+u.dir+`/link && kill -0 $(cat `+u.dir+`/pid) && rm `+u.dir+`/link`)
	r.expect(0, "", "")
	u.waitGone()
	r = u.finish("unshare", "-Urn", "sh", "-c", "exec pasta -f --config-net $$")
	r.expect(1, "", "pasta: Failed to configure network namespace: it is our own: give that of a process which has another one\n")
}

func TestJoinErrors(t *testing.T) {
	u := newUser(t)
	target := u.target()
	ns := "/proc/" + target.pid() + "/ns/"
	for _, c := range []struct{ args, want string }{
		{"-f --netns /nonexistent/ns", "pasta: Failed to open network namespace /nonexistent/ns: no such file or directory: give one that exists\n"},
		{"-f --netns no-such-name", "pasta: Failed to open network namespace /run/netns/no-such-name: no such file or directory: give one that exists\n"},
		{"-f --netns /etc/passwd", "pasta: Failed to open network namespace /etc/passwd: invalid argument: this is no namespace of that kind\n"},
		{"-f --netns " + ns + "net", "pasta: Failed to create the engine's namespaces: operation not permitted: " +
			"joining a network namespace needs capabilities over it, run inside its user namespace or give that with --userns\n"},
		{"-f -P /nonexistent/pid " + target.pid(), "pasta: Failed to write PID file /nonexistent/pid: no such file or directory\n"},
	} {
		u.finish(append([]string{"pasta"}, strings.Fields(c.args)...)...).expect(1, "", c.want)
		if left := processes(u.uid); len(left) != 1 {
			t.Errorf("%s leaves %v", c.args, left)
		}
	}
	fifo := filepath.Join(u.dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"--netns " + fifo, "pasta: Failed to open network namespace " + fifo + ": invalid argument: this is no namespace of that kind\n"},
		{"--userns " + fifo, "pasta: Failed to open user namespace " + fifo + ": invalid argument: this is no namespace of that kind\n"},
		{"-P " + fifo + " -- true", "pasta: Failed to write PID file " + fifo + ": no such device or address\n"},
	} {
		u.finish(append([]string{"pasta"}, strings.Fields(c.args)...)...).expect(1, "", c.want)
	}
	u.finish("pasta", "1").expect(1, "", "pasta: Failed to open network namespace /proc/1/ns/net: permission denied: "+
		"the process or namespace must be your own\n")
	target.end()
}

// An engine whose tap is deleted ends, and says why where somebody may look
// later.
func TestTapDeleted(t *testing.T) {
	u := newUser(t)
	target := u.target()
	file := filepath.Join(u.dir, "log")
	const why = "read from the tap: file descriptor in bad state"
	deleteTap := func() {
		r := u.finish("nsenter", "-t", target.pid(), "-U", "-n", "--preserve-credentials", "ip", "link", "del", "ravioli")
		r.expect(0, "", "")
	}
	for _, foreground := range []bool{false, true} {
		argv := []string{"pasta", "--config-net", "-I", "ravioli", "-l", file, "-P", filepath.Join(u.dir, "pid")}
		if !foreground {
			u.finish(append(argv, target.pid())...).expect(0, "", "")
			deleteTap()
		} else {
			r := u.start(append(argv, "-f", target.pid())...)
			u.awaitFile(r, filepath.Join(u.dir, "pid"))
			deleteTap()
			r.wait()
			r.expect(1, "", "pasta: "+why+"\n")
		}
		u.waitGone(target)
		if text := u.readFile(file); strings.Contains(text, "\n") || !strings.HasSuffix(text, " ERROR: "+why) {
			t.Errorf("foreground %v: the log file has %q", foreground, text)
		}
		for _, name := range []string{"log", "pid"} {
			os.Remove(filepath.Join(u.dir, name))
		}
	}
	target.end()
}
