package netns

import (
	"syscall"
	"time"

	"penne/internal/sys"
)

// sameSignal is how close two signals of one number are to be taken for one
// that was sent to several of our processes, as by a service manager's stop.
const sameSignal = 10 * time.Millisecond

// insistence is how long after the first TERM another one is a second: on a busy
// machine those that are meant as one can be apart by much more than sameSignal,
// such as timeout(1)'s to its child and to the group that this is in.
const insistence = 250 * time.Millisecond

// relay passes signals on to the command.
type relay struct {
	early  []syscall.Signal
	passed map[syscall.Signal]time.Time
	// term is when the first TERM came to us ourselves.
	term time.Time

	now  func() time.Time
	send func(pidfd int, sig syscall.Signal) error
}

func newRelay() relay {
	return relay{passed: make(map[syscall.Signal]time.Time), now: time.Now, send: sys.PidfdSignal}
}

// pass sends sig to the process of the pidfd fd; a negative one means that it
// is about to start, and gets it then.
func (r *relay) pass(fd int, sig syscall.Signal) {
	if fd < 0 {
		r.early = append(r.early, sig)
		return
	}
	now := r.now()
	if last, ok := r.passed[sig]; ok && now.Sub(last) < sameSignal {
		return
	}
	r.passed[sig] = now
	_ = r.send(fd, sig) // it may have ended just now
}

// insists tells, of a TERM that has come to us ourselves, whether it asks for
// what the first one has not brought about.
func (r *relay) insists() bool {
	now := r.now()
	if r.term.IsZero() {
		r.term = now
	}
	return now.Sub(r.term) >= insistence
}

// flush passes on what came before the process had started.
func (r *relay) flush(fd int) {
	early := r.early
	r.early = nil
	for _, sig := range early {
		r.pass(fd, sig)
	}
}
