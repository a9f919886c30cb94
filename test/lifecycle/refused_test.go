package lifecycle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPasst says that it is not there, and makes nothing.
func TestPasst(t *testing.T) {
	u := newUser(t)
	program, socket := filepath.Join(u.dir, "passt"), filepath.Join(u.dir, "socket")
	if err := os.Symlink(filepath.Join(bin, "penne"), program); err != nil {
		t.Fatal(err)
	}
	r := u.finish(program, "-f", "-s", socket)
	if r.status != 1 || r.stderr.String() != "passt: virtual machines cannot be served yet, only namespaces: call it pasta for these\n" {
		t.Errorf("status %d, %q", r.status, r.stderr.String())
	}
	if _, err := os.Lstat(socket); err == nil {
		t.Errorf("%s is there", socket)
	}
}

// Where something is missing, one line says what and what to do.
func TestRefused(t *testing.T) {
	u := newUser(t)
	shut := filepath.Join(u.dir, "shut") // root's
	if err := os.WriteFile(shut, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, line, want string }{
		{"no tun", "mount -t tmpfs none /dev",
			"pasta: Failed to open /dev/net/tun: no such file or directory: load the tun module or make it accessible\n"},
		{"no user namespaces", "echo 0 >/proc/sys/user/max_user_namespaces",
			"pasta: Failed to create namespaces: no space left on device: no user namespace is allowed, " +
				"try: sysctl -w user.max_user_namespaces=10000\n"},
		{"no network namespaces", "echo 0 >/proc/sys/user/max_net_namespaces",
			"pasta: Failed to create namespaces: no space left on device: there are as many namespaces as are allowed, " +
				"raise the limits user.max_*_namespaces (sysctl)\n"},
		{"no mount namespace for the engine", "echo 2 >/proc/sys/user/max_mnt_namespaces",
			"pasta: Failed to create the engine's namespaces: no space left on device: there are as many namespaces as are allowed, " +
				"raise the limits user.max_*_namespaces (sysctl)\n"},
		{"no PID namespace for the engine", "echo 1 >/proc/sys/user/max_pid_namespaces",
			"pasta: Failed to start the engine: no space left on device: there are as many namespaces as are allowed, " +
				"raise the limits user.max_*_namespaces (sysctl)\n"},
		{"few descriptors", "ulimit -n 64",
			"pasta: make sockets in the namespace: too many open files: raise the limit of open files, ulimit -n\n"},
		{"tun is for others", "mount --bind " + shut + " /dev/net/tun",
			"pasta: Failed to open /dev/net/tun: permission denied: load the tun module or make it accessible\n"},
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

// An option that there is not is named in the first line, and all that there are
// in the rest.
func TestUsage(t *testing.T) {
	u := newUser(t)
	help := u.finish("pasta", "--help")
	if help.status != 0 || !strings.HasPrefix(help.stdout.String(), "Usage: ") {
		t.Errorf("--help: status %d, %.50q", help.status, help.stdout.String())
	}
	u.finish("pasta", "--al-dente").expect(1, "", "pasta: unrecognized option '--al-dente'\n"+help.stdout.String())
	u.finish("pasta", "-m", "x").expect(1, "", "pasta: invalid value 'x' for option '-m': give 0, or bytes between 68 and 65520\n")
}
