package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// showNS prints the namespaces that readlink lists, in its order.
const showNS = "cd /proc/self/ns; for n in user net pid ipc uts mnt; do readlink $n; done"

// usernsOf is the path of the user namespace of a helper of the test.
func (r *run) usernsOf() string { return "/proc/" + r.pid() + "/ns/user" }

// targetAs is target with options for unshare(1).
func (u *user) targetAs(options string) *run {
	u.t.Helper()
	return u.startOpen("up", "unshare", options, "sh", "-c", "echo up; read never")
}

// With a command, the user namespace is the given one, and all others are new.
func TestUserns(t *testing.T) {
	u := newUser(t)
	target := u.target()
	theirs := readlink(t, "/proc/"+target.pid()+"/ns/")
	outer := readlink(t, "/proc/self/ns/")
	r := u.finish("pasta", "--config-net", "--userns", target.usernsOf(), "--", "sh", "-c", showNS+"; exit 5")
	inner := strings.Fields(r.stdout.String())
	if r.status != 5 || len(inner) != len(theirs) {
		t.Fatalf("status %d, %q, %s", r.status, inner, r.stderr.String())
	}
	if inner[0] != theirs[0] {
		t.Errorf("the command is in %s, want %s", inner[0], theirs[0])
	}
	for i := 1; i < len(inner); i++ {
		if inner[i] == theirs[i] || inner[i] == outer[i] {
			t.Errorf("%s is not a new namespace", inner[i])
		}
	}
	u.waitGone(target)
	if hasTap(t, target.pid()) {
		t.Error("the other network namespace has a tap")
	}
	target.end()
}

// Whatever number the user has in it: what it may do there depends on that, but
// not whether it has a network.
func TestUsernsIDs(t *testing.T) {
	u := newUser(t)
	own := fmt.Sprint(u.uid)
	for options, id := range map[string]string{"-Unr": "0", "-Unc": own, "-Un": "65534"} {
		target := u.targetAs(options)
		r := u.finish("pasta", "--config-net", "--userns", target.usernsOf(), "--", "sh", "-c", "id -u; grep -c : /proc/net/dev")
		r.expect(0, id+"\n2\n", "")
		u.waitGone(target)
		target.end()
	}
}

// A process is joined whatever number we have in its user namespace.
func TestJoinIDs(t *testing.T) {
	u := newUser(t)
	for _, options := range []string{"-Unc", "-Un"} {
		target := u.targetAs(options)
		pid := u.daemon(target.pid())
		if !hasTap(t, target.pid()) {
			t.Errorf("unshare %s: no tap", options)
		}
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		awaitProcess(pid)
		u.waitGone(target)
		target.end()
	}
}

func TestUsernsShell(t *testing.T) {
	u := newUser(t)
	target := u.target()
	r := u.command("pasta", "--userns", target.usernsOf())
	r.Env = append(r.Env, "SHELL=/bin/sh")
	r.Stdin = strings.NewReader("echo $0; readlink /proc/self/ns/user; exit 6\n")
	guard := time.AfterFunc(patience, func() { t.Errorf("it does not end: %v", processes(u.uid)); u.killAll() })
	out, _ := r.Output()
	guard.Stop()
	want := "-sh\n" + readlink(t, "/proc/"+target.pid()+"/ns/")[0] + "\n"
	if string(out) != want || r.ProcessState.ExitCode() != 6 {
		t.Errorf("%q, status %d, want %q, 6", out, r.ProcessState.ExitCode(), want)
	}
	u.waitGone(target)
	target.end()
}

func TestUsernsErrors(t *testing.T) {
	u := newUser(t)
	target := u.target()
	ns := "/proc/" + target.pid() + "/ns/"
	for _, c := range []struct{ args, want string }{
		{"--userns /nonexistent/ns",
			"pasta: Failed to open user namespace /nonexistent/ns: no such file or directory: give one that exists\n"},
		{"--userns /etc/passwd",
			"pasta: Failed to open user namespace /etc/passwd: invalid argument: this is no namespace of that kind\n"},
		{"--userns " + ns + "net",
			"pasta: Failed to open user namespace " + ns + "net: invalid argument: this is no namespace of that kind\n"},
		{"--userns /proc/1/ns/user",
			"pasta: Failed to open user namespace /proc/1/ns/user: permission denied: the process or namespace must be your own\n"},
		{"--userns /proc/self/ns/user",
			"pasta: Failed to create namespaces: operation not permitted: without a new user namespace this needs root\n"},
		{"--netns-only --userns " + ns + "user", "pasta: --userns and --netns-only exclude each other\n"},
	} {
		for _, command := range [][]string{{"--", "true"}, nil} {
			args := append(append([]string{"pasta"}, strings.Fields(c.args)...), command...)
			u.finish(args...).expect(1, "", c.want)
		}
		u.waitGone(target)
	}
	target.end()
}

// The outer user namespace can be held open in the inner one, but not joined.
func TestUsernsNotOurs(t *testing.T) {
	u := newUser(t)
	r := u.finish("sh", "-c", "exec unshare -Ur pasta -q --userns /proc/self/fd/7 -- true 7</proc/self/ns/user")
	r.expect(1, "", "pasta: Failed to join the user namespace: operation not permitted: the process or namespace must be your own\n")
	u.mustBeGone()
}

// Root becomes who it is to be before it joins; what that user is in the
// namespace is for the namespace to say.
func TestRootUserns(t *testing.T) {
	root := newRoot(t)
	u := newUser(t)
	target := u.target()
	for runas, id := range map[string]string{fmt.Sprint(u.uid): "0", fmt.Sprint(firstUID()): "65534"} {
		r := root.finish("pasta", "--config-net", "--runas", runas, "--userns", target.usernsOf(), "--",
			"sh", "-c", "id -u; grep -c : /proc/net/dev; readlink /proc/self/ns/user")
		r.expect(0, id+"\n2\n"+readlink(t, "/proc/"+target.pid()+"/ns/")[0]+"\n", "")
		u.waitGone(target)
	}
	target.end()
}

// As TestKilledAtStages, where one more process is on the way to the holder.
func TestUsernsKilled(t *testing.T) {
	u := newUser(t)
	target := u.target()
	for _, role := range []string{launcher, helper, holder, engine, command} {
		t.Run(role, func(t *testing.T) {
			u := *u
			u.t = t
			r := u.start("pasta", "--config-net", "--userns", target.usernsOf(), "--", "sleep", "1000")
			p, ok := r.roleOf(u.uid, role)
			if !ok {
				t.Fatalf("it ended before there was its %s: %s", role, r.stderr.String())
			}
			r.mustDieWith(u.uid, p, 1)
			if r.wait() == 0 {
				t.Error("status 0")
			}
			u.waitGone(target)
		})
	}
	target.end()
}

// isOne tells whether p is one of the runs.
func (p process) isOne(of []*run) bool {
	return slices.ContainsFunc(of, func(r *run) bool { return r.Process.Pid == p.pid })
}
