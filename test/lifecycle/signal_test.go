package lifecycle

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// counting is a command that says what signals it gets, and ends on TERM.
const counting = `
	for s in HUP INT QUIT USR1 USR2; do trap "echo $s" $s; done
	trap 'echo TERM; exit 42' TERM
	echo up
	while :; do read x <"$0"; done`

// counter starts pasta with the counting command, which waits in reading from a
// fifo.
func (u *user) counter() *run {
	u.t.Helper()
	fifo := u.dir + "/fifo"
	if err := syscall.Mkfifo(fifo, 0o666); err != nil && !os.IsExist(err) {
		u.t.Fatal(err)
	}
	if err := os.Chmod(fifo, 0o666); err != nil {
		u.t.Fatal(err)
	}
	r := u.start("pasta", "--config-net", "--", "bash", "-c", counting, fifo)
	r.expectLine("up")
	return r
}

func TestSignalsReachCommand(t *testing.T) {
	u := newUser(t)
	r := u.counter()
	for _, sig := range []struct {
		number syscall.Signal
		name   string
	}{
		{syscall.SIGHUP, "HUP"}, {syscall.SIGINT, "INT"}, {syscall.SIGQUIT, "QUIT"},
		{syscall.SIGUSR1, "USR1"}, {syscall.SIGUSR2, "USR2"}, {syscall.SIGTERM, "TERM"},
	} {
		r.signal(sig.number)
		r.expectLine(sig.name)
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
	r.expectLine("TERM")
	if r.wait() != 42 {
		t.Errorf("status %d, want the command's 42", r.status)
	}
	u.mustBeGone()
}

// What the caller ignores, we do not start to handle.
func TestIgnoredSignals(t *testing.T) {
	u := newUser(t)
	r := u.start("env", "--ignore-signal=HUP,TERM", bin+"/pasta", "-q", "--", "sh", "-c", "echo up; read x")
	r.Process.Pid = r.Cmd.Process.Pid
	r.expectLine("up")
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		r.signal(sig)
	}
	r.wait()
	r.expect(1, "up\n", "") // read's status at the end of the file
	u.mustBeGone()
}

// A key typed at a terminal is for the command, once, and does not end us.
func TestTypedInterrupt(t *testing.T) {
	u := newUser(t)
	if _, err := exec.LookPath("script"); err != nil {
		t.Skip("script(1), which makes a terminal, is missing")
	}
	cmd := u.command("script", "-qec", "exec "+bin+`/pasta -q -- bash -c 'trap "echo got; n=\$((n+1))" INT
		echo up; while [ -z "$n" ]; do read x; done; echo n $n; read x; exit 7'`, "/dev/null")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	guard := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer guard.Stop()
	l := newLines(out)
	await := func(want string) {
		t.Helper()
		for {
			line := l.next()
			if line == "" {
				t.Fatalf("the terminal is gone before it said %q", want)
			}
			if strings.Contains(line, want) {
				return
			}
		}
	}
	await("up")
	fmt.Fprint(in, "\x03")
	await("got")
	fmt.Fprint(in, "\n") // bash goes on reading after a trap
	await("n 1")
	fmt.Fprint(in, "\n")
	in.Close()
	l.rest()
	_ = cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); status != 7 {
		t.Errorf("status %d, want the command's 7", status)
	}
	u.waitGone()
}
