package sys

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// play runs a script and returns what came before the child's end, and how it
// ended.
func play(t *testing.T, flags uintptr, build func(s *Script, conn int)) (*Script, []Note, syscall.WaitStatus) {
	t.Helper()
	conn, theirs, err := ConnPair()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s := NewScript(theirs)
	build(s, theirs)
	pid, err := s.Start(flags)
	Close(theirs)
	if err != nil {
		t.Fatal(err)
	}
	var notes []Note
	for {
		b := make([]byte, 64)
		n, fds, err := conn.Recv(b)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		note, ok := ParseNote(b[:n])
		if !ok {
			t.Fatalf("message %q is no note", b[:n])
		}
		if len(fds) == 1 {
			note.B = uint32(fds[0])
			t.Cleanup(func() { Close(fds[0]) })
		}
		notes = append(notes, note)
	}
	ws, err := Wait(pid)
	if err != nil {
		t.Fatal(err)
	}
	return s, notes, ws
}

func TestScriptExec(t *testing.T) {
	_, notes, ws := play(t, 0, func(s *Script, _ int) {
		s.Setsid()
		s.Exec("execute", "/bin/sh", []string{"sh", "-c", `test "$A" = b && exit 7`}, []string{"A=b"})
	})
	if len(notes) != 0 || ws.ExitStatus() != 7 {
		t.Errorf("notes %v, status %d, want none and 7", notes, ws.ExitStatus())
	}
}

func TestScriptFailure(t *testing.T) {
	s, notes, ws := play(t, 0, func(s *Script, _ int) {
		s.TryWriteFile("/nonexistent/file", "x")
		s.Setsid()
		s.Exec("execute the thing", "/nonexistent/thing", []string{"thing"}, nil)
	})
	if len(notes) != 1 || notes[0].Kind != NoteFailed || ws.ExitStatus() != scriptFailed {
		t.Fatalf("notes %v, status %d", notes, ws.ExitStatus())
	}
	if what, errno := s.Label(notes[0].A), syscall.Errno(notes[0].B); what != "execute the thing" || errno != syscall.ENOENT {
		t.Errorf("failed to %s: %v", what, errno)
	}
}

func TestScriptWithoutFormat(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("exit $1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, notes, ws := play(t, 0, func(s *Script, _ int) {
		s.ExecOrScript("execute", script, []string{"script", "9"}, nil)
	})
	if len(notes) != 0 || ws.ExitStatus() != 9 {
		t.Errorf("notes %v, status %d, want none and 9", notes, ws.ExitStatus())
	}
}

func TestScriptWriteFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, notes, _ := play(t, 0, func(s *Script, _ int) {
		s.TryWriteFile(file, "text")
		s.Exec("execute", "/bin/true", []string{"true"}, nil)
	})
	got, err := os.ReadFile(file)
	if err != nil || string(got) != "text" || len(notes) != 0 {
		t.Errorf("file has %q (%v), notes %v", got, err, notes)
	}
}

// A helper's child, made with CLONE_PARENT, is ours: we can wait for it.
func TestScriptFork(t *testing.T) {
	_, notes, ws := play(t, 0, func(s *Script, _ int) {
		s.Fork("fork", CLONE_PARENT, 5, func() {
			s.Exec("execute", "/bin/sh", []string{"sh", "-c", "exit 4"}, nil)
		})
	})
	if len(notes) != 1 || notes[0].Kind != 5 || ws.ExitStatus() != 0 {
		t.Fatalf("notes %v, helper's status %d", notes, ws.ExitStatus())
	}
	ws, err := Wait(int(notes[0].A))
	if err != nil || ws.ExitStatus() != 4 {
		t.Errorf("status %d, %v, want 4", ws.ExitStatus(), err)
	}
}

