package log

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"time"
)

// toBuffer returns a Log at level whose standard error is the buffer.
func toBuffer(level slog.Level, asJSON bool) (*Log, *bytes.Buffer) {
	var b bytes.Buffer
	return New(Options{Level: level, JSON: asJSON, Stderr: &b}), &b
}

func TestText(t *testing.T) {
	tests := []struct {
		name string
		log  func(l *Log)
		want string
	}{
		{"plain", func(l *Log) { l.Error("it is broken") }, "it is broken\n"},
		{"attributes", func(l *Log) { l.Info("bound", "port", 22, "addr", "::1") }, "bound port=22 addr=::1\n"},
		{"quoted", func(l *Log) { l.Warn("name", "a", "x y", "b", "", "c", `"`, "d", "k=v") }, `name a="x y" b="" c="\"" d="k=v"` + "\n"},
		{"error value", func(l *Log) { l.Warn("bind", "err", errors.New("in use")) }, `bind err="in use"` + "\n"},
		{"no forged line", func(l *Log) { l.Info("a\nb", "k", "c\nd\x1b[2J") }, `a\nb k="c\nd\x1b[2J"` + "\n"},
		{"broken UTF-8", func(l *Log) { l.Info("a\xff", "k", "\xff") }, `a\ufffd k="\xff"` + "\n"},
		{"letters", func(l *Log) { l.Info("schön", "k", "für") }, "schön k=für\n"},
		{"group", func(l *Log) { l.Info("m", slog.Group("g", "a", 1, slog.Group("", "b", 2))) }, "m g.a=1 g.b=2\n"},
		{"with", func(l *Log) { l.With("a", 1).WithGroup("g").With("b", 2).Info("m", "c", 3) }, "m a=1 g.b=2 g.c=3\n"},
		{"empty group", func(l *Log) { l.WithGroup("").Info("m", "c", 3) }, "m c=3\n"},
		{"empty attribute", func(l *Log) { l.Info("m", slog.Attr{}) }, "m\n"},
		{"below level", func(l *Log) { l.Debug("x"); l.Trace("y") }, ""},
	}
	for _, tt := range tests {
		l, b := toBuffer(slog.LevelInfo, false)
		tt.log(l)
		if b.String() != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, b, tt.want)
		}
	}
}

func TestLevels(t *testing.T) {
	all := func(l *Log) {
		l.Error("e")
		l.Warn("w")
		l.Info("i")
		l.Debug("d")
		l.Trace("t")
	}
	tests := []struct {
		level slog.Level
		want  string
	}{
		{LevelQuiet, "e w"},
		{slog.LevelInfo, "e w i"},
		{slog.LevelDebug, "e w i d"},
		{LevelTrace, "e w i d t"},
	}
	for _, tt := range tests {
		l, b := toBuffer(tt.level, false)
		all(l)
		var got []string
		for line := range strings.Lines(b.String()) {
			word := strings.TrimSuffix(line, "\n")
			if tt.level < slog.LevelInfo {
				_, after, ok := strings.Cut(word, ": ")
				if !ok {
					t.Errorf("level %v: line %q has no time", tt.level, line)
				}
				word = after
			}
			got = append(got, word)
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("level %v: got %q, want %q", tt.level, s, tt.want)
		}
	}
	all(Discard())
}

func TestAppendElapsed(t *testing.T) {
	if got := string(appendElapsed(nil, 1234567*time.Microsecond)); got != "1.2346: " {
		t.Errorf("got %q", got)
	}
}

func TestJSON(t *testing.T) {
	l, b := toBuffer(LevelTrace, true)
	l.With("a", 1).WithGroup("g").Warn("two\nlines", "k", "v")
	l.Trace("packet")
	lines := strings.SplitAfter(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines: %q", len(lines), b)
	}
	var first struct {
		Time       time.Time
		Level, Msg string
		A          int
		G          struct{ K string }
	}
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil {
		t.Fatal(err)
	}
	if first.Level != "WARNING" || first.Msg != "two\nlines" || first.A != 1 || first.G.K != "v" || first.Time.Location() != time.UTC {
		t.Errorf("got %+v", first)
	}
	if !strings.Contains(lines[1], `"level":"TRACE"`) {
		t.Errorf("got %q", lines[1])
	}
}

// TestHandlerContract runs the standard library's checks of a slog.Handler.
func TestHandlerContract(t *testing.T) {
	var b bytes.Buffer
	newHandler := func(*testing.T) slog.Handler {
		b.Reset()
		return New(Options{Level: slog.LevelDebug, JSON: true, Stderr: &b}).Handler()
	}
	slogtest.Run(t, newHandler, func(t *testing.T) map[string]any {
		m := map[string]any{}
		if err := json.Unmarshal(b.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		return m
	})
}

// TestFanOut checks that each destination gets each line in its own form, and
// that dropping one leaves the others.
func TestFanOut(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	file, err := OpenFile(path, DefaultTestLimit)
	if err != nil {
		t.Fatal(err)
	}
	server, sys := syslogPair(t)
	var b bytes.Buffer
	l := New(Options{Stderr: &b, File: file, Syslog: sys})
	l.Warn("first", "n", 1)
	l.DropStderr()
	l.Info("second")
	if b.String() != "first n=1\n" {
		t.Errorf("standard error: %q", b.String())
	}
	if got := receive(t, server); !strings.HasPrefix(got, "<28>") || !strings.HasSuffix(got, " pasta[42]: first n=1") {
		t.Errorf("system logger: %q", got)
	}
	if got := receive(t, server); !strings.HasPrefix(got, "<30>") || !strings.HasSuffix(got, " pasta[42]: second") {
		t.Errorf("system logger: %q", got)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	l.Error("after the end")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if len(lines) != 2 {
		t.Fatalf("file: %q", data)
	}
	for i, want := range []string{"WARNING: first n=1", "INFO: second"} {
		stamp, rest := lines[i][:len(fileTime)], lines[i][len(fileTime):]
		if _, err := time.Parse(fileTime, stamp); err != nil || rest != want {
			t.Errorf("file: line %q: %v", lines[i], err)
		}
	}
}

// lockedBuffer is a writer that fails the race detector if used unlocked.
type lockedBuffer struct{ lines int }

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.lines += bytes.Count(p, []byte("\n"))
	return len(p), nil
}

// TestConcurrent checks, under the race detector, that lines of several
// goroutines come out whole.
func TestConcurrent(t *testing.T) {
	var b lockedBuffer
	l := New(Options{Stderr: &b})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 100 {
				l.With("a", i).Info("line", "i", i)
			}
		})
	}
	wg.Wait()
	if b.lines != 400 {
		t.Errorf("%d lines", b.lines)
	}
}

// TestFailingStderr checks that a closed standard error harms nobody else.
func TestFailingStderr(t *testing.T) {
	server, sys := syslogPair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	l := New(Options{Stderr: w, Syslog: sys})
	l.Info("still here")
	if got := receive(t, server); !strings.HasSuffix(got, "still here") {
		t.Errorf("got %q", got)
	}
}

func BenchmarkDisabled(b *testing.B) {
	l := Discard()
	b.ReportAllocs()
	for b.Loop() {
		l.Debug("x")
	}
}
