package log

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// syslogPair returns a system logger and a connection to it.
func syslogPair(t *testing.T) (*net.UnixConn, *Syslog) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	server, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	s, err := DialSyslog(path, "pasta", 42)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return server, s
}

func receive(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// TestSyslogFormat checks RFC 3164's header for each level.
func TestSyslogFormat(t *testing.T) {
	server, s := syslogPair(t)
	l := New(Options{Level: LevelTrace, Syslog: s})
	l.Error("m")
	l.Warn("m")
	l.Info("m")
	l.Debug("m")
	l.Trace("m")
	for _, pri := range []string{"27", "28", "30", "31", "31"} {
		want := regexp.MustCompile(`^<` + pri + `>[A-Z][a-z]{2} [ 0-3]\d \d\d:\d\d:\d\d pasta\[42\]: m$`)
		if got := receive(t, server); !want.MatchString(got) {
			t.Errorf("got %q, want %v", got, want)
		}
	}
	at := time.Date(2026, time.March, 4, 5, 6, 7, 0, time.Local)
	if got := string(s.appendHeader(nil, at, slog.LevelInfo)); got != "<30>Mar  4 05:06:07 pasta[42]: " {
		t.Errorf("got %q", got)
	}
}

// TestSyslogUnlinked checks that the socket's path is needed once only.
func TestSyslogUnlinked(t *testing.T) {
	server, s := syslogPair(t)
	if err := os.Remove(server.LocalAddr().String()); err != nil {
		t.Fatal(err)
	}
	if err := s.send([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, server); got != "x" {
		t.Errorf("got %q", got)
	}
}

// TestSyslogFull checks that a logger which does not read costs lines, not
// time: a blocked send would hang this test.
func TestSyslogFull(t *testing.T) {
	_, s := syslogPair(t)
	for range 1 << 20 {
		if err := s.send([]byte("x")); err != nil {
			if !errors.Is(err, syscall.EAGAIN) {
				t.Errorf("error %v", err)
			}
			return
		}
	}
	t.Error("the logger's queue takes a million lines")
}

func TestSyslogGone(t *testing.T) {
	server, s := syslogPair(t)
	server.Close()
	if err := s.send([]byte("x")); err == nil {
		t.Error("a logger that is gone is no error")
	}
	New(Options{Syslog: s}).Info("lost")
	if _, err := DialSyslog(filepath.Join(t.TempDir(), "none"), "pasta", 1); err == nil {
		t.Error("a missing logger is no error")
	}
}
