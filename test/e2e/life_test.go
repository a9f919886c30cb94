package e2e

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"penne/test/bed"
)

// pasta runs it to its end in the host namespace, as the unprivileged user.
func pasta(t *testing.T, b *bed.Bed, argv ...string) bed.Result {
	t.Helper()
	program, err := b.Stage(pastaBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	res, err := b.Host.Run(bed.Spec{Argv: append([]string{program}, argv...)})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestExitStatusIsTheCommands(t *testing.T) {
	b := newBed(t)
	for script, want := range map[string]int{"true": 0, "exit 7": 7, "exit 255": 255} {
		res := pasta(t, b, append(quiet, "--", "sh", "-c", script)...)
		if res.Status != want {
			t.Errorf("%s: status %d, want %d: %s", script, res.Status, want, res.Stderr)
		}
	}
}

func TestUnknownOption(t *testing.T) {
	b := newBed(t)
	res := pasta(t, b, "--al-dente")
	if res.Status != 1 || !strings.Contains(res.Stderr, "unrecognized option '--al-dente'") {
		t.Errorf("status %d: %s", res.Status, res.Stderr)
	}
}

func TestBadValuesFailWithOneReason(t *testing.T) {
	b := newBed(t)
	for _, argv := range [][]string{
		{"-m", "66000"}, {"-m", "x"}, {"-a", "1.2.3"}, {"-g", "nowhere"}, {"-i", "nosuchlink"}, {"-M", "zz"},
		{"--netns", "/no/such/namespace"}, {"-t", "70000"}, {"-t", "9-3"},
	} {
		res := pasta(t, b, append(append([]string{"--config-net", "-f", "-q"}, argv...), "--", "true")...)
		wantOneLine(t, res, argv)
	}
}

// wantOneLine wants a failure that says one thing, and nothing else.
func wantOneLine(t *testing.T, res bed.Result, argv []string) {
	t.Helper()
	if line, rest, _ := strings.Cut(res.Stderr, "\n"); res.Status != 1 || line == "" || rest != "" || res.Stdout != "" {
		t.Errorf("%v: status %d, stdout %q, stderr %q, want one line there", argv, res.Status, res.Stdout, res.Stderr)
	}
}

func TestTermEndsEverything(t *testing.T) {
	b := newBed(t)
	s, err := b.Pasta(append([]string{pastaBinary(t)}, quiet...)...)
	if err != nil {
		t.Fatal(err)
	}
	tree := bed.Tree(s.Proc.PID())
	if len(tree) < 2 {
		t.Fatalf("pasta and its command are %v", tree)
	}
	s.Terminate()
	for _, pid := range tree {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("process %d is still there", pid)
		}
	}
}

// TestCommandInheritsNoDescriptor lists what the command has: ls itself opens one beside the standard three.
func TestCommandInheritsNoDescriptor(t *testing.T) {
	b := newBed(t)
	res := pasta(t, b, append(quiet, "--", "ls", "/proc/self/fd")...)
	if got := strings.Join(strings.Fields(res.Stdout), " "); got != "0 1 2 3" {
		t.Errorf("descriptors of the command: %s %s", got, res.Stderr)
	}
}

// TestStartedByRootItServesAsNobody reads the user of every process of pasta.
func TestStartedByRootItServesAsNobody(t *testing.T) {
	b := newBed(t)
	program, err := b.Stage(pastaBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	argv := append(append([]string{program}, quiet...), "--", "sh", "-c", "echo up; exec sleep 1000")
	p, err := b.Host.Start(bed.Spec{Argv: argv, Root: true, Ready: "^up$"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	serving := false
	for _, pid := range bed.Tree(p.PID()) {
		if uid := uidOf(t, pid); uid == "65534" {
			serving = true
		}
	}
	if !serving {
		t.Error("no process of pasta runs as nobody")
	}
}

func uidOf(t *testing.T, pid int) string {
	t.Helper()
	info, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(info)) {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			return strings.Fields(rest)[1] // effective
		}
	}
	t.Fatal("no Uid in status")
	return ""
}
