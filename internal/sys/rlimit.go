package sys

import "golang.org/x/sys/unix"

// RaiseFileLimit raises the limit of open descriptors as far as it goes without
// privilege, and returns what it is then.
func RaiseFileLimit() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 1024 // the default of POSIX systems
	}
	if l.Cur < l.Max {
		l.Cur = l.Max
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &l) != nil {
			_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &l)
		}
	}
	return int(min(l.Cur, 1<<30))
}
