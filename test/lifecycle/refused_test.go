package lifecycle

import (
	"strings"
	"testing"
)

// Where something is missing, one line says what and what to do.
func TestRefused(t *testing.T) {
	u := newUser(t)
	for _, c := range []struct{ what, line, want string }{
		{"no tun", "mount -t tmpfs none /dev",
			"pasta: Failed to open /dev/net/tun: no such file or directory: load the tun module or make it accessible\n"},
		{"no user namespaces", "echo 0 >/proc/sys/user/max_user_namespaces",
			"pasta: Failed to create namespaces: no space left on device: no user namespace is allowed, " +
				"try: sysctl -w user.max_user_namespaces=10000\n"},
		{"no network namespaces", "echo 0 >/proc/sys/user/max_net_namespaces",
			"pasta: Failed to create namespaces: no space left on device: there are as many namespaces as are allowed, " +
				"raise the limits user.max_*_namespaces (sysctl)\n"},
		{"few descriptors", "ulimit -n 64",
			"pasta: make sockets in the namespace: too many open files: raise the limit of open files, ulimit -n\n"},
		{"tun is another file", "mount -t tmpfs none /dev/net; : >/dev/net/tun",
			"pasta: Failed to open /dev/net/tun: inappropriate ioctl for device: load the tun module or make it accessible\n"},
	} {
		r := u.finish("unshare", "-Urm", "sh", "-c", c.line+"; exec "+bin+"/pasta -q -- true")
		if r.status != 1 || r.stderr.String() != c.want {
			t.Errorf("%s: status %d, %q, want %q", c.what, r.status, r.stderr.String(), c.want)
		}
		u.mustBeGone()
	}
}

// Without /proc there is no way to start.
func TestNoProc(t *testing.T) {
	u := newUser(t)
	r := u.finish("unshare", "-Urm", "sh", "-c", "mount -t tmpfs none /proc; exec "+bin+"/pasta -q -- true")
	if r.status != 1 || strings.Count(r.stderr.String(), "\n") != 1 {
		t.Errorf("status %d, %q", r.status, r.stderr.String())
	}
	u.mustBeGone()
}
