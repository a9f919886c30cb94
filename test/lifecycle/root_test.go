package lifecycle

import (
	"fmt"
	"os"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// newRoot is root, whose processes cannot be told from others' by uid.
func newRoot(t *testing.T) *user {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	openTun(t)
	return &user{t: t, uid: 0, dir: t.TempDir()}
}

// ids returns the outer real uid and gid, and the groups, of a process.
func ids(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var s []string
	for line := range strings.Lines(string(b)) {
		switch f := strings.Fields(line); f[0] {
		case "Uid:", "Gid:":
			s = append(s, f[1:]...)
		case "Groups:":
			s = append(s, fmt.Sprint(f[1:]))
		}
	}
	return strings.Join(s, " ")
}

// sameIDs is what ids returns for a process of one user, without groups.
func sameIDs(uid, gid int) string {
	return strings.Repeat(strconv.Itoa(uid)+" ", 4) + strings.Repeat(strconv.Itoa(gid)+" ", 4) + "[]"
}

// For root it is nobody who serves, and who the command really is.
func TestRootBecomesNobody(t *testing.T) {
	u := newRoot(t)
	nobody, err := osuser.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	for _, c := range []struct {
		option   string
		uid, gid int
	}{
		{"", uid, gid},
		{"--runas=4000000", 4000000, 4000000},
		{"--runas=4000001:4000002", 4000001, 4000002},
	} {
		args := []string{"pasta", "--config-net", "--", "sh", "-c", "echo up $(id -u) $(id -g); read x; exit 4"}
		if c.option != "" {
			args = append([]string{"pasta", c.option}, args[1:]...)
		}
		r := u.startOpen("up 0 0", args...)
		want := sameIDs(c.uid, c.gid)
		family := r.family(c.uid)
		for _, p := range family {
			if got := ids(t, p.pid); got != want {
				t.Errorf("%v is %s, want %s", p, got, want)
			}
		}
		if len(family) != 3 {
			t.Errorf("of user %d are %v, want holder, command and engine", c.uid, family)
		}
		r.feed.Close()
		r.wait()
		r.expect(4, "up 0 0\n", "")
		for _, p := range family {
			if exists(fmt.Sprintf("/proc/%d", p.pid)) {
				t.Errorf("left behind: %v", p)
			}
		}
	}
}

// family lists the command's children and grandchildren of a uid: nobody may
// have other processes.
func (r *run) family(uid int) (list []process) {
	all := processes(uid)
	children := map[int]bool{r.Process.Pid: true}
	for _, p := range all {
		if p.parent == r.Process.Pid {
			children[p.pid] = true
		}
	}
	for _, p := range all {
		if children[p.parent] {
			list = append(list, p)
		}
	}
	return list
}

// Root in a container may lack the capability over the system, and yet be
// allowed user namespaces.
func TestRootWithoutAdmin(t *testing.T) {
	u := newRoot(t)
	r := u.finish("setpriv", "--bounding-set", "-sys_admin", bin+"/pasta", "-q", "--config-net", "--", "cat", "/proc/net/dev")
	if r.status != 0 || strings.Count(r.stdout.String(), ":") != 2 {
		t.Errorf("status %d, interfaces %q, %s", r.status, r.stdout.String(), r.stderr.String())
	}
}

// Namespaces made by ip-netns(8) belong to the initial user namespace.
func TestRootJoinsNamed(t *testing.T) {
	u := newRoot(t)
	name := fmt.Sprintf("penne-%d", os.Getpid())
	if out, err := u.command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Skipf("ip netns add: %v: %s", err, out)
	}
	deleted := false
	del := func() {
		if out, err := u.command("ip", "netns", "del", name).CombinedOutput(); err != nil && !deleted {
			t.Errorf("ip netns del: %v: %s", err, out)
		}
		deleted = true
	}
	defer del()
	uid := firstUID()
	pid := u.daemon("--runas", strconv.Itoa(uid), "--netns", name)
	if got := ids(t, pid); got != sameIDs(uid, uid) {
		t.Errorf("the engine is %s", got)
	}
	out, err := u.command("ip", "-n", name, "-br", "link").CombinedOutput()
	if err != nil || strings.Count(string(out), "\n") != 2 {
		t.Errorf("links: %q, %v", out, err)
	}
	del()
	awaitProcess(pid)
	if left := processes(uid); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Root joins the namespaces of another user's process.
func TestRootJoinsProcess(t *testing.T) {
	root := newRoot(t)
	u := newUser(t)
	target := u.target()
	pidFile := filepath.Join(root.dir, "pid")
	uid := firstUID()
	r := root.start("pasta", "--config-net", "-f", "-P", pidFile, "--runas", strconv.Itoa(uid), target.pid())
	root.awaitFile(r, pidFile)
	if !hasTap(t, target.pid()) {
		t.Error("no tap")
	}
	if n := len(processes(uid)); n != 1 {
		t.Errorf("%d processes of user %d, want the engine", n, uid)
	}
	r.signal(syscall.SIGTERM)
	r.wait()
	r.expect(0, "", "")
	target.end()
}

// What root names to be written is written where only root may, though it is
// another user who serves. A start that fails makes no capture.
func TestRootsFiles(t *testing.T) {
	u := newRoot(t)
	if err := os.Chmod(u.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	logged, captured := filepath.Join(u.dir, "log"), filepath.Join(u.dir, "pcap")
	args := []string{bin + "/pasta", "--config-net", "-l", logged, "-p", captured}
	r := u.finish(append(args, "-t", "192.0.2.99/8000", "--", "true")...)
	if r.status != 1 || strings.Count(r.stderr.String(), "\n") != 1 || exists(captured) {
		t.Errorf("status %d, %s, capture: %v", r.status, r.stderr.String(), exists(captured))
	}
	u.finish(append(args, "--", "true")...).expect(0, "", "")
	for path, least := range map[string]int64{logged: 100, captured: 24} {
		if info, err := os.Stat(path); err != nil || info.Size() < least || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	before, err := os.ReadFile(captured)
	if err != nil {
		t.Fatal(err)
	}
	u.finish(append(args, "-t", "192.0.2.99/8000", "--", "true")...)
	if after, err := os.ReadFile(captured); string(after) != string(before) {
		t.Errorf("of an older capture are left %d of %d octets: %v", len(after), len(before), err)
	}
}

// Root too gets along without a new user namespace, with a command, a process,
// and inside another's.
func TestNetnsOnly(t *testing.T) {
	root := newRoot(t)
	own := readlink(t, "/proc/self/ns/")
	r := root.finish("pasta", "--netns-only", "--config-net", "--", "sh", "-c", "grep -c : /proc/net/dev; readlink /proc/self/ns/user")
	r.expect(0, "2\n"+own[0]+"\n", "")
	target := root.startOpen("up", "unshare", "-n", "sh", "-c", "echo up; read never")
	pid := root.daemon("--netns-only", target.pid())
	if !hasTap(t, target.pid()) {
		t.Error("no tap")
	}
	target.end()
	awaitProcess(pid)
	u := newUser(t)
	const inside = "readlink /proc/self/ns/user; exec pasta -q --netns-only --config-net -- " +
		"sh -c 'grep -c : /proc/net/dev; readlink /proc/self/ns/user'"
	r = u.finish("unshare", "-Ur", "sh", "-c", inside)
	lines := strings.Fields(r.stdout.String())
	if len(lines) != 3 || lines[1] != "2" || lines[2] != lines[0] || r.status != 0 {
		t.Errorf("status %d, %q, %s", r.status, lines, r.stderr.String())
	}
}

func TestRunAsErrors(t *testing.T) {
	u := newUser(t)
	u.finish("pasta", "--runas", "4000000", "--", "true").expect(1, "",
		"pasta: --runas: only root may change to user 4000000, group 4000000\n")
	u.finish("pasta", "--runas", "no-such-user", "--", "true").expect(1, "", "pasta: --runas: no user 'no-such-user'\n")
}
