package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"penne/internal/sys"
)

// Exit statuses, the last two as shells have them.
const (
	statusFailure     = 1
	statusNotRunnable = 126
	statusNotFound    = 127
	statusSignal      = 128
)

// userError is an error whose text is the line that the user reads: what failed,
// why, what to do.
type userError struct {
	status int
	text   string
	cause  error
}

func (e *userError) Error() string { return e.text }
func (e *userError) Unwrap() error { return e.cause }

// failure makes a userError of status 1.
func failure(cause error, format string, args ...any) error {
	return &userError{statusFailure, fmt.Sprintf(format, args...), cause}
}

// statusOf is the exit status that err asks for.
func statusOf(err error) int {
	var e *userError
	if errors.As(err, &e) {
		return e.status
	}
	return statusFailure
}

// reason is the innermost message of err: that of the errno, where there is one.
func reason(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

// TunError describes a failure to open the tun device. Other errors it returns
// unchanged.
func TunError(err error) error {
	for _, known := range []error{fs.ErrNotExist, syscall.ENODEV, syscall.ENXIO, syscall.EACCES, syscall.ENOTTY} {
		if errors.Is(err, known) {
			return tunFailure(err)
		}
	}
	return err
}

func tunFailure(err error) error {
	return failure(err, "Failed to open %s: %s: load the tun module or make it accessible",
		sys.TunPath, reason(err))
}

// checkTun fails early, while there is nothing to clean up, if there can be no tap.
func checkTun() error {
	f, err := os.OpenFile(sys.TunPath, os.O_RDWR, 0)
	if err != nil {
		return tunFailure(err)
	}
	return f.Close()
}

// userNSError describes a failure to make or set up a user namespace.
func userNSError(what string, err error) error {
	return failure(err, "Failed to %s: %s: %s", what, reason(err), userNSHint(err))
}

// userNSHint says which setting forbids user namespaces, as far as can be told.
func userNSHint(err error) string {
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return limitHint(err)
	case sysctl("kernel/unprivileged_userns_clone") == "0":
		return "user namespaces are switched off, try: sysctl -w kernel.unprivileged_userns_clone=1"
	case sysctl("user/max_user_namespaces") == "0":
		return "no user namespace is allowed, try: sysctl -w user.max_user_namespaces=10000"
	case sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "AppArmor restricts user namespaces: install a profile that allows them for this program, " +
			"or try: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
	}
	if hint := limitHint(err); hint != "" {
		return hint
	}
	return "user namespaces may be forbidden here, by a chroot (user_namespaces(7)), a container's seccomp filter, or a security module"
}

// limitError describes the failure of a step that needs no privilege, but may exceed
// a limit.
func limitError(what string, err error) error {
	if hint := limitHint(err); hint != "" {
		return failure(err, "Failed to %s: %s: %s", what, reason(err), hint)
	}
	return failure(err, "Failed to %s: %s", what, reason(err))
}

// limitHint says which limit err is about, if any (clone(2), namespaces(7)).
func limitHint(err error) string {
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return "there are as many processes as are allowed, raise the limit (ulimit -u, or pids.max of the cgroup)"
	case errors.Is(err, syscall.ENOSPC):
		return "there are as many namespaces as are allowed, raise the limits user.max_*_namespaces (sysctl)"
	case errors.Is(err, syscall.ENOMEM):
		return "there is too little memory"
	}
	return ""
}

func sysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// joinError describes a failure to open or join a namespace.
func joinError(what string, err error, userns bool) error {
	hint := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		hint = ": give one that exists"
	case errors.Is(err, syscall.EINVAL):
		hint = ": this is no namespace of that kind"
	case errors.Is(err, fs.ErrPermission) && userns:
		hint = ": the process or namespace must be your own"
	case errors.Is(err, fs.ErrPermission):
		hint = ": it belongs to another user namespace, give that with --userns, or run inside it"
	}
	return failure(err, "Failed to %s: %s%s", what, reason(err), hint)
}
