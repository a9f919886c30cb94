package netns

import (
	"errors"
	"os"
	"runtime"

	"penne/internal/sys"
)

// Do runs fn on a thread inside the network namespace ns and returns its error.
// Sockets that fn opens belong to the namespace; goroutines that it starts do not run
// there. The thread ends if it cannot be moved back.
func Do(ns *os.File, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		restored, err := runInside(ns, fn)
		if restored {
			runtime.UnlockOSThread()
		} // else the thread ends with this goroutine
		done <- err
	}()
	return <-done
}

// runInside runs fn in ns on the calling, locked thread. restored reports whether
// the thread is where it was: without /proc there is no way back.
func runInside(ns *os.File, fn func() error) (restored bool, err error) {
	old, operr := sys.ThreadNetNS()
	if operr == nil {
		defer sys.Close(old)
	}
	if err := sys.Setns(int(ns.Fd()), sys.CLONE_NEWNET); err != nil {
		return true, joinError("enter network namespace", err, false)
	}
	err = fn()
	return operr == nil && sys.Setns(old, sys.CLONE_NEWNET) == nil, err
}

// ErrClosed is returned by a closed Worker.
var ErrClosed = errors.New("namespace worker is closed")

// Worker is a thread inside a network namespace that runs functions there, such as
// making sockets, when the process no longer has the capability to enter it. It must
// be made before capabilities are dropped. Safe for concurrent use.
type Worker struct {
	jobs chan job
	quit chan struct{}
}

type job struct {
	fn   func() error
	done chan error
}

// NewWorker starts a thread inside ns.
func NewWorker(ns *os.File) (*Worker, error) {
	w := &Worker{jobs: make(chan job), quit: make(chan struct{})}
	started := make(chan error)
	go w.run(ns, started)
	return w, <-started
}

// run lives on a thread of its own, which ends with it, for it is in the wrong
// namespace for anyone else.
func (w *Worker) run(ns *os.File, started chan<- error) {
	runtime.LockOSThread()
	if err := sys.Setns(int(ns.Fd()), sys.CLONE_NEWNET); err != nil {
		started <- joinError("enter network namespace", err, false)
		return
	}
	sys.BlockThreadSignals()
	started <- nil
	for {
		select {
		case j := <-w.jobs:
			j.done <- j.fn()
		case <-w.quit:
			return
		}
	}
}

// Do runs fn inside the namespace, one call after the other, and returns its
// error. fn must not wait for anything, nor call Do.
func (w *Worker) Do(fn func() error) error {
	j := job{fn, make(chan error, 1)}
	select {
	case w.jobs <- j:
		return <-j.done
	case <-w.quit:
		return ErrClosed
	}
}

// Close ends the thread after the call at hand. To be called once.
func (w *Worker) Close() { close(w.quit) }
