package netns

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"penne/internal/sys"
)

// testUser is whom unprivileged programs run as, if the tests run as root.
const testUser = 61511

// program returns a copy of this test program under a name, in a directory
// that everybody enters.
func program(t *testing.T, name string) string {
	t.Helper()
	if _, err := os.Stat(sys.TunPath); err != nil {
		t.Skipf("no tap can be made here: %v", err)
	}
	dir, err := os.MkdirTemp("", "penne-netns-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	path := filepath.Join(dir, name)
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// openTun lets everybody make taps, as most systems do and some test machines
// do not.
func openTun(t *testing.T) {
	t.Helper()
	info, err := os.Stat(sys.TunPath)
	if err != nil {
		t.Skipf("no tap can be made here: %v", err)
	}
	if info.Mode().Perm()&0o006 == 0o006 {
		return
	}
	if err := os.Chmod(sys.TunPath, 0o666); err != nil {
		t.Skipf("%s is for root only: %v", sys.TunPath, err)
	}
}

type result struct {
	status         int
	stdout, stderr string
}

// runUnprivileged runs a program to its end, unprivileged, with an engine that does what.
func runUnprivileged(t *testing.T, what string, argv ...string) result {
	t.Helper()
	openTun(t)
	cmd := exec.Command(argv[0], argv[1:]...)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: testUser, Gid: testUser}}
	}
	return runCommand(t, cmd, what)
}

func runCommand(t *testing.T, cmd *exec.Cmd, what string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "PENNE_TEST_ENGINE=" + what}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v did not start: %v", cmd.Args, err)
	}
	guard := time.AfterFunc(time.Minute, func() { // it takes milliseconds, unless it hangs
		t.Errorf("%v (%s) did not end", cmd.Args, what)
		_ = cmd.Process.Kill()
	})
	_ = cmd.Wait()
	guard.Stop()
	r := result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	if strings.Contains(r.stderr, "user namespaces may be forbidden") {
		t.Skipf("user namespaces are forbidden here: %s", r.stderr)
	}
	return r
}

func TestEngineMakesTap(t *testing.T) {
	r := runUnprivileged(t, "tap", program(t, "pasta"), "-f", "--", "cat", "/proc/net/dev")
	if r.status != 0 || !strings.Contains(r.stdout, "tap0:") {
		t.Errorf("status %d, interfaces %q, errors %q", r.status, r.stdout, r.stderr)
	}
}

func TestEngineCapabilities(t *testing.T) {
	pasta := program(t, "pasta")
	if r := runUnprivileged(t, "caps", pasta, "--", "true"); r.status != 0 {
		t.Errorf("unprivileged: status %d, %q", r.status, r.stderr)
	}
	if os.Geteuid() != 0 {
		t.Skip("root's way needs root")
	}
	if r := runCommand(t, exec.Command(pasta, "--", "true"), "caps"); r.status != 0 {
		t.Errorf("root: status %d, %q", r.status, r.stderr)
	}
	if r := runCommand(t, exec.Command(pasta, "--netns-only", "--", "true"), "caps"); r.status != 0 {
		t.Errorf("root, no user namespace: status %d, %q", r.status, r.stderr)
	}
}

func TestEnginePassesPorts(t *testing.T) {
	if r := runUnprivileged(t, "ports", program(t, "pasta"), "--", "true"); r.status != 0 {
		t.Errorf("status %d, %q", r.status, r.stderr)
	}
}

func TestEngineFailures(t *testing.T) {
	pasta := program(t, "pasta")
	for _, c := range []struct {
		what string
		args []string
		want string
	}{
		{"fail", []string{"--", "true"}, "pasta: the engine's own words\n"},
		{"fail later", []string{"--", "sleep", "100"}, "pasta: the engine's later words\n"},
		{"return", []string{"--", "true"}, "pasta: the engine ended too early: exit status 0\n"},
		{"user", []string{"--", "sleep", "100"}, "pasta: got USR1\n"},
	} {
		r := runUnprivileged(t, c.what, append([]string{pasta}, c.args...)...)
		if r.status != 1 || r.stderr != c.want {
			t.Errorf("%s: status %d, %q, want 1 and %q", c.what, r.status, r.stderr, c.want)
		}
	}
	if r := runUnprivileged(t, "panic", pasta, "--", "true"); r.status != 1 || !strings.Contains(r.stderr, "for the test") ||
		!strings.HasSuffix(r.stderr, "pasta: the engine ended too early: exit status 2\n") {
		t.Errorf("panic: status %d, %q", r.status, r.stderr)
	}
}

// An engine that does not return is not waited for.
func TestEngineHangs(t *testing.T) {
	if r := runUnprivileged(t, "hang", program(t, "pasta"), "--", "sh", "-c", "exit 6"); r.status != 6 {
		t.Errorf("status %d, %q, want 6", r.status, r.stderr)
	}
}

// passt has no namespace to join: its engine gets a user namespace of its own.
func TestPasstEngine(t *testing.T) {
	r := runUnprivileged(t, "caps", program(t, "passt"), "-P", "/nonexistent/pid")
	if r.status != 1 || r.stderr != "passt: Failed to write PID file /nonexistent/pid: no such file or directory\n" {
		t.Errorf("status %d, %q", r.status, r.stderr)
	}
}

// A marker without a launcher behind it leads nowhere.
func TestForgedEngine(t *testing.T) {
	cmd := exec.Command(program(t, "pasta"))
	cmd.Args = []string{engineArg0 + "9", "pasta"}
	if r := runCommand(t, cmd, ""); r.status != 1 || !strings.Contains(r.stderr, "no engine's connection") {
		t.Errorf("status %d, %q", r.status, r.stderr)
	}
}
