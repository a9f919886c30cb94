package netns

import (
	"syscall"
	"time"

	"penne/internal/sys"
)

// duplicateWindow is the time within which a repeated signal is taken for one that
// was sent to several of our processes, as a service manager does.
const duplicateWindow = 10 * time.Millisecond

// insistAfter is how long after the first TERM another one counts as a second: on a
// busy machine, signals meant as one can be much further apart than duplicateWindow,
// such as those of timeout(1) to its child and to its process group.
const insistAfter = 250 * time.Millisecond

// signalForwarder forwards signals to the command.
type signalForwarder struct {
	pending  []syscall.Signal
	lastSent map[syscall.Signal]time.Time
	// firstTERM is when the launcher itself got its first TERM.
	firstTERM time.Time

	now  func() time.Time
	send func(pidfd int, sig syscall.Signal) error
}

func newSignalForwarder() signalForwarder {
	return signalForwarder{lastSent: make(map[syscall.Signal]time.Time), now: time.Now, send: sys.PidfdSignal}
}

// forward sends sig to the process of the pidfd fd. If that is negative, the process
// has not started yet, and flush sends it.
func (r *signalForwarder) forward(fd int, sig syscall.Signal) {
	if fd < 0 {
		r.pending = append(r.pending, sig)
		return
	}
	now := r.now()
	if last, ok := r.lastSent[sig]; ok && now.Sub(last) < duplicateWindow {
		return
	}
	r.lastSent[sig] = now
	_ = r.send(fd, sig) // it may have ended just now
}

// insists reports whether a TERM to the launcher itself, of which it is told each,
// counts as a second one.
func (r *signalForwarder) insists() bool {
	now := r.now()
	if r.firstTERM.IsZero() {
		r.firstTERM = now
	}
	return now.Sub(r.firstTERM) >= insistAfter
}

// flush forwards the signals that came before the process had started.
func (r *signalForwarder) flush(fd int) {
	early := r.pending
	r.pending = nil
	for _, sig := range early {
		r.forward(fd, sig)
	}
}
