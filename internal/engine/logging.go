package engine

import (
	"io"
	"log/slog"
	"os"
	"strconv"

	"penne/internal/conf"
	"penne/internal/log"
)

// openLog opens the log: a file if asked for, else standard error and, for a process
// in the background without --debug, the system logger.
func (e *engine) openLog() error {
	o := log.Options{Level: slogLevel(e.conf.Logging.Verbosity), JSON: e.conf.Logging.JSON}
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
			// There may be no system logger.
			o.Syslog, _ = log.DialSyslog(log.SyslogPath, e.conf.Program, callersPID())
		}
	}
	e.log = log.New(o)
	for _, w := range e.conf.Warnings {
		e.log.Warn(w)
	}
	return nil
}

// logFile opens the log file, or uses the launcher's if we may not open it.
func (e *engine) logFile() (*log.File, error) {
	c := &e.conf.Logging
	if f := e.handles.Log; f != nil {
		return log.NewFile(f, c.Size)
	}
	return log.OpenFile(c.File, c.Size)
}

// callersPID is our process ID in the caller's PID namespace: in our own it is 1, but
// /proc is still the caller's.
func callersPID() int {
	name, err := os.Readlink("/proc/self")
	pid, err2 := strconv.Atoi(name)
	if err != nil || err2 != nil {
		return os.Getpid()
	}
	return pid
}

// logFailure logs why we end, except on standard error, where the launcher does.
func (e *engine) logFailure(err error) {
	e.log.DropStderr()
	e.log.Error(err.Error())
}

// detachLog stops logging to standard error in the background: that is /dev/null, or
// the terminal of the command, where we log only with --debug.
func (e *engine) detachLog() {
	debug := e.handles.Attended && e.conf.Logging.Verbosity >= conf.Debug
	if !e.conf.Process.Foreground && !debug {
		e.log.DropStderr()
	}
}

// slogLevel is the lowest level that is logged at verbosity v.
func slogLevel(v conf.Verbosity) slog.Level {
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
