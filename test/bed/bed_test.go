package bed

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

func TestMain(m *testing.M) {
	if !RunAgent() {
		m.Run()
	}
}

var _ = Register("sum", func(args []string) (any, error) {
	total := 0
	for _, a := range args {
		n, err := strconv.Atoi(a)
		if err != nil {
			return nil, err
		}
		total += n
	}
	return total, nil
})

func newBed(t *testing.T, opts ...Option) *Bed {
	t.Helper()
	Need(t)
	b, err := New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func direct(t *testing.T, b *Bed) *Session {
	t.Helper()
	s, err := b.Direct(b.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestHostReachesRemote(t *testing.T) {
	b := newBed(t)
	s := direct(t, b)
	for _, ip := range []string{RemoteIP4, GatewayIP4, RemoteIP6, GatewayIP6} {
		srv, err := b.Remote.ServeTCP(HostPort(ip, "0"), EchoTCP)
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		c, err := b.Host.Dial("tcp", srv.Addr.String())
		if err != nil {
			t.Fatalf("dial %v: %v", srv.Addr, err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 5)
		if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "hello" {
			t.Errorf("echo by %s: %q, %v", ip, buf, err)
		}
	}
	res, err := s.Run("id", "-u")
	if err != nil || strings.TrimSpace(res.Stdout) != strconv.Itoa(UID) {
		t.Errorf("user of an agent: %+v, %v", res, err)
	}
}

func TestAgentRunsCommandsAndTools(t *testing.T) {
	s := direct(t, newBed(t))
	res, err := s.RunInput([]byte("in"), "sh", "-c", "cat; echo err >&2; exit 3")
	if err != nil || res != (Result{3, "in", "err\n"}) {
		t.Errorf("run: %+v, %v", res, err)
	}
	if res, err := s.Run("sh", "-c", "kill -9 $$"); err != nil || res.Status != 128+9 {
		t.Errorf("killed command: %+v, %v", res, err)
	}
	if _, err := s.Run("/no/such/program"); err == nil {
		t.Error("no error for a missing program")
	}
	var total int
	if err := s.Tool(&total, "sum", "1", "2", "39"); err != nil || total != 42 {
		t.Errorf("tool: %d, %v", total, err)
	}
	if err := s.Tool(&total, "sum", "x"); err == nil || !strings.Contains(err.Error(), "invalid syntax") {
		t.Errorf("failing tool: %v", err)
	}
	if err := s.Tool(&total, "no such"); err == nil {
		t.Error("no error for a missing tool")
	}
}

// TestRacesAreTold has a program report as Go's race detector does.
func TestRacesAreTold(t *testing.T) {
	Need(t)
	b, err := New()
	if err != nil {
		t.Fatal(err)
	}
	res, err := b.Host.Run(Spec{Argv: []string{"sh", "-c", `echo "WARNING: DATA RACE" >"${GORACE#*log_path=}.1"`}})
	if err != nil || res.Status != 0 {
		t.Errorf("report: %+v, %v", res, err)
	}
	if err := b.Close(); err == nil || !strings.Contains(err.Error(), "DATA RACE") {
		t.Errorf("the bed closes with %v", err)
	}
}

func TestBackgroundIsReadyAndStops(t *testing.T) {
	s := direct(t, newBed(t))
	stop, err := s.Background("^ready$", "sh", "-c", "echo ready; exec cat /dev/zero >/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := s.Background("ready", "true"); err == nil {
		t.Error("no error for a command that is never ready")
	}
}

func TestSessionTellsItsProcessesFromTheAgents(t *testing.T) {
	b := newBed(t)
	s := direct(t, b)
	if own := s.Processes(); len(own) != 0 {
		t.Errorf("a direct session has only its agent, got %v", own)
	}
	if tree := Tree(s.Proc.PID()); !slices.Equal(tree, []int{s.Proc.PID()}) {
		t.Errorf("tree of an idle agent: %v", tree)
	}
	u := UsageOf([]int{s.Proc.PID()})
	if u.CPU <= 0 || u.RSS <= 0 || u.Threads < 1 || u.Wakeups <= 0 {
		t.Errorf("usage of a living process: %+v", u)
	}
}

func TestFilesAreRaised(t *testing.T) {
	res, err := direct(t, newBed(t)).Run("sh", "-c", "ulimit -Sn; ulimit -Hn")
	if err != nil {
		t.Fatal(err)
	}
	limits := strings.Fields(res.Stdout)
	if len(limits) != 2 || limits[0] != limits[1] {
		t.Errorf("soft and hard limit of files: %v", limits)
	}
}

func TestRelayDelays(t *testing.T) {
	const rtt = 20 * time.Millisecond
	b := newBed(t, WithRelay(rtt, 0), WithMTU(1500))
	srv, err := b.Remote.ServeUDP(HostPort(RemoteIP4, "0"), Echo)
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	c, err := b.Host.Dial("udp", srv.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := time.Now()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	// A lower bound only: how late the machine wakes us is its own affair.
	if took := time.Since(start); took < rtt {
		t.Errorf("round trip took %v, less than the relay's %v", took, rtt)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	b := newBed(t)
	s := direct(t, b)
	if _, err := s.Background("up", "sh", "-c", "echo up; exec sleep 1000"); err != nil {
		t.Fatal(err)
	}
	// One that has left the tree, too: it is not our descendant any more.
	// The shell ends only when the other has spoken and let go of what the shell reads.
	const leaver = `exec 3>&1; : $(setsid sh -c 'echo out >&3; exec sleep 1000 >&3' &)`
	if _, err := s.Background("out", "sh", "-c", leaver); err != nil {
		t.Fatal(err)
	}
	tree := pids()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.Dir()); !os.IsNotExist(err) {
		t.Errorf("directory %s is still there: %v", b.Dir(), err)
	}
	for _, pid := range tree {
		if markOf(pid) == b.mark { // orphans may wait for their reaper: they have no environment any more
			t.Errorf("process %d is still there", pid)
		}
	}
}

func TestNewRemovesWhatADeadRunLeft(t *testing.T) {
	Need(t)
	const nobody = 1<<22 + 1 // above the kernel's largest pid
	dir := filepath.Join(os.TempDir(), dirPrefix+strconv.Itoa(nobody)+"-x")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b := newBed(t)
	orphan := b.Host.command(Spec{Argv: []string{"sh", "-c", "echo up; read never"}})
	orphan.Env = []string{markEnv + "=" + mark(nobody, 1)}
	stdin, up := pipeTo(t, orphan)
	defer stdin.Close()
	if err := b.Host.start(orphan); err != nil {
		t.Fatal(err)
	}
	// It is the program that it shall be, or another run's bed has ended it.
	up.Read(make([]byte, 1))
	newBed(t)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("directory of a dead run: %v", err)
	}
	orphan.Wait()
	if got := exitStatus(orphan.ProcessState); got != 128+int(syscall.SIGKILL) {
		t.Errorf("orphan ended with status %d", got)
	}
}

// TestMarkOfAnotherPIDNamespace: its owner's pid means nothing here.
func TestMarkOfAnotherPIDNamespace(t *testing.T) {
	const nobody = 1<<22 + 1 // above the kernel's largest pid
	for m, want := range map[string]bool{
		mark(nobody, 1): true, mark(os.Getpid(), 1): false, "": false, "x.1." + pidSpace(): false,
		strconv.Itoa(nobody) + ".1.pid:[1]": false, strconv.Itoa(nobody) + ".1": false,
	} {
		if got := isStale(m); got != want {
			t.Errorf("mark %q is stale: %v, want %v", m, got, want)
		}
	}
}

// pipeTo gives a command a standard input that stays open, and an output to read from.
func pipeTo(t *testing.T, cmd *exec.Cmd) (io.WriteCloser, io.Reader) {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return stdin, stdout
}

func TestPatternIsTheSameHoweverItIsRead(t *testing.T) {
	whole, err := io.ReadAll(PatternReader(7, 1000))
	if err != nil || len(whole) != 1000 {
		t.Fatalf("%d bytes, %v", len(whole), err)
	}
	for _, r := range []io.Reader{iotest.OneByteReader(NewPattern(7)), iotest.HalfReader(NewPattern(7))} {
		got, err := io.ReadAll(io.LimitReader(r, 1000))
		if err != nil || !bytes.Equal(got, whole) {
			t.Errorf("read in other portions: %v, differs", err)
		}
	}
}
