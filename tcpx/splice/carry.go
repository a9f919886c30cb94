package splice

import "penne/internal/sys"

// A connection's turn ends after so many octets each way, or so many steps, and
// others get theirs. It is short, so that what waits elsewhere meanwhile does
// not grow out of the caches.
const (
	turnOctets = pipeSize
	turnSteps  = 16
)

// scratchSize is how much is copied at a time where there is no pipe.
const scratchSize = 1 << 17

// outcome is what a step of a way came to.
type outcome uint8

const (
	moved   outcome = iota // bytes, or the end of them: go on
	blocked                // until an event comes
	failed                 // for good: a socket has an error
)

// carry moves bytes one way until a socket has no more, or takes no more. more
// is set when its turn ended first; ok is unset when a socket failed.
func (r *Relay) carry(c *conn, side int) (more, ok bool) {
	w := &c.ways[side]
	from, to := c.fd[side], c.fd[1-side]
	w.taken = 0
	for range turnSteps {
		if got := r.step(w, from, to); got != moved {
			w.push(to)
			return false, got == blocked
		}
		if w.inPipe > 0 {
			continue
		}
		r.letGo(w)
		if w.ended {
			if c.ways[1-side].told {
				return false, false // no FIN, though it reads like one
			}
			w.shut = true
			sys.Shutdown(to, sys.SHUT_WR)
			return false, true
		}
		if w.taken >= turnOctets {
			break
		}
	}
	return true, true
}

// push sends what the target's socket keeps back because more was announced, if
// none came. The end of the stream needs no push: the FIN carries it out.
func (w *way) push(to int) {
	if w.more && w.inPipe == 0 && !w.readable {
		w.more = false
		sys.NoDelay(to)
	}
}

// step moves bytes once: into a pipe and out of it again, if there is one.
func (r *Relay) step(w *way, from, to int) outcome {
	if w.inPipe > 0 {
		return w.drain(to)
	}
	if w.ended || !w.readable {
		return blocked
	}
	if w.urgent || !r.hold(w) {
		return r.copy(w, from, to)
	}
	if got := r.fill(w, from); got != moved || w.ended {
		return got
	}
	w.more = w.inPipe == w.pipe.size
	return w.drain(to)
}

// hold gets w a pipe; false when there is none.
func (r *Relay) hold(w *way) bool {
	if !w.held {
		w.pipe, w.held = r.pipes.get(r.env.Now)
	}
	return w.held
}

func (r *Relay) letGo(w *way) {
	if w.held && w.inPipe == 0 {
		r.pipes.put(w.pipe)
		w.held = false
	}
}

// fill takes bytes from the source into an empty pipe.
func (r *Relay) fill(w *way, from int) outcome {
	n, errno := sys.Splice(from, w.pipe.w, w.pipe.size, false)
	switch {
	case errno == sys.EAGAIN:
		w.readable = false
		r.letGo(w)
		return blocked
	case errno != 0:
		w.ended = true // without a FIN
		return failed
	}
	w.inPipe, w.ended = n, n == 0
	w.taken += n
	return moved
}

// drain gives the pipe's bytes to the target.
func (w *way) drain(to int) outcome {
	if !w.writable {
		return blocked
	}
	n, errno := sys.Splice(w.pipe.r, to, w.inPipe, w.more)
	if errno != 0 {
		return w.refused(errno)
	}
	w.inPipe -= n
	return moved
}

// refused is called when the target takes nothing. It tells of a reset once:
// EPIPE stands for one behind a FIN, which is still to be read, all else for
// one without.
func (w *way) refused(errno sys.Errno) outcome {
	if errno == sys.EAGAIN {
		w.writable = false
		return blocked
	}
	w.told = w.told || errno != sys.EPIPE
	return failed
}

// copy moves bytes without a pipe. They leave the source only when the target
// has them, so that none is left over here.
func (r *Relay) copy(w *way, from, to int) outcome {
	if !w.writable {
		return blocked
	}
	sys.SetIovec(&r.scratchIov[0], r.scratch)
	n, errno := sys.PeekIov(from, r.scratchIov[:])
	if errno == sys.EAGAIN && w.urgent {
		// So says the kernel as well when a signal waits for the thread
		// and an urgent octet is next (tcp_recvmsg_locked, 6.18).
		n, errno = sys.PeekIov(from, r.scratchIov[:])
	}
	switch {
	case errno == sys.EAGAIN:
		w.readable = false
		return blocked
	case errno != 0:
		w.ended = true // without a FIN
		return failed
	case n == 0:
		w.ended = true
		return moved
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

// consume takes n octets that are known to wait there out of a socket. It asks
// again once after EAGAIN, for copy's reason.
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
	return moved
}
