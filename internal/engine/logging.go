package engine

import (
	"io"
	"log/slog"
	"os"
	"strconv"

	"penne/internal/conf"
	"penne/internal/log"
)

// openLog opens the destinations that were asked for: a file alone, or standard
// error as long as somebody reads it, and the system logger for a process in
// the background, unless it logs details.
func (e *engine) openLog() error {
	o := log.Options{Level: level(e.conf.Logging.Verbosity), JSON: e.conf.Logging.JSON}
	switch c := &e.conf.Logging; {
	case c.File != "":
		f, err := e.logFile()
		if err != nil {
			return err
		}
		o.File = f
	default:
		o.Stderr = io.Writer(os.Stderr)
		if !e.conf.Process.Foreground && c.Verbosity < conf.Debug {
			// Machines without a system logger are no reason to fail.
			o.Syslog, _ = log.DialSyslog(log.SyslogPath, e.conf.Program, callersPID())
		}
	}
	e.log = log.New(o)
	for _, w := range e.conf.Warnings {
		e.log.Warn(w)
	}
	return nil
}

// logFile is the log file, which the launcher has opened where we may not.
func (e *engine) logFile() (*log.File, error) {
	c := &e.conf.Logging
	if f := e.handles.Log; f != nil {
		return log.NewFile(f, c.Size)
	}
	return log.OpenFile(c.File, c.Size)
}

// callersPID is our process number as the caller sees it: we are the first in a
// PID namespace of our own, but /proc is still the caller's.
func callersPID() int {
	name, err := os.Readlink("/proc/self")
	pid, err2 := strconv.Atoi(name)
	if err != nil || err2 != nil {
		return os.Getpid()
	}
	return pid
}

// logFailure logs why we end, where the launcher, which tells the caller if it
// is there, does not.
func (e *engine) logFailure(err error) {
	e.log.DropStderr()
	e.log.Error(err.Error())
}

// detachLog leaves standard error alone once we work in the background: it is
// /dev/null, or the terminal of the command, where only those who debug want to
// see us.
func (e *engine) detachLog() {
	debug := e.handles.Attended && e.conf.Logging.Verbosity >= conf.Debug
	if !e.conf.Process.Foreground && !debug {
		e.log.DropStderr()
	}
}

func level(v conf.Verbosity) slog.Level {
	switch v {
	case conf.Quiet:
		return log.LevelQuiet
	case conf.Debug:
		return slog.LevelDebug
	case conf.Trace:
		return log.LevelTrace
	}
	return slog.LevelInfo
}
