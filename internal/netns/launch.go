package netns

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"penne/internal/conf"
	"penne/internal/sys"
)

// Launcher is the process that the user started.
type Launcher struct {
	// Config is the parsed Argv.
	Config *conf.Config
	// Argv is the whole command line, which the engine parses again.
	Argv []string
	// BindPrivileged, if set, binds the ports that need capabilities of the
	// caller. It is called before any process or namespace is made.
	BindPrivileged func(*conf.Config) ([]PrivilegedPort, error)
	// Stderr is for the one line that says why it failed.
	Stderr io.Writer
}

// Run starts everything and returns the exit status: 0 once forwarding works in the
// background, else the command's, or with --foreground the engine's, when that ends.
// If it fails, it has cleaned up.
func (l *Launcher) Run() int {
	// The holder lives as long as this thread.
	runtime.LockOSThread()
	r := &launch{Launcher: l, inherited: sys.Inherited(), commandFD: -1, target: newTarget(), forwarder: newSignalForwarder()}
	err := r.start()
	if err != nil {
		r.report(err)
		r.stop()
		return statusOf(err)
	}
	return r.wait()
}

// launch is the state of a launcher.
type launch struct {
	*Launcher
	inherited sys.Inheritance
	// id is the user to run as, nil for the caller.
	id *identity
	// command is nil where existing namespaces are joined, and in passt.
	command *command
	target  *target
	outputs outputs

	// holder is nil without a command; engine is nil until started. Both
	// are nil again once reaped.
	holder, engine *child
	// commandFD is the command's pidfd once it runs, else -1.
	commandFD int

	signals   chan os.Signal
	events    chan event
	forwarder signalForwarder
	pid       pidFile

	// hadTerminal says that we were in the foreground of a terminal when
	// the command started.
	hadTerminal bool
	// ready says that forwarding works.
	ready bool
	// reported says that the user has been told why we fail.
	reported bool
}

// start starts everything that can be started without waiting.
func (r *launch) start() error {
	sys.CloseOnExecFrom(holderFD)
	sys.SetDumpable()
	p := &r.Config.Pasta
	pasta := r.Config.Mode == conf.ModePasta
	if pasta && !p.SpliceOnly && p.FD == 0 {
		if err := checkTun(); err != nil {
			return err
		}
	}
	var err error
	if pasta && p.PID == 0 && p.Netns == "" {
		if r.command, err = resolveCommand(p.Command); err != nil {
			return err
		}
	}
	if r.id, err = serveAs(r.Config.Process.RunAs); err != nil {
		return err
	}
	if r.id != nil {
		if err := r.outputs.open(&r.Config.Logging); err != nil {
			return err
		}
	}
	var ports []PrivilegedPort
	if r.BindPrivileged != nil {
		if ports, err = r.BindPrivileged(r.Config); err != nil {
			return err
		}
	}
	r.notify()
	r.events = make(chan event, 4)
	if err := r.makeTarget(pasta); err != nil {
		return err
	}
	return r.makeEngine(pasta, ports)
}

// notify subscribes to the signals we forward; those that the caller ignores stay
// ignored.
func (r *launch) notify() {
	r.signals = make(chan os.Signal, 8)
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
		syscall.SIGUSR1, syscall.SIGUSR2} {
		if sys.HasSignal(r.inherited.Ignored, sig) {
			signal.Ignore(sig) // the runtime has put its handler there
		} else {
			signal.Notify(r.signals, sig)
		}
	}
}

func (r *launch) makeTarget(pasta bool) (err error) {
	p := &r.Config.Pasta
	switch {
	case !pasta:
		return nil
	case r.command == nil:
		t, err := existingTarget(p)
		if err == nil {
			r.target = t
		}
		return err
	}
	t, err := commandTarget(p)
	if err != nil {
		return err
	}
	r.target = t
	return r.makeHolder()
}

// makeHolder starts the holder in a new user namespace, in that of the target,
// or in ours.
func (r *launch) makeHolder() (err error) {
	spec := &holderSpec{
		command:   r.command,
		inherited: r.inherited,
		id:        r.id,
		newUser:   r.newUser(),
		user:      r.target.user,
	}
	r.hadTerminal = inForeground()
	if r.holder, err = startHolder(spec); err != nil {
		return err
	}
	go r.listen(r.holder)
	return r.target.openHolder(r.holder, spec.newUser)
}

// newUser reports whether the command has a user namespace made for it.
func (r *launch) newUser() bool {
	p := &r.Config.Pasta
	return r.command != nil && !p.NetnsOnly && p.Userns == ""
}

func (r *launch) makeEngine(pasta bool, ports []PrivilegedPort) (err error) {
	spec := &engineSpec{
		argv:     r.Argv,
		target:   r.target,
		id:       r.id,
		ownUser:  r.newUser(),
		sandbox:  !pasta && r.id == nil,
		attended: r.attended(),
		hand: handover{
			NetNS:     r.target.net,
			Target:    r.target.process,
			Watch:     r.target.watch,
			WatchID:   r.target.watchID,
			Dir:       r.target.dir,
			WatchName: r.target.watchName,
			Mounted:   r.Config.Pasta.Netns != "",
			Attended:  r.attended(),
			Command:   r.command != nil,
			Ports:     ports,
		},
	}
	spec.hand.Log, spec.hand.Capture = r.outputs.fds()
	for _, fd := range []int{r.Config.Pasta.FD, r.Config.Passt.FD} {
		if fd > 0 {
			spec.extra = append(spec.extra, fd)
		}
	}
	if r.engine, err = startEngine(spec); err != nil {
		return err
	}
	// What the engine has now need not stay open here.
	r.target.close()
	r.outputs.close()
	for _, p := range ports {
		sys.Close(p.FD)
	}
	go r.listen(r.engine)
	return nil
}

// attended reports whether the launcher keeps running until the end.
func (r *launch) attended() bool { return r.Config.Process.Foreground || r.command != nil }

// report prints why we fail, once.
func (r *launch) report(err error) {
	if !r.reported {
		fmt.Fprintf(r.Stderr, "%s: %s\n", r.Config.Program, err)
	}
	r.reported = true
}
