package splice

import "penne/internal/sys"

// A connection's turn ends after so many octets each way, or so many steps, so that
// others get theirs. It is short, so that what queues up elsewhere meanwhile still
// fits the caches.
const (
	turnOctets = pipeSize
	turnSteps  = 16
)

// scratchSize is how much is copied at a time where there is no pipe.
const scratchSize = 1 << 17

// outcome is the result of one step in a direction.
type outcome uint8

const (
	progress outcome = iota // bytes, or the end of the stream: go on
	blocked                 // until an event comes
	failed                  // a socket has an error
)

// carry moves bytes in the direction from c.fd[side] until the source has no more or
// the target takes no more. more is set if its turn ended first; ok is unset if a
// socket failed.
func (r *Relay) carry(c *conn, side int) (more, ok bool) {
	w := &c.ways[side]
	from, to := c.fd[side], c.fd[1-side]
	w.taken = 0
	for range turnSteps {
		if got := r.step(w, from, to); got != progress {
			w.push(to)
			return false, got == blocked
		}
		if w.inPipe > 0 {
			continue
		}
		r.releasePipe(w)
		if w.eof {
			if c.ways[1-side].resetSeen {
				return false, false // it was a reset, though it reads like a FIN
			}
			w.finSent = true
			sys.Shutdown(to, sys.SHUT_WR)
			return false, true
		}
		if w.taken >= turnOctets {
			break
		}
	}
	return true, true
}

// push sends what the target's socket holds back because more was announced, if
// none came. The end of the stream needs no push: the FIN does it.
func (w *way) push(to int) {
	if w.corked && w.inPipe == 0 && !w.readable {
		w.corked = false
		sys.NoDelay(to)
	}
}

// step moves bytes once: into a pipe and out of it again, if there is one.
func (r *Relay) step(w *way, from, to int) outcome {
	if w.inPipe > 0 {
		return w.drain(to)
	}
	if w.eof || !w.readable {
		return blocked
	}
	if w.urgent || !r.acquirePipe(w) {
		return r.copy(w, from, to)
	}
	if got := r.fill(w, from); got != progress || w.eof {
		return got
	}
	w.corked = w.inPipe == w.pipe.size
	return w.drain(to)
}

// acquirePipe gets w a pipe, and tells whether it has one.
func (r *Relay) acquirePipe(w *way) bool {
	if !w.hasPipe {
		w.pipe, w.hasPipe = r.pipes.get(r.env.Now)
	}
	return w.hasPipe
}

// releasePipe returns w's pipe if it is empty.
func (r *Relay) releasePipe(w *way) {
	if w.hasPipe && w.inPipe == 0 {
		r.pipes.put(w.pipe)
		w.hasPipe = false
	}
}

// fill moves bytes from the source into the empty pipe. splice(2) returns 0 not only at
// the end of the stream, but also at urgent data with the end behind it. Events tell
// the two apart: that of the end comes no sooner than that of urgent data before it.
func (r *Relay) fill(w *way, from int) outcome {
	n, errno := sys.Splice(from, w.pipe.w, w.pipe.size, false)
	switch {
	case errno == sys.EAGAIN, errno == 0 && n == 0 && !w.hungUp:
		w.readable = false
		r.releasePipe(w)
		return blocked
	case errno != 0:
		w.eof = true // without a FIN
		return failed
	}
	w.inPipe, w.eof = n, n == 0
	w.taken += n
	return progress
}

// drain moves bytes from the pipe to the target.
func (w *way) drain(to int) outcome {
	if !w.writable {
		return blocked
	}
	n, errno := sys.Splice(w.pipe.r, to, w.inPipe, w.corked)
	if errno != 0 {
		return w.refused(errno)
	}
	w.inPipe -= n
	return progress
}

// refused handles the error of a write to the target. A reset is reported once, by a
// write or by a read: EPIPE is one that came after a FIN, which is still to be read,
// any other error one that came without.
func (w *way) refused(errno sys.Errno) outcome {
	if errno == sys.EAGAIN {
		w.writable = false
		return blocked
	}
	w.resetSeen = w.resetSeen || errno != sys.EPIPE
	return failed
}

// copy moves bytes without a pipe. They are taken from the source only once the
// target has them, so that none need be kept here.
func (r *Relay) copy(w *way, from, to int) outcome {
	if !w.writable {
		return blocked
	}
	sys.SetIovec(&r.scratchIov[0], r.scratch)
	n, errno := sys.PeekIov(from, r.scratchIov[:])
	if errno == sys.EAGAIN && w.urgent {
		// The kernel also reports this when a signal is pending for the
		// thread and an urgent octet is next (tcp_recvmsg_locked, 6.18).
		n, errno = sys.PeekIov(from, r.scratchIov[:])
	}
	switch {
	case errno == sys.EAGAIN:
		w.readable = false
		return blocked
	case errno != 0:
		w.eof = true // without a FIN
		return failed
	case n == 0:
		w.eof = true
		return progress
	}
	sys.SetIovec(&r.scratchIov[0], r.scratch[:n])
	sent, errno := sys.SendIov(to, r.scratchIov[:])
	if errno != 0 {
		return w.refused(errno)
	}
	w.writable = sent == n
	w.taken += sent
	return consume(from, sent)
}

// consume discards n octets that are known to be in a socket's receive queue. It
// tries again once after EAGAIN, for the reason given in copy.
func consume(fd, n int) outcome {
	for n > 0 {
		took, errno := sys.Discard(fd, n)
		if errno == sys.EAGAIN {
			took, errno = sys.Discard(fd, n)
		}
		if errno != 0 || took == 0 {
			return failed
		}
		n -= took
	}
	return progress
}