func TestScriptReap(t *testing.T) {
	for _, c := range []struct {
		line string
		want int
	}{
		{"exit 0", 0},
		{"exit 250", 250},
		{"kill -KILL $$", 128 + 9},
		{"kill -TERM $$", 128 + 15},
	} {
		_, notes, ws := play(t, 0, func(s *Script, _ int) {
			s.ForkAndReap("fork", 6, func() {
				s.SignalActions(0)
				s.SignalMask(0)
				s.Exec("execute", "/bin/sh", []string{"sh", "-c", c.line}, nil)
			})
		})
		if len(notes) != 1 || notes[0].Kind != 6 {
			t.Fatalf("%s: notes %v", c.line, notes)
		}
		if !PidfdEnded(int(notes[0].B)) {
			t.Errorf("%s: the note's descriptor is not the child's pidfd", c.line)
		}
		if ws.ExitStatus() != c.want {
			t.Errorf("%s: status %d, want %d", c.line, ws.ExitStatus(), c.want)
		}
	}
}

// End of file on what a script awaits ends it without a note.
func TestScriptAwaitEnd(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.Close()
	_, notes, ws := play(t, 0, func(s *Script, _ int) {
		s.AwaitByte(int(r.Fd()))
		s.Exec("execute", "/bin/true", []string{"true"}, nil)
	})
	if len(notes) != 0 || ws.ExitStatus() != scriptFailed {
		t.Errorf("notes %v, status %d", notes, ws.ExitStatus())
	}
}

func TestScriptSignalsAndLimit(t *testing.T) {
	// The shell would empty the mask.
	for _, line := range []string{
		"^SigBlk:\t0000000000000202$",
		"^SigIgn:\t0000000000005000$",
		"^Max open files *123 *456 ",
	} {
		file := "/proc/self/status"
		if strings.Contains(line, "files") {
			file = "/proc/self/limits"
		}
		_, notes, ws := play(t, 0, func(s *Script, _ int) {
			s.FileLimit(123, 456)
			s.SignalActions(SignalSet(syscall.SIGPIPE, syscall.SIGTERM))
			s.SignalMask(SignalSet(syscall.SIGINT, syscall.SIGUSR1))
			s.Exec("execute", "/bin/grep", []string{"grep", "-q", line, file}, nil)
		})
		if len(notes) != 0 || ws.ExitStatus() != 0 {
			t.Errorf("%s: notes %v, grep's status %d, want none and 0", line, notes, ws.ExitStatus())
		}
	}
}

// A signal that comes while all are blocked counts once they are not.
func TestScriptPendingSignal(t *testing.T) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP) // so that the program has a handler
	defer signal.Stop(c)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := NewScript(-1)
	s.CloseFD(int(w.Fd()))
	s.AwaitByte(int(r.Fd()))
	s.SignalActions(0)
	s.SignalMask(0)
	s.Exec("execute", "/bin/true", []string{"true"}, nil)
	pid, err := s.Start(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	ws, err := Wait(pid)
	if err != nil || ws.Signal() != syscall.SIGHUP {
		t.Errorf("status %#x, %v, want the end by HUP", ws, err)
	}
}

func TestConnCarriesOrderAndEnd(t *testing.T) {
	a, fd, err := ConnPair()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := NewConn(fd)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{"one", "three"} {
		if err := a.Send([]byte(m)); err != nil {
			t.Fatal(err)
		}
	}
	a.CloseWrite()
	buf := make([]byte, 4)
	for _, want := range []string{"one", "thre"} {
		n, _, err := b.Recv(buf)
		if err != nil || string(buf[:n]) != want {
			t.Errorf("received %q, %v, want %q", buf[:n], err, want)
		}
	}
	if _, _, err := b.Recv(buf); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v, want EOF", err)
	}
	if err := b.Send([]byte("back")); err != nil {
		t.Errorf("the other way: %v", err)
	}
	b.Close()
	n, _, err := a.Recv(buf)
	if err != nil || string(buf[:n]) != "back" {
		t.Errorf("received %q, %v, want back", buf[:n], err)
	}
	if _, _, err := a.Recv(buf); !errors.Is(err, io.EOF) {
		t.Errorf("after the other end: %v, want EOF", err)
	}
}

