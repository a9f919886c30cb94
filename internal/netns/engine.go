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

// Causes of an engine's context.
var (
	errLauncherGone  = errors.New("the launcher has gone")
	errNamespaceGone = errors.New("the namespace has gone")
)

// endGrace is how long an engine may take to return once its context has ended. It
// takes some 20 ms, more with a capture or with thousands of listeners. The
// launcher's stopGrace is longer.
const endGrace = 900 * time.Millisecond

// Engine is the function that forwards. It sets up everything, calls h.Ready, serves
// until ctx ends, and then closes its listeners and returns nil within endGrace. If
// it returns an error, the program ends with that line and status 1.
type Engine func(ctx context.Context, c *conf.Config, h *Handles) error

// Handles is what an engine gets from the launcher.
type Handles struct {
	// NetNS is the network namespace to be served, nil in passt mode. It
	// stays open as long as the engine runs.
	NetNS *os.File
	// Target is the pidfd of the process whose namespace it is, nil if
	// there is none. The package watches it itself.
	Target *os.File
	// Inotify is for watches of the engine's, nil if there is no inotify
	// instance left.
	Inotify *Inotify
	// Log and Capture are the files given by options, opened by the launcher
	// if the engine runs as another user; else nil.
	Log, Capture *os.File
	// PrivilegedPorts are sockets that the launcher bound.
	PrivilegedPorts []PrivilegedPort
	// Attended says that the launcher keeps running, and with it standard
	// error stays open.
	Attended bool
	// User delivers USR1 and USR2.
	User <-chan syscall.Signal
	// Ready is to be called once, when forwarding works. Unless Attended, it
	// redirects standard output and error to /dev/null.
	Ready func() error
}

// IsEngine reports whether argv is that of an engine started by a launcher.
func IsEngine(argv []string) bool {
	_, ok := engineConn(argv)
	return ok
}

// RunEngine runs the engine process and returns its exit status.
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
		return statusFailure // the launcher has gone
	}
	s := &engineStage{conn: conn, handover: hand, ended: make(chan error, 1)}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	h, err := s.openHandles()
	if err == nil {
		go s.watchLauncher()
		go s.watchSignals()
		go func() { s.ended <- serve(s.ctx, c, h) }()
		err = s.wait()
	}
	return s.report(err)
}

// engineStage is the state of an engine process.
type engineStage struct {
	conn     *sys.Conn
	handover *handover
	// ctx is the engine's; cancel ends it.
	ctx    context.Context
	cancel context.CancelCauseFunc
	// ended delivers what the engine returned.
	ended chan error
}

// wait waits for the engine to return, at most endGrace after ctx has ended.
func (s *engineStage) wait() error {
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

// report reports err to the launcher, unless that has gone, and returns the exit
// status.
func (s *engineStage) report(err error) int {
	if err == nil {
		return 0
	}
	if s.ctx.Err() == nil {
		_ = s.conn.Send(append([]byte{failureMark}, err.Error()...))
	}
	return statusFailure
}

// watchLauncher waits until the launcher releases the engine, or ends.
func (s *engineStage) watchLauncher() {
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

// watchSignals ends the engine on the four signals that ask for it. If there is a
// command, they are for it: the launcher forwards them.
func (s *engineStage) watchSignals() {
	c := make(chan os.Signal, 4)
	signal.Notify(c, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM)
	for sig := range c {
		number, _ := sig.(syscall.Signal)
		note := sys.Note{Kind: noteSignal, A: uint32(number)}
		if s.handover.Command && s.conn.Send(note.Bytes()) == nil {
			continue
		}
		s.cancel(fmt.Errorf("got signal %d", number))
	}
}

// openHandles makes Handles from the handover, and watches for the namespace's end.
func (s *engineStage) openHandles() (*Handles, error) {
	h := &Handles{Attended: s.handover.Attended, PrivilegedPorts: s.handover.Ports}
	for _, p := range h.PrivilegedPorts {
		sys.SetCloseOnExec(p.FD)
	}
	h.NetNS = inherited(s.handover.NetNS, "network namespace")
	if s.handover.Mounted {
		if err := s.reopenNetNS(h); err != nil {
			return nil, err
		}
	}
	if h.Target = inherited(s.handover.Target, "target process"); h.Target != nil {
		go s.watchTarget(h.Target)
	}
	h.Log, h.Capture = inherited(s.handover.Log, "log file"), inherited(s.handover.Capture, "capture file")
	s.watchNetNSName(h)
	user, err := userSignals()
	if err != nil {
		return nil, fmt.Errorf("watch signals: %w", err)
	}
	h.User = user
	h.Ready = sync.OnceValue(s.ready)
	return h, nil
}

// reopenNetNS replaces h.NetNS by a descriptor that does not keep its file system
// mounted.
func (s *engineStage) reopenNetNS(h *Handles) error {
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

// ready reports that forwarding works. A daemon has closed its standard output and
// error by then: a caller that reads them to the end must not wait for ever.
func (s *engineStage) ready() error {
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("change to /: %w", err)
	}
	if !s.handover.Attended {
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
func (s *engineStage) watchTarget(f *os.File) {
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
