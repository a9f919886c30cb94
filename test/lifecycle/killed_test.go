package lifecycle

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"
)

// Roles of the processes of pasta with a command.
const (
	launcher = "launcher"
	helper   = "helper" // any child of the launcher that comes up first
	engine   = "engine"
	holder   = "holder"
	command  = "command"
)

// roleOf finds a process by its role; the command is called sleep.
func (r *run) roleOf(uid int, role string) (process, bool) {
	if role == launcher {
		return process{pid: r.Process.Pid}, true
	}
	return r.find(uid, func(p process) bool {
		switch role {
		case engine:
			return p.isEngine()
		case command:
			return len(p.argv) > 0 && p.argv[0] == "sleep"
		case holder:
			return p.parent == r.Process.Pid && isInit(p.pid) && !p.isEngine()
		}
		return p.parent == r.Process.Pid
	})
}

// nsPID is what /proc says of the first process of an inner PID namespace.
var nsPID = regexp.MustCompile(`(?m)^NSpid:.*\t1$`)

// isInit tells whether a process is process 1 of a namespace.
func isInit(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err == nil && nsPID.Match(b)
}

// Whichever of our processes is killed, at whatever stage, nothing stays, and
// the launcher, unless it is the one, says so by its status.
func TestKilledAtStages(t *testing.T) {
	u := newUser(t)
	for _, at := range []string{launcher, helper, holder, engine, command} {
		for _, victim := range []string{launcher, helper, holder, engine, command} {
			if rank(victim) > rank(at) {
				continue // not there yet
			}
			t.Run(victim+" at "+at, func(t *testing.T) {
				u := *u
				u.t = t
				r := u.start("pasta", "--config-net", "--", "sleep", "1000")
				if _, ok := r.roleOf(u.uid, at); !ok {
					t.Fatalf("it ended before there was its %s: %s", at, r.stderr.String())
				}
				if p, ok := r.roleOf(u.uid, victim); ok {
					r.mustDieWith(u.uid, p, 2)
				}
				if r.wait() == 0 {
					t.Error("status 0")
				}
				u.waitGone()
			})
		}
	}
}

// mustDieWith kills a process. Only if it is a helper that had done its work, as
// the first processes of namespaces among the launcher's children tell, it kills
// the launcher too: any other is missed.
func (r *run) mustDieWith(uid int, p process, made int) {
	_ = syscall.Kill(p.pid, syscall.SIGSTOP)
	awaitStop(p.pid)
	inits, isOne := 0, p.pid == r.Process.Pid
	for _, q := range processes(uid) {
		if q.parent == r.Process.Pid && isInit(q.pid) {
			inits++
			isOne = isOne || q.pid == p.pid
		}
	}
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
	if !isOne && inits >= made && p.parent == r.Process.Pid {
		_ = r.Process.Kill()
	}
}

// awaitStop waits until a process is stopped, or has ended.
func awaitStop(pid int) {
	for {
		p, _, ok := readProcess(fmt.Sprintf("/proc/%d", pid))
		if !ok || p.state == "T" || p.state == "Z" || p.state == "X" {
			return
		}
	}
}

func rank(role string) int {
	return slices.Index([]string{launcher, helper, holder, engine, command}, role)
}

// A signal during start-up undoes what was begun, whenever it comes.
func TestSignalledAtStages(t *testing.T) {
	u := newUser(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		for _, at := range []string{launcher, helper, holder, engine, command} {
			t.Run(fmt.Sprintf("%v at %s", sig, at), func(t *testing.T) {
				u := *u
				u.t = t
				r := u.start("pasta", "--config-net", "--", "sleep", "1000")
				if _, ok := r.roleOf(u.uid, at); !ok {
					t.Fatalf("it ended before there was its %s: %s", at, r.stderr.String())
				}
				r.signal(sig)
				got := r.wait()
				if got == 2 && sig == syscall.SIGQUIT && at == launcher {
					return // the Go runtime's way, before we have asked for signals
				}
				if got != 128+int(sig) {
					t.Errorf("status %d, %s", got, r.stderr.String())
				}
				if left := processes(u.uid); len(left) != 0 {
					t.Errorf("these stay: %v", left)
				}
				u.waitGone()
			})
		}
	}
}

// The same at moments spread evenly over the start-up of a daemon, whose
// launcher may just have finished: then the daemon works.
func TestSignalledDaemonStart(t *testing.T) {
	u := newUser(t)
	target := u.target()
	pidFile := u.dir + "/pid"
	const steps = 40
	took := time.Duration(0)
	for step := range steps {
		_ = os.Remove(pidFile)
		start := time.Now()
		r := u.start("pasta", "--config-net", "-P", pidFile, target.pid())
		if step == 0 {
			r.wait() // to learn how long it takes
			took = time.Since(start)
		} else {
			busyUntil(start.Add(took * time.Duration(step) / steps))
			_ = r.Process.Signal(syscall.SIGTERM) // it may have ended
			r.wait()
		}
		left := processes(u.uid)
		switch {
		case r.status == 0 && len(left) == 2:
			for _, p := range left {
				if p.isEngine() {
					_ = syscall.Kill(p.pid, syscall.SIGTERM)
					awaitProcess(p.pid)
				}
			}
		case r.status != 128+int(syscall.SIGTERM) || len(left) != 1:
			t.Errorf("step %d: status %d, %q, these stay: %v", step, r.status, r.stderr.String(), left)
		case exists(pidFile):
			t.Errorf("step %d: the pid file stays", step)
		}
		if hasTap(t, target.pid()) {
			t.Errorf("step %d: the tap stays", step)
		}
	}
	target.end()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// busyUntil passes time in short steps: what is tested is short, too.
func busyUntil(t time.Time) {
	for time.Now().Before(t) {
	}
}