// What the other end said is received even if it ended without reading ours.
func TestConnUnread(t *testing.T) {
	a, fd, err := ConnPair()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := NewConn(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Send([]byte("unread")), b.Send([]byte("last words"))); err != nil {
		t.Fatal(err)
	}
	b.Close()
	buf := make([]byte, 16)
	if n, _, err := a.Recv(buf); err != nil || string(buf[:n]) != "last words" {
		t.Errorf("received %q, %v", buf[:n], err)
	}
	if _, _, err := a.Recv(buf); !errors.Is(err, io.EOF) {
		t.Errorf("then %v, want EOF", err)
	}
}

func TestNoteRoundTrip(t *testing.T) {
	want := Note{1, 2, 0xffffffff}
	got, ok := ParseNote(want.Bytes())
	if !ok || got != want {
		t.Errorf("got %v, %v, want %v", got, ok, want)
	}
	if _, ok := ParseNote(want.Bytes()[1:]); ok {
		t.Error("a short message is taken for a note")
	}
}

func TestSignalFD(t *testing.T) {
	// Blocked in this thread, and sent to it alone, so that the rest of
	// the test program does not see it.
	fd, err := SignalFD(SignalSet(syscall.SIGUSR2))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan syscall.Signal)
	go func() {
		// Never unlocked: the thread ends with its mask.
		runtime.LockOSThread()
		BlockThreadSignals()
		if err := syscall.Tgkill(syscall.Getpid(), syscall.Gettid(), syscall.SIGUSR2); err != nil {
			t.Error(err)
		}
		sig, err := ReadSignal(rawReader(fd))
		if err != nil {
			t.Error(err)
		}
		done <- sig
	}()
	if sig := <-done; sig != syscall.SIGUSR2 {
		t.Errorf("signal %v, want USR2", sig)
	}
	Close(fd)
}

// rawReader reads on the calling thread, whose pending signals count.
type rawReader int

func (r rawReader) Read(b []byte) (int, error) { return syscall.Read(int(r), b) }

func TestWatchRemoval(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "ab"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := NewInotify()
	if err != nil {
		t.Fatal(err)
	}
	other, err := WatchNames(fd, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	id, err := WatchRemoval(fd, dir)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "watch")
	defer f.Close()
	read := func() []byte {
		b := make([]byte, 4096)
		n, err := f.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return b[:n]
	}
	remove := func(path string) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	remove(filepath.Join(dir, "ab"))
	if b := read(); RemovalEvents(b, id, "a") || RemovalEvents(b, other, "ab") || !RemovalEvents(b, id, "ab") {
		t.Error("the removal of ab is taken for another")
	}
	if err := os.Rename(filepath.Join(dir, "a"), filepath.Join(t.TempDir(), "a")); err != nil {
		t.Fatal(err)
	}
	if !RemovalEvents(read(), id, "a") {
		t.Error("moving away is not noticed")
	}
	remove(dir)
	if !RemovalEvents(read(), id, "a") {
		t.Error("the directory's end is not noticed")
	}
	if RemovalEvents([]byte{1, 2, 3}, id, "a") {
		t.Error("a cut event counts")
	}
}

func TestHasEnded(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := NewScript(-1)
	s.CloseFD(int(w.Fd()))
	s.AwaitByte(int(r.Fd()))
	pid, err := s.Start(0)
	if err != nil {
		t.Fatal(err)
	}
	if HasEnded(pid) {
		t.Error("ended while it waits")
	}
	fd, err := PidfdOpen(pid)
	if err != nil {
		t.Fatal(err)
	}
	if PidfdEnded(fd) {
		t.Error("its pidfd says ended while it waits")
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	w.Close()
	AwaitPidfd(f)
	if !HasEnded(pid) {
		t.Error("not ended after its pidfd says so")
	}
	if _, err := Wait(pid); err != nil {
		t.Error(err)
	}
}
