package splice

import "penne/internal/sys"

// Pipe memory. An unprivileged user has pipe-user-pages-soft pages in all
// (16,384, or 64 MiB, by default, shared with all else of that user), so the
// shards of one process must not ask for more than a part of it.
const (
	pipeSize = 1 << 18 // what is spliced in is still cached when it is spliced out
	maxIdle  = 8       // empty pipes that a shard keeps for the next bytes
	// minSize is the least pipe worth having. Once the user's share is used
	// up pipes have two pages (pipe(7)), and to go through one in steps of
	// these takes 0.26 s a GB, where copying takes 0.10 s, and a pipe of
	// pipeSize 0.04 s (kernel 6.18).
	minSize = 1 << 16
	// retryPipe is how long none is asked for after there was none, in
	// nanoseconds.
	retryPipe = 10_000_000
)

// pipe is one kernel pipe.
type pipe struct {
	r, w int
	size int
}

// pipes are a shard's empty pipes. A connection holds one only while bytes are
// in it.
type pipes struct {
	idle  []pipe
	until int64 // there is none to be had before
}

func newPipes() pipes { return pipes{idle: make([]pipe, 0, maxIdle)} }

// get takes an empty pipe or makes one; ok is false when the kernel has none, or
// none of a size worth having.
func (p *pipes) get(now int64) (pipe, bool) {
	if n := len(p.idle); n > 0 {
		got := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return got, true
	}
	if now < p.until {
		return pipe{}, false
	}
	r, w, size, err := sys.Pipe(pipeSize)
	got := pipe{r, w, size}
	if err == nil && size >= minSize {
		return got, true
	}
	if err == nil {
		got.close()
	}
	p.until = now + retryPipe
	return pipe{}, false
}

// put takes an empty pipe back.
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
