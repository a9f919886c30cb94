package tuntest

import (
	"testing"
	"time"

	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/env"
	"penne/tap"
)

// Pump does what a shard does around its responders: it reads the tap, has each
// frame classified and handled, and sends what was built.
type Pump struct {
	env.Env
	// Handle gets each frame, with H filled as far as verdict tells.
	Handle func(f *ring.Frame, verdict wire.Verdict)

	port  tap.Port
	epoll *sys.Epoll
	wake  int
}

// NewPump makes a Pump over port with rules in force.
func NewPump(t *testing.T, port tap.Port, rules *fwd.Rules) *Pump {
	t.Helper()
	arena, err := ring.NewArena(128, 0)
	must(t, err)
	pool := ring.NewPool(arena)
	p := &Pump{port: port}
	p.Env = env.Env{Rules: rules, Guest: &fwd.Guest{}, Pool: pool, Count: &stats.Counters{}, Out: ring.NewOut(pool, 8, port)}
	port.SetCounters(p.Count)
	p.epoll, err = sys.NewEpoll(4)
	must(t, err)
	p.wake, err = sys.NewEventFD()
	must(t, err)
	t.Cleanup(func() {
		p.epoll.Close()
		sys.Close(p.wake)
		arena.Close()
	})
	for _, fd := range []int{port.FD(), p.wake} {
		if errno := p.epoll.Add(fd, sys.EPOLLIN, uint64(fd)); errno != 0 {
			t.Fatal(errno)
		}
	}
	return p
}

// Wake makes Until look again; it may be called from any goroutine.
func (p *Pump) Wake() { sys.Signal(p.wake) }

// Until pumps until done, asked after each frame and each Wake, says so; what
// names the awaited thing if that takes too long.
func (p *Pump) Until(t *testing.T, what string, done func() bool) {
	t.Helper()
	var ev [4]sys.Event
	for end := time.Now().Add(Patience); time.Now().Before(end); {
		p.epoll.Wait(ev[:], time.Until(end))
		sys.Drain(p.wake)
		if done() || p.pass(t, done) {
			return
		}
	}
	t.Fatalf("%s did not come; drops %v", what, p.Count.Drops)
}

// pass handles what waits in the tap.
func (p *Pump) pass(t *testing.T, done func() bool) (found bool) {
	t.Helper()
	var b ring.Batch
	if _, errno := p.port.Receive(&b, p.Pool); errno != 0 {
		t.Fatal(errno)
	}
	for _, f := range b.Frames() {
		p.Handle(f, wire.Parse(f.Bytes(), &f.H))
		p.Out.Flush()
		found = done() || found
		p.Pool.Put(f)
	}
	return found
}
