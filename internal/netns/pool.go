package netns

import (
	"sync/atomic"

	"penne/internal/sys"
)

// Pool keeps sockets of one kind ready, made inside a namespace by its [Worker]. Take
// never blocks; when half of the sockets are gone, the worker makes new ones. Safe
// for concurrent use.
type Pool struct {
	family, typ int
	ready       chan int
	missed      atomic.Bool // a Take found none since the last refill
	refilled    func()
	wake        chan struct{}
	quit        chan struct{}
}

// NewPool fills a pool of size sockets of family (AF_INET, AF_INET6) and type
// (SOCK_STREAM, SOCK_DGRAM), non-blocking and closed on exec. Failing to fill
// it for the first time is an error; later it is only a smaller pool. refilled
// is called, on a goroutine of the pool, when there are sockets again after a
// Take that found none.
func NewPool(w *Worker, family, typ, size int, refilled func()) (*Pool, error) {
	p := &Pool{
		family: family, typ: typ, refilled: refilled,
		ready: make(chan int, size),
		wake:  make(chan struct{}, 1),
		quit:  make(chan struct{}),
	}
	if err := w.Do(p.fill); err != nil {
		p.drain()
		return nil, err
	}
	go p.run(w)
	return p, nil
}

// Take returns a socket, which is the caller's from then on; ok is false while
// there is none.
func (p *Pool) Take() (fd int, ok bool) {
	select {
	case fd = <-p.ready:
		ok = true
	default:
		p.missed.Store(true)
	}
	if ok && len(p.ready) > cap(p.ready)/2 {
		return fd, ok // after a miss, what has come meanwhile is told of too
	}
	select {
	case p.wake <- struct{}{}:
	default: // woken already
	}
	return fd, ok
}

// Close closes the sockets that are left. To be called once, after the last
// Take.
func (p *Pool) Close() { close(p.quit) }

func (p *Pool) run(w *Worker) {
	for {
		select {
		case <-p.wake:
			// Without descriptors there are none until someone gives
			// one back; the next Take tries again.
			_ = w.Do(p.fill)
			if len(p.ready) > 0 && p.missed.Swap(false) {
				p.refilled()
			}
		case <-p.quit:
			p.drain()
			return
		}
	}
}

// fill makes sockets until the pool is full. It runs on the worker, and is the
// only one to add.
func (p *Pool) fill() error {
	for len(p.ready) < cap(p.ready) {
		fd, errno := sys.Socket(p.family, p.typ, 0)
		if errno != 0 {
			return errno
		}
		p.ready <- fd
	}
	return nil
}

func (p *Pool) drain() {
	for {
		select {
		case fd := <-p.ready:
			sys.Close(fd)
		default:
			return
		}
	}
}
