package netns

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"penne/internal/sys"
)

// stopGrace is how long the engine has to end once asked; it takes a few
// milliseconds unless something is wrong.
const stopGrace = time.Second

// event is a message from a child, or, with err set, its end.
type event struct {
	from *child
	msg  []byte
	fds  []int
	err  error
}

// listen turns what a child sends into events, until its end.
func (r *launch) listen(c *child) {
	for {
		b := make([]byte, 4096)
		n, fds, err := c.conn.Recv(b)
		r.events <- event{c, b[:n], fds, err}
		if err != nil {
			return
		}
	}
}

// wait runs until there is an exit status, and nothing left behind it.
func (r *launch) wait() int {
	for {
		var status int
		var done bool
		select {
		case sig := <-r.signals:
			s, _ := sig.(syscall.Signal)
			status, done = r.onOwnSignal(s)
		case ev := <-r.events:
			status, done = r.onEvent(ev)
		}
		if done {
			return status
		}
	}
}

// onOwnSignal handles a signal sent to the launcher. A second TERM kills a command
// that has not ended after the first, which was forwarded. One sent to the engine
// does not count: stopping all processes of a service is one request.
func (r *launch) onOwnSignal(sig syscall.Signal) (status int, done bool) {
	if r.command == nil || !r.ready {
		return r.onSignal(sig, false)
	}
	if sig == syscall.SIGTERM && r.forwarder.insists() {
		r.stop()
		return statusSignal + int(sig), true
	}
	return r.onSignal(sig, typed(sig))
}

// onSignal forwards a signal, or ends us if we are not ready yet.
func (r *launch) onSignal(sig syscall.Signal, typed bool) (status int, done bool) {
	switch {
	case !r.ready:
		r.stop()
		return statusSignal + int(sig), true
	case r.command == nil:
		_ = syscall.Kill(r.engine.pid, sig)
	case !typed:
		r.forwarder.forward(r.commandFD, sig)
	}
	return 0, false
}

func (r *launch) onEvent(ev event) (status int, done bool) {
	switch {
	case ev.err != nil && ev.from == r.holder:
		return r.onHolderEnd()
	case ev.err != nil:
		return r.onEngineEnd()
	case ev.msg[0] == failureMark:
		r.report(errors.New(string(ev.msg[1:])))
		return 0, false
	}
	n, _ := sys.ParseNote(ev.msg)
	switch n.Kind {
	case sys.NoteFailed:
		return r.onFailure(ev.from, n)
	case noteCommand:
		if len(ev.fds) == 1 {
			r.commandFD = ev.fds[0]
			r.forwarder.flush(r.commandFD)
		}
	case noteEngine:
		r.engine.pid = int(n.A)
		r.engine.reapHelper()
	case noteReady:
		return r.onReady()
	case noteSignal:
		return r.onSignal(syscall.Signal(n.A), false)
	}
	return 0, false
}

// onFailure handles a failed step of a script.
func (r *launch) onFailure(from *child, n sys.Note) (status int, done bool) {
	var err error
	switch {
	case from == r.engine:
		err = engineFailure(from.script, n)
	case from.script.Label(n.A) == execCommand:
		err = commandError(r.command.argv[0], syscall.Errno(n.B))
	default:
		err = holderFailure(from.script, n)
	}
	r.report(err)
	r.stop()
	return statusOf(err), true
}

// onReady lets the command start, or leaves a daemon to itself. An engine that
// is not released goes with us, even if we are killed.
func (r *launch) onReady() (status int, done bool) {
	pid := r.engine.pid
	if pid == 0 { // its helper was killed before it could tell
		return r.onEngineEnd()
	}
	if r.attended() {
		pid = syscall.Getpid()
	}
	if err := r.pid.write(r.Config.Process.PIDFile, pid); err != nil {
		r.report(err)
		r.stop()
		return statusFailure, true
	}
	r.ready = true
	if r.command != nil {
		_ = r.holder.conn.Send(proceed) // it may have ended: we hear of that
	}
	if r.attended() {
		return 0, false
	}
	if err := r.engine.conn.Send(sys.Note{Kind: noteRelease}.Bytes()); err != nil {
		return r.onEngineEnd()
	}
	return 0, true
}

// onHolderEnd ends us with the status of the holder, which is the command's.
func (r *launch) onHolderEnd() (int, bool) {
	ws := r.holder.reap()
	r.holder = nil
	if !r.ready && !r.reported {
		r.report(fmt.Errorf("the first process of the namespace ended too early: %s", describe(ws)))
	}
	r.stop()
	return status(ws), true
}

// onEngineEnd ends us: without an engine there is no network. The engine
// watches the holder too, so its end may arrive first when the command has ended:
// then the holder's messages and its end are still to come.
func (r *launch) onEngineEnd() (int, bool) {
	ws := r.engine.reap()
	r.engine = nil // so that stop does not wait for what has been heard
	if r.holder != nil && sys.HasEnded(r.holder.pid) {
		return 0, false
	}
	code := status(ws)
	if r.command != nil || !r.ready {
		code = statusFailure
	}
	if code != 0 && !r.reported {
		r.report(fmt.Errorf("the engine ended too early: %s", describe(ws)))
	}
	r.stop()
	return code, true
}

func describe(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return "killed by signal " + fmt.Sprint(int(ws.Signal()))
	}
	return fmt.Sprintf("exit status %d", ws.ExitStatus())
}

// stop ends the holder, with all that runs in its namespaces, and the engine,
// waits for both, and removes our files.
func (r *launch) stop() {
	if r.holder != nil {
		r.holder.kill()
		r.holder = nil
	}
	if r.hadTerminal {
		reclaimTerminal()
	}
	if r.engine != nil {
		r.stopEngine()
		r.engine = nil
	}
	r.target.close()
	if !r.ready {
		r.outputs.undo()
	}
	r.pid.remove()
}

// stopEngine closes the connection for the engine to end, and kills it if it does not
// within stopGrace.
func (r *launch) stopEngine() {
	e := r.engine
	e.conn.CloseWrite()
	late := time.NewTimer(stopGrace)
	defer late.Stop()
	for ended := false; !ended; {
		select {
		case ev := <-r.events:
			ended = r.drain(ev)
		case <-late.C:
			e.kill()
			return
		}
	}
	e.reap()
}

// drain handles an event while the engine is ending; true means that it has ended.
func (r *launch) drain(ev event) bool {
	if ev.from != r.engine {
		return false
	}
	if n, ok := sys.ParseNote(ev.msg); ok && n.Kind == noteEngine {
		r.engine.pid = int(n.A)
	}
	return errors.Is(ev.err, io.EOF) || ev.err != nil
}
