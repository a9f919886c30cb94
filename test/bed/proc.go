package bed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"
)

// Spec says what to start in a namespace.
type Spec struct {
	Argv  []string
	Env   []string // added to a small environment; never the caller's own
	Dir   string   // the bed's directory if empty
	Stdin io.Reader
	Files []*os.File // descriptors 3 and up
	Root  bool       // stay root; the default is the unprivileged user
	Ready string     // Start returns once this regular expression matched a line of the output
	Group bool       // a process group of its own
	// Stdout is where standard output goes if it is not to be collected.
	Stdout io.Writer
}

// Proc is a process in a namespace, with what it has written so far.
type Proc struct {
	Argv   []string
	Stdout *Output
	Stderr *Output

	bed  *Bed
	cmd  *exec.Cmd
	done chan struct{} // closed when it has been waited for
	err  error         // of Wait; read after done
}

// drained is how long what a process has written may take to be read after its end.
const drained = 2 * time.Second

// Patience bounds waits for processes: whatever has not come by then never will, and who waits says so.
const Patience = 2 * time.Minute

// Start forks a process into the namespace. The bed kills it at the latest.
func (n *NS) Start(s Spec) (*Proc, error) {
	p := &Proc{Argv: s.Argv, Stdout: newOutput(), Stderr: newOutput(), bed: n.bed, done: make(chan struct{})}
	p.cmd = n.command(s)
	p.cmd.Stdout, p.cmd.Stderr = p.Stdout, p.Stderr
	if s.Stdout != nil {
		p.cmd.Stdout = s.Stdout
	}
	if err := n.start(p.cmd); err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", s.Argv[0], n.Name, err)
	}
	adopted := n.bed.adopt(p)
	go p.wait()
	if !adopted {
		p.Kill()
		return nil, errors.New("start process: the bed is closed")
	}
	if s.Ready == "" {
		return p, nil
	}
	if err := p.awaitReady(s.Ready); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// command prepares a process with the bed's environment, limits and user.
func (n *NS) command(s Spec) *exec.Cmd {
	cmd := exec.Command(s.Argv[0], s.Argv[1:]...)
	cmd.Dir = s.Dir
	if cmd.Dir == "" {
		cmd.Dir = n.bed.dir
	}
	cmd.Env = append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + n.bed.dir, "LC_ALL=C", "SHELL=/bin/sh", "TMPDIR=" + os.TempDir(),
		markEnv + "=" + n.bed.mark, "GORACE=atexit_sleep_ms=0 log_path=" + filepath.Join(n.bed.dir, races, "report"),
	}, s.Env...)
	cmd.Stdin = s.Stdin
	cmd.ExtraFiles = s.Files
	// Something the process started may keep its output open: it must not hold up Wait.
	cmd.WaitDelay = drained
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: s.Group}
	if !s.Root {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: UID, Gid: GID}
	}
	return cmd
}

func (b *Bed) adopt(p *Proc) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.procs[p] = struct{}{}
	return true
}

func (p *Proc) wait() {
	p.err = p.cmd.Wait()
	close(p.done)
	p.bed.mu.Lock()
	delete(p.bed.procs, p)
	p.bed.mu.Unlock()
}

// awaitReady returns when the line has come, or with an error when the process has ended without it.
func (p *Proc) awaitReady(pattern string) error {
	re, err := regexp.Compile("(?m)" + pattern)
	if err != nil {
		return err
	}
	seen := make(chan struct{})
	var once sync.Once
	found := func(text []byte) {
		if re.Match(text) {
			once.Do(func() { close(seen) })
		}
	}
	p.Stdout.watch(found)
	p.Stderr.watch(found)
	why := ""
	select {
	case <-seen:
		return nil
	case <-p.done:
		if isClosed(seen) { // both, in this order
			return nil
		}
		why = fmt.Sprintf("ended before it was ready (%v)", p.err)
	case <-time.After(Patience):
		why = fmt.Sprintf("is not ready after %v", Patience)
	}
	return fmt.Errorf("%s %s: %s%s", p.Argv[0], why, p.Stdout, p.Stderr)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// PID is the process's, in the bed's PID namespace.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal to the process.
func (p *Proc) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// Done is closed when the process has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Wait waits for the end. It returns the exit status, or 128 and the signal's number. Beyond Patience it ends the
// process, and says so in its standard error.
func (p *Proc) Wait() int {
	select {
	case <-p.done:
	case <-time.After(Patience):
		fmt.Fprintf(p.Stderr, "%s has not ended after %v and was killed\n", p.Argv[0], Patience)
		p.Kill()
	}
	return exitStatus(p.cmd.ProcessState)
}

// Kill ends the process and everything below it, and waits.
func (p *Proc) Kill() {
	killTree(p.PID())
	<-p.done
}

func exitStatus(state *os.ProcessState) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}

// Result is how a command ended and what it said.
type Result struct {
	Status         int // exit status, or 128 and the signal's number
	Stdout, Stderr string
}

// Run starts a process in the namespace and waits for its end.
func (n *NS) Run(s Spec) (Result, error) {
	p, err := n.Start(s)
	if err != nil {
		return Result{}, err
	}
	status := p.Wait()
	return Result{status, p.Stdout.String(), p.Stderr.String()}, nil
}

// Output collects what a process writes and tells watchers of it.
type Output struct {
	mu       sync.Mutex // guards what follows
	text     bytes.Buffer
	watchers []func([]byte)
}

func newOutput() *Output { return &Output{} }

// Write implements io.Writer.
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(b)
	for _, w := range o.watchers {
		w(o.text.Bytes())
	}
	return len(b), nil
}

// watch calls f with all the text, now and whenever there is more.
func (o *Output) watch(f func([]byte)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.watchers = append(o.watchers, f)
	f(o.text.Bytes())
}

// String is everything written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
