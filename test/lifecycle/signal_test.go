package lifecycle

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// counterName is the copy of the test program that says what signals it gets:
// a shell may be late to notice.
const counterName = "counter"

// counterMain prints a line for each signal, and how many there were when its
// input ends. TERM ends it with status 42.
func counterMain() int {
	c := make(chan os.Signal, 16)
	signal.Notify(c, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	line := make(chan error)
	go func() {
		_, err := fmt.Scanln()
		line <- err
	}()
	fmt.Println("up")
	for n := 0; ; {
		select {
		case sig := <-c:
			n++
			fmt.Println(sig)
			if sig == syscall.SIGTERM {
				return 42
			}
		case <-line:
			fmt.Println("signals", n)
			return 7
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
	engine, ok := r.find(u.uid, process.isEngine)
	if !ok {
		t.Fatal("no engine")
	}
	if err := syscall.Kill(engine.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.expectLine(syscall.SIGTERM.String())
	if r.wait() != 42 {
		t.Errorf("status %d, want the command's 42", r.status)
	}
	u.mustBeGone()
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
	if status := s.end(); status != 7 {
		t.Errorf("status %d, want the command's 7", status)
	}
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
	if status := s.end(); status != 0 {
		t.Errorf("status %d, want 0", status)
	}
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
	if _, err := exec.LookPath("script"); err != nil {
		u.t.Skip("script(1), which makes a terminal, is missing")
	}
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

// end waits for the end and returns the status.
func (s *session) end() int {
	s.in.Close()
	s.out.rest()
	_ = s.cmd.Wait()
	s.guard.Stop()
	return s.cmd.ProcessState.ExitCode()
}
