package splice

import "penne/internal/sys"

// Pipe memory. An unprivileged user has pipe-user-pages-soft pages in all
// (16,384, or 64 MiB, by default, shared with all else of that user), so the
// shards of one process must not ask for more than a part of it.
const (
	pipeSize = 1 << 18 // what is spliced in is still cached when it is spliced out
	maxIdle  = 8       // empty pipes that a shard keeps for the next bytes
)

// pipe is one kernel pipe.
type pipe struct {
	r, w int
	size int
}

// pipes are a shard's empty pipes. A connection holds one only while bytes are
// in it.
type pipes struct {
	idle []pipe
}

func newPipes() pipes { return pipes{idle: make([]pipe, 0, maxIdle)} }

// get takes an empty pipe or makes one; ok is false when the kernel has none.
func (p *pipes) get() (pipe, bool) {
	if n := len(p.idle); n > 0 {
		got := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return got, true
	}
	r, w, size, err := sys.Pipe(pipeSize)
	return pipe{r, w, size}, err == nil
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
