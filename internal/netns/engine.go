package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"penne/internal/conf"
	"penne/internal/sys"
)

// Why an engine's context ends.
var (
	errLauncherGone  = errors.New("the launcher has gone")
	errNamespaceGone = errors.New("the namespace has gone")
)

// endGrace is how long an engine may take to return once its context has
// ended. It takes some 20 ms, more where a capture is to be finished or there
// are thousands of listeners. The launcher's stopGrace is longer.
const endGrace = 900 * time.Millisecond

// Engine is the code that forwards. It sets up everything, calls h.Ready, and
// serves until ctx ends, whose cause tells why; then it closes its listeners
// and returns nil, soon. An error before that ends the program with one line
// and status 1.
type Engine func(ctx context.Context, c *conf.Config, h *Handles) error

// Handles is what an engine gets from the stages before it.
type Handles struct {
	// NetNS is the network namespace to be served, nil in passt mode. It
	// stays open as long as the engine runs.
	NetNS *os.File
	// Target is the pidfd of the process whose namespace it is, nil if
	// there is none. The package watches it itself.
	Target *os.File
	// Watches is for what the engine wants to watch, nil if the kernel
	// grants no inotify instance.
	Watches *Watches
	// Log and Capture are the files to write, if they are named and the
	// engine is another user than the caller, who may open them; else nil.
	Log, Capture *os.File
	// LowPorts are sockets that the launcher bound.
	LowPorts []LowPort
	// Attended says that the launcher stays, so that standard error does.
	Attended bool
	// User delivers USR1 and USR2.
	User <-chan syscall.Signal
	// Ready is to be called once, when forwarding works. Without a
	// launcher to stay, it leaves standard output and error for /dev/null.
	Ready func() error
}

// IsEngine tells whether argv is that of an engine, which only a launcher
// starts.
func IsEngine(argv []string) bool {
	_, ok := engineConn(argv)
	return ok
}

// RunEngine is the engine's stage. It returns the exit status.
func RunEngine(argv []string, serve Engine) int {
	fd, _ := engineConn(argv)
	c, err := conf.Parse(argv[1:])
	if err != nil { // the launcher parsed the same
		fmt.Fprintln(os.Stderr, err)
		return statusFailure
	}
	sys.SetThreadName(c.Program)
	conn, err := sys.NewConn(fd)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: this is no engine's connection: %v\n", c.Program, err)
		return statusFailure
	}
	hand, err := receiveHandover(conn)
	if err != nil {
		return statusFailure // no launcher any more, nobody to tell
	}
	s := &stage{conn: conn, hand: hand, ended: make(chan error, 1)}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	h, err := s.handles()
	if err == nil {
		go s.lifeline()
		go s.watchSignals()
		go func() { s.ended <- serve(s.ctx, c, h) }()
		err = s.wait()
	}
	return s.report(err)
}

// stage is the state of an engine's life cycle.
type stage struct {
	conn *sys.Conn
	hand *handover
	// ctx ends with cancel when the engine shall.
	ctx    context.Context
	cancel context.CancelCauseFunc
	// ended has what the engine returned.
	ended chan error
}

// wait waits for the engine, though not for long once it shall end.
func (s *stage) wait() error {
	select {
	case err := <-s.ended:
		return err
	case <-s.ctx.Done():
	}
	select {
	case err := <-s.ended:
		return err
	case <-time.After(endGrace):
		return nil
	}
}

// report tells the launcher what went wrong, if it is there, and returns the
// exit status.
func (s *stage) report(err error) int {
	if err == nil {
		return 0
	}
	if s.ctx.Err() == nil {
		_ = s.conn.Send(append([]byte{failureMark}, err.Error()...))
	}
	return statusFailure
}

// lifeline waits for the launcher's word, or its end.
func (s *stage) lifeline() {
	b := make([]byte, sys.NoteSize)
	for {
		n, _, err := s.conn.Recv(b)
		if err != nil {
			s.cancel(errLauncherGone)
			return
		}
		if note, ok := sys.ParseNote(b[:n]); ok && note.Kind == noteRelease {
			return
		}
	}
}

// watchSignals ends the engine on the four signals that ask for it. Beside a
// command it is the command that they are for: the launcher passes them on.
func (s *stage) watchSignals() {
	c := make(chan os.Signal, 4)
	signal.Notify(c, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM)
	for sig := range c {
		number, _ := sig.(syscall.Signal)
		note := sys.Note{Kind: noteSignal, A: uint32(number)}
		if s.hand.Command && s.conn.Send(note.Bytes()) == nil {
			continue
		}
		s.cancel(fmt.Errorf("got signal %d", number))
	}
}

// handles turns the hand-over into files, and watches for the namespace's end.
func (s *stage) handles() (*Handles, error) {
	h := &Handles{Attended: s.hand.Attended, LowPorts: s.hand.Ports}
	for _, p := range h.LowPorts {
		sys.SetCloseOnExec(p.FD)
	}
	h.NetNS = inherited(s.hand.NetNS, "network namespace")
	if s.hand.Mounted {
		if err := s.unmounted(h); err != nil {
			return nil, err
		}
	}
	if h.Target = inherited(s.hand.Target, "target process"); h.Target != nil {
		go s.watchTarget(h.Target)
	}
	h.Log, h.Capture = inherited(s.hand.Log, "log file"), inherited(s.hand.Capture, "capture file")
	s.watchNames(h)
	user, err := userSignals()
	if err != nil {
		return nil, fmt.Errorf("watch signals: %w", err)
	}
	h.User = user
	h.Ready = sync.OnceValue(s.ready)
	return h, nil
}

// unmounted opens the network namespace anew, past the file system.
func (s *stage) unmounted(h *Handles) error {
	old, fd := h.NetNS, -1
	err := Do(old, func() (err error) {
		fd, err = sys.ThreadNetNS()
		return err
	})
	old.Close()
	h.NetNS = inherited(fd, "network namespace")
	return err
}

func inherited(fd int, name string) *os.File {
	if fd < 0 {
		return nil
	}
	sys.SetCloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}

// ready reports that forwarding works. A daemon has let go of its caller by
// then: who waits for the end of our output must not wait for ever.
func (s *stage) ready() error {
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("change to /: %w", err)
	}
	if !s.hand.Attended {
		for fd := 1; fd <= 2; fd++ {
			if err := sys.Dup2(0, fd); err != nil {
				return fmt.Errorf("detach from the caller: %w", err)
			}
		}
	}
	if err := s.conn.Send(sys.Note{Kind: noteReady}.Bytes()); err != nil {
		return fmt.Errorf("report to the launcher: %w", err)
	}
	return nil
}

// watchTarget ends the engine with the process whose namespace it serves.
func (s *stage) watchTarget(f *os.File) {
	sys.AwaitPidfd(f)
	s.cancel(errNamespaceGone)
}

// userSignals delivers USR1 and USR2, which the engine's start has blocked in
// every thread.
func userSignals() (<-chan syscall.Signal, error) {
	fd, err := sys.SignalFD(sys.SignalSet(syscall.SIGUSR1, syscall.SIGUSR2))
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "signals")
	c := make(chan syscall.Signal)
	go func() {
		for {
			sig, err := sys.ReadSignal(f)
			if err != nil {
				return
			}
			c <- sig
		}
	}()
	return c, nil
}
