package lifecycle

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"penne/internal/sys"
	"penne/test/needs"
)

// counterName is the copy of the test program that says what signals it gets:
// a shell may be late to notice.
const counterName = "counter"

// insistence is how long after a first TERM another one is a second, as the
// manual has it.
const insistence = 250 * time.Millisecond

// counterMain prints a line for each signal, and how many there were when a line
// of its input, or the end, comes, which ends it with status 7, as does TERM with
// 42; with an argument neither does.
func counterMain() int {
	stubborn := len(os.Args) > 1
	c := make(chan os.Signal, 16)
	signal.Notify(c, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	line := make(chan error)
	go func() {
		for err := error(nil); err != io.EOF; {
			_, err = fmt.Scanln()
			line <- err
		}
	}()
	fmt.Println("up")
	for n := 0; ; {
		select {
		case sig := <-c:
			n++
			fmt.Println(sig)
			if sig == syscall.SIGTERM && !stubborn {
				return 42
			}
		case <-line:
			fmt.Println("signals", n)
			if !stubborn {
				return 7
			}
		}
	}
}

// counter starts pasta with the counter as its command, whose input stays open.
func (u *user) counter() *run {
	u.t.Helper()
	return u.startOpen("up", "pasta", "--config-net", "--", counterName)
}

func TestSignalsReachCommand(t *testing.T) {
	u := newUser(t)
	r := u.counter()
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTERM} {
		r.signal(sig)
		r.expectLine(sig.String())
	}
	if r.wait() != 42 {
		t.Errorf("status %d, want the command's 42", r.status)
	}
	u.mustBeGone()
}

