package log

import (
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"syscall"
	"time"
)

// SyslogPath is where the system logger listens.
const SyslogPath = "/dev/log"

// Priorities of RFC 3164 section 4.1.1: facility daemon, and severities.
const (
	facilityDaemon  = 3 << 3
	severityError   = 3
	severityWarning = 4
	severityInfo    = 6
	severityDebug   = 7
)

// Syslog is a connection to the system logger, owned by one Log, which serialises
// its use. It does not need the socket's path once connected, but when the logger
// is restarted, lines are lost.
type Syslog struct {
	conn *net.UnixConn
	raw  syscall.RawConn
	tag  string
}

// DialSyslog connects to the logger at path, usually [SyslogPath]. Lines are tagged
// with program and pid.
func DialSyslog(path, program string, pid int) (*Syslog, error) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("connect to system logger: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connect to system logger: %w", err)
	}
	// The header has local time, whose zone file Go reads at first use: that
	// must be before the sandbox.
	_ = time.Now().Local().String()
	return &Syslog{conn: conn, raw: raw, tag: program + "[" + strconv.Itoa(pid) + "]: "}, nil
}

// Close closes the connection.
func (s *Syslog) Close() error { return s.conn.Close() }

// appendHeader appends "<PRI>Mmm dd hh:mm:ss tag: ", RFC 3164 section 4.1, in
// the form without host name that local loggers expect.
func (s *Syslog) appendHeader(b []byte, t time.Time, level slog.Level) []byte {
	b = append(b, '<')
	b = strconv.AppendInt(b, facilityDaemon|severity(level), 10)
	b = append(b, '>')
	b = t.Local().AppendFormat(b, time.Stamp)
	b = append(b, ' ')
	return append(b, s.tag...)
}

func severity(l slog.Level) int64 {
	switch {
	case l >= slog.LevelError:
		return severityError
	case l >= slog.LevelWarn:
		return severityWarning
	case l >= slog.LevelInfo:
		return severityInfo
	}
	return severityDebug
}

// send sends one datagram without blocking: a slow logger must not hold us up.
func (s *Syslog) send(line []byte) error {
	var sent error
	err := s.raw.Write(func(fd uintptr) bool {
		_, sent = syscall.Write(int(fd), line)
		return true
	})
	if err != nil {
		return err
	}
	return sent
}
