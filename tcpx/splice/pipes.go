package splice

import "penne/internal/sys"

// Pipe memory. An unprivileged user has pipe-user-pages-soft pages in all
// (16,384, or 64 MiB, by default, shared with all else of that user, many a penne
// among it), so empty pipes are kept only as long as a burst lasts.
const (
	pipeSize = 1 << 20 // the most that is given to users by default (fs.pipe-max-size)
	maxPipes = 4       // most empty pipes that a shard keeps
	// minPipeSize is the smallest pipe worth using. Once the user's pages are
	// used up, pipes have two (pipe(7)): 1 GB takes 0.26 s through such a
	// pipe, 0.10 s by copying, and 0.04 s through one of pipeSize (kernel
	// 6.18).
	minPipeSize = 1 << 16
	// retryDelay is how long to wait, in nanoseconds, before asking for a
	// pipe again after there was none.
	retryDelay = 10_000_000
)

// pipe is one kernel pipe.
type pipe struct {
	r, w int
	size int
}

// pipes are a shard's empty pipes. A connection holds one only while bytes are
// in it.
type pipes struct {
	idle    []pipe
	retryAt int64 // no pipe is made before
}

func newPipes() pipes { return pipes{idle: make([]pipe, 0, maxPipes)} }

// get takes an empty pipe or makes one; ok is false if the kernel grants none, or
// none large enough.
func (p *pipes) get(now int64) (pipe, bool) {
	if n := len(p.idle); n > 0 {
		got := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return got, true
	}
	if now < p.retryAt {
		return pipe{}, false
	}
	r, w, size, err := sys.Pipe(pipeSize)
	got := pipe{r, w, size}
	if err == nil && size >= minPipeSize {
		return got, true
	}
	if err == nil {
		got.close()
	}
	p.retryAt = now + retryDelay
	return pipe{}, false
}

// put returns an empty pipe.
func (p *pipes) put(q pipe) {
	if len(p.idle) < cap(p.idle) {
		p.idle = append(p.idle, q)
		return
	}
	q.close()
}

func (p *pipes) close() {
	for _, q := range p.idle {
		q.close()
	}
	p.idle = p.idle[:0]
}

func (q pipe) close() {
	sys.Close(q.r)
	sys.Close(q.w)
}
