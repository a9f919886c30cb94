package netns

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"penne/internal/conf"
	"penne/internal/sys"
)

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
