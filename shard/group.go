package shard

import (
	"errors"
	"sync"

	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/ring"
	"penne/shard/flow"
	"penne/udpx"
	"penne/udpx/relay"
)

// Group is the shards of one process. Its methods belong to the control
// thread.
type Group struct {
	shards    []*Shard
	rings     []*ring.Handoff // [from*len(shards)+to]
	seed      flow.Seed
	directory *flow.Directory
	ports     *udpx.Ports // which host port each guest port has
	bypass    Bypass

	// Ports that the relays' flows hold on either side: half a megabyte of
	// address space, of which a used port touches a page.
	heldOnHost, heldInside relay.Held

	listeners   []*Listener // by slot; nil where one was removed
	spreadPorts int         // listeners that have members
	running     sync.WaitGroup
	failed      func(error)
	failOnce    sync.Once
}

// NewGroup makes the shards; none runs yet. On error what was made is left to the
// end of the process.
func NewGroup(cfg Config) (*Group, error) {
	if len(cfg.Ports) == 0 {
		return nil, errors.New("make shards: no tap queue")
	}
	if cfg.Flows == 0 {
		cfg.Flows = MaxFlows
	}
	if cfg.Services == nil {
		cfg.Services = &Services{}
	}
	n := len(cfg.Ports)
	g := &Group{seed: cfg.Seed, ports: udpx.NewPorts(), bypass: cfg.Bypass, failed: cfg.Failed}
	if n > 1 {
		// A UDP flow may be in it twice (package udpx).
		g.directory = flow.NewDirectory(3*cfg.Flows + n*maxPings)
		g.rings = make([]*ring.Handoff, n*n)
		for i := range g.rings {
			if i/n != i%n {
				g.rings[i] = ring.NewHandoff(handoffFrames)
			}
		}
	}
	for id := range n {
		s, err := newShard(id, &cfg, g)
		if err != nil {
			return nil, err
		}
		g.shards = append(g.shards, s)
	}
	if cfg.Pin {
		return g, g.pin()
	}
	return g, nil
}

// pin gives each shard its CPU.
func (g *Group) pin() error {
	cpus, err := sys.UsableCPUs()
	if err != nil {
		return err
	}
	for i, s := range g.shards {
		s.cpu = cpus[i%len(cpus)]
	}
	return nil
}

// Start runs all shards.
func (g *Group) Start() {
	for _, s := range g.shards {
		g.running.Go(s.run)
	}
}

// SetRules replaces the address rules of all shards. Existing flows keep theirs.
func (g *Group) SetRules(r *fwd.Rules) {
	for _, s := range g.shards {
		s.post(func(s *Shard) { s.setRules(r) })
	}
}

// Listen lets all shards serve the listeners and returns their numbers, for
// Unlisten, in the same order. The calling thread must be in the host's network
// namespace, where more sockets are made.
func (g *Group) Listen(ls []*Listener) []int {
	g.spread(ls)
	slots := make([]int, len(ls))
	free := 0
	for i, l := range ls {
		for free < len(g.listeners) && g.listeners[free] != nil {
			free++
		}
		if free == len(g.listeners) {
			g.listeners = append(g.listeners, nil)
		}
		g.listeners[free], slots[i] = l, free
	}
	for _, s := range g.shards {
		s.post(func(s *Shard) {
			for i, l := range ls {
				s.watch(l, int32(slots[i]))
			}
		})
	}
	return slots
}

// Unlisten ends serving the listeners with those numbers. When it returns no
// shard uses their descriptors any more, and the caller may close them.
func (g *Group) Unlisten(slots []int) {
	g.ask(func(s *Shard) {
		for _, slot := range slots {
			s.unwatch(int32(slot))
		}
	})
	for _, slot := range slots {
		g.unspread(g.listeners[slot])
		g.listeners[slot] = nil
	}
}

// SocketsReady tells the shards that Bypass.Socket has sockets again. It may be
// called from any goroutine.
func (g *Group) SocketsReady() {
	for _, s := range g.shards {
		s.post((*Shard).retryListeners)
	}
}

// ask runs fn on every shard's thread and waits until all have.
func (g *Group) ask(fn func(*Shard)) {
	var wg sync.WaitGroup
	for _, s := range g.shards {
		wg.Add(1)
		s.post(func(s *Shard) {
			fn(s)
			wg.Done()
		})
	}
	wg.Wait()
}

// HoldsUDP tells whether flows from a UDP port of one side hold the port of the
// same number on the other, which is inside or the host. A listener there then
// has to share the port with them.
func (g *Group) HoldsUDP(port uint16, inside bool) bool {
	if inside {
		return g.heldInside.Has(port)
	}
	return g.ports.Holds(port) || g.heldOnHost.Has(port)
}

// LastActive is a number that changes when any shard has seen traffic.
func (g *Group) LastActive() int64 {
	last := int64(0)
	for _, s := range g.shards {
		last = max(last, s.active.Load())
	}
	return last
}

// Stats returns a copy of each shard's counters, taken between two passes.
func (g *Group) Stats() []stats.Counters {
	out := make([]stats.Counters, len(g.shards))
	g.ask(func(s *Shard) { out[s.env.Shard] = s.count })
	return out
}

// Close ends all flows, stops the shards, and waits until they have. Started
// groups only.
func (g *Group) Close() {
	for _, s := range g.shards {
		s.post(func(s *Shard) { s.done = true })
	}
	g.running.Wait()
	for _, s := range g.shards {
		s.free()
	}
	for _, l := range g.listeners {
		if l != nil {
			g.unspread(l)
		}
	}
}

func (g *Group) ring(from, to uint8) *ring.Handoff {
	return g.rings[int(from)*len(g.shards)+int(to)]
}

// pendingFor tells whether a peer has pushed something to s.
func (g *Group) pendingFor(s *Shard) bool {
	if g.directory == nil {
		return false
	}
	for from := range g.shards {
		if from != int(s.env.Shard) && !g.ring(uint8(from), s.env.Shard).Empty() {
			return true
		}
	}
	return false
}

// fail reports the first shard's failure.
func (g *Group) fail(err error) {
	g.failOnce.Do(func() {
		if g.failed != nil {
			g.failed(err)
		}
	})
}