// A signal to the engine, as from a service manager which stops all processes
// of a service, is for the command too, which still has its network then.
func TestSignalToEngine(t *testing.T) {
	u := newUser(t)
	r := u.counter()
	engine := r.engineOf(u)
	if err := syscall.Kill(engine.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.expectLine(syscall.SIGTERM.String())
	if r.wait() != 42 {
		t.Errorf("status %d, want the command's 42", r.status)
	}
	u.mustBeGone()
}

// stubborn starts pasta with a command which goes on after TERM, and something
// in the background.
func (u *user) stubborn(options ...string) *run {
	u.t.Helper()
	argv := append([]string{"pasta", "--config-net"}, options...)
	return u.startOpen("up", append(argv, "--", "sh", "-c", "sleep 1000 & exec "+counterName+" stubborn")...)
}

// The first TERM is the command's own affair, the second ends everything.
func TestSecondTerm(t *testing.T) {
	u := newUser(t)
	pidFile := filepath.Join(u.dir, "pid")
	r := u.stubborn("-P", pidFile)
	r.signal(syscall.SIGTERM)
	r.expectLine(syscall.SIGTERM.String())
	r.answer("signals 1")
	<-time.After(insistence) // the time itself is what is tested
	r.signal(syscall.SIGTERM)
	if r.wait() != 128+int(syscall.SIGTERM) || r.stderr.Len() > 0 {
		t.Errorf("status %d, %q, want 143 and nothing", r.status, r.stderr.String())
	}
	u.mustBeGone()
	if exists(pidFile) {
		t.Error("the pid file stays")
	}
}

// A TERM to the engine is no second one: a service manager that stops all
// processes of a service at once has asked once.
func TestTermToEngineIsNoSecond(t *testing.T) {
	u := newUser(t)
	r := u.stubborn()
	engine := r.engineOf(u)
	r.signal(syscall.SIGTERM)
	r.expectLine(syscall.SIGTERM.String())
	<-time.After(insistence)
	if err := syscall.Kill(engine.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.expectLine(syscall.SIGTERM.String())
	r.answer("signals 2")
	r.end()
	u.waitGone()
}

// An interactive shell ignores TERM. Its terminal is its caller's again.
func TestSecondTermAtTerminal(t *testing.T) {
	u := newUser(t)
	pidFile := filepath.Join(u.dir, "pid")
	s := u.terminal("exec sh -c '" + bin + "/pasta -q -P " + pidFile + " -- bash --norc -i; echo status $?; read x; echo got $x'")
	s.enter("echo in''side\n")
	s.await("inside")
	pid, err := strconv.Atoi(u.readFile(pidFile))
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := sys.PidfdOpen(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(pidfd)
	if err := sys.PidfdSignal(pidfd, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.enter("echo still in''side\n")
	s.await("still inside")
	// It cannot be seen here when the first was taken, so two may be too close.
	for term := time.Tick(insistence); sys.PidfdSignal(pidfd, syscall.SIGTERM) == nil; <-term {
	}
	s.await("status 143")
	s.enter("word\n")
	s.await("got word")
	s.mustEnd(0)
	u.waitGone()
}

// answer asks the counter.
func (r *run) answer(want string) {
	r.t.Helper()
	if _, err := io.WriteString(r.feed, "\n"); err != nil {
		r.t.Fatal(err)
	}
	r.expectLine(want)
}

// What the caller ignores, we do not start to handle.
func TestIgnoredSignals(t *testing.T) {
	u := newUser(t)
	r := u.startOpen("up", "env", "--ignore-signal=HUP,TERM", bin+"/pasta", "-q", "--", "sh", "-c", "echo up; read x")
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		r.signal(sig)
	}
	r.feed.Close()
	r.wait()
	r.expect(1, "up\n", "") // read's status at the end of the file
	u.mustBeGone()
}

// A key typed at a terminal is for the command, once, and does not end us.
func TestTypedInterrupt(t *testing.T) {
	u := newUser(t)
	s := u.terminal("exec " + bin + "/pasta -q -- " + counterName)
	s.await("up")
	s.enter("\x03")
	s.await(syscall.SIGINT.String())
	s.enter("\n")
	s.await("signals 1")
	s.mustEnd(7) // the command's
	u.waitGone()
}

// A shell that takes the terminal for its jobs leaves it to who had it before.
func TestTerminalComesBack(t *testing.T) {
	u := newUser(t)
	s := u.terminal("exec sh -c '" + bin + "/pasta -q -- bash --norc -i; echo status $?; read x; echo got $x'")
	s.enter("ps -o pid= | wc -l; echo in''side\n")
	s.await("inside")
	s.enter("exit 9\n")
	s.await("status 9")
	s.enter("word\n")
	s.await("got word")
	s.mustEnd(0)
	u.waitGone()
}

// A terminal may stop what writes to it from the background.
func TestEngineWritesToTerminalThatStopsOthers(t *testing.T) {
	u := newUser(t)
	s := u.terminal("stty tostop; exec " + bin + "/pasta -d -- sh -c 'echo in''side'")
	s.await("inside")
	s.mustEnd(0)
	u.waitGone()
}

// The engine belongs to the command's session as long as the launcher is there, but
// not to the process group that the terminal's signals go to.
func TestEngineSession(t *testing.T) {
	u := newUser(t)
	r := u.stubborn()
	engine := r.engineOf(u)
	ours, theirs := statOf(t, r.Process.Pid), statOf(t, engine.pid)
	if theirs[statSession] != ours[statSession] || theirs[statGroup] == ours[statGroup] {
		t.Errorf("launcher %v, engine %v, want one session, two process groups", ours, theirs)
	}
	r.end()
	u.waitGone()
}

// session is a program at a terminal.
type session struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *lines
	guard *time.Timer
}

// terminal runs a line of the shell at a terminal of its own.
func (u *user) terminal(line string) *session {
	u.t.Helper()
	needs.Program(u.t, "script")
	cmd := u.command("script", "-qec", line, "/dev/null")
	in, err := cmd.StdinPipe()
	if err != nil {
		u.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		u.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	guard := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	return &session{u.t, cmd, in, newLines(out), guard}
}

// enter types keys.
func (s *session) enter(keys string) {
	s.t.Helper()
	if _, err := io.WriteString(s.in, keys); err != nil {
		s.t.Fatal(err)
	}
}

// await reads lines until one has want in it.
func (s *session) await(want string) {
	s.t.Helper()
	for {
		line := s.out.next()
		if line == "" {
			s.t.Fatalf("the terminal is gone before it said %q", want)
		}
		if strings.Contains(line, want) {
			return
		}
	}
}

// mustEnd waits for the end, with that status.
func (s *session) mustEnd(want int) {
	s.t.Helper()
	s.in.Close()
	s.out.rest()
	_ = s.cmd.Wait()
	s.guard.Stop()
	if status := s.cmd.ProcessState.ExitCode(); status != want {
		s.t.Errorf("status %d, want %d", status, want)
	}
}
