// Package log writes log/slog records to standard error, the system logger, a log
// file of limited size, or several of them.
//
// It owns its destinations. All of them are open before the engine enters its
// sandbox: after that neither /dev/log nor the log file's path can be reached, so
// lines that a destination does not take are lost, and it is never reopened.
// Writing needs no system calls but write, fstat, flock, pread64, pwrite64 and
// ftruncate.
//
// A [Log] is safe for concurrent use. It takes a mutex and allocates: the packet
// path counts (package stats) instead of logging, and what a guest can trigger
// elsewhere goes through [Log.Limited].
package log

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// Levels in addition to those of log/slog.
const (
	// LevelTrace is for single packets.
	LevelTrace = slog.LevelDebug - 4
	// LevelQuiet is the threshold of --quiet: warnings and errors.
	LevelQuiet = slog.LevelWarn
)

// Options say what is logged, and where. A nil destination is not used.
type Options struct {
	// Level is the lowest level that is logged.
	Level slog.Level
	// JSON writes one object per line instead of text.
	JSON bool
	// Stderr gets plain lines; with Level at LevelTrace or slog.LevelDebug
	// each starts with the seconds since New.
	Stderr io.Writer
	// File gets lines with time and level.
	File *File
	// Syslog gets datagrams.
	Syslog *Syslog
}

// Log writes records to all of its destinations.
type Log struct {
	*slog.Logger
	c *core
	// limMu guards limits.
	limMu  sync.Mutex
	limits map[string]*Limited
}

// core is shared by all handlers of a Log.
type core struct {
	level slog.Level
	json  bool
	start time.Time
	// mu guards the fields below.
	mu     sync.Mutex
	body   bytes.Buffer // the current record, without a newline
	line   []byte       // the current line, in the form of one destination
	stderr io.Writer
	file   *File
	syslog *Syslog
}

// New makes a Log, which owns the destinations in o, except Stderr.
func New(o Options) *Log {
	c := &core{
		level:  o.Level,
		json:   o.JSON,
		start:  time.Now(),
		stderr: o.Stderr,
		file:   o.File,
		syslog: o.Syslog,
	}
	var h slog.Handler = &textHandler{c: c}
	if o.JSON {
		h = &jsonHandler{c: c, enc: slog.NewJSONHandler(&c.body, jsonOptions())}
	}
	return &Log{Logger: slog.New(h), c: c, limits: make(map[string]*Limited)}
}

// Discard returns a Log that writes nothing.
func Discard() *Log { return New(Options{Level: slog.LevelError + 1}) }

// Trace logs at LevelTrace.
func (l *Log) Trace(msg string, args ...any) {
	l.Log(context.Background(), LevelTrace, msg, args...)
}

// DropStderr stops logging to standard error, for a daemon that goes to the
// background.
func (l *Log) DropStderr() {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.c.stderr = nil
}

// Close closes the log file and the connection to the system logger. Later records
// go to standard error only.
func (l *Log) Close() error {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	var first error
	if c.file != nil {
		first = c.file.Close()
	}
	if c.syslog != nil {
		if err := c.syslog.Close(); first == nil {
			first = err
		}
	}
	c.file, c.syslog = nil, nil
	return first
}

// emit writes c.body to each destination. The caller holds mu. There is nowhere to
// report errors.
func (c *core) emit(t time.Time, level slog.Level) {
	body := bytes.TrimSuffix(c.body.Bytes(), []byte("\n"))
	if t.IsZero() { // the Record was not made by a Logger
		t = time.Now()
	}
	if c.stderr != nil {
		c.line = c.line[:0]
		if !c.json && c.level < slog.LevelInfo {
			c.line = appendElapsed(c.line, t.Sub(c.start))
		}
		c.line = append(append(c.line, body...), '\n')
		_, _ = c.stderr.Write(c.line)
	}
	if c.file != nil {
		c.line = c.line[:0]
		if !c.json {
			c.line = t.UTC().AppendFormat(c.line, fileTime)
			c.line = append(append(c.line, levelName(level)...), ": "...)
		}
		c.line = append(append(c.line, body...), '\n')
		_ = c.file.append(c.line)
	}
	if c.syslog != nil {
		c.line = c.syslog.appendHeader(c.line[:0], t, level)
		c.line = append(c.line, body...)
		_ = c.syslog.send(c.line)
	}
}

// fileTime is the time format of a log file, UTC.
const fileTime = "2006-01-02T15:04:05.000Z "

// levelName is the name of the nearest level at or below l.
func levelName(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "ERROR"
	case l >= slog.LevelWarn:
		return "WARNING"
	case l >= slog.LevelInfo:
		return "INFO"
	case l >= slog.LevelDebug:
		return "DEBUG"
	}
	return "TRACE"
}
