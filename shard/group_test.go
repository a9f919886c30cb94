package shard

import (
	"slices"
	"sync"
	"testing"
	"time"

	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
	"penne/tap"
)

// deadPort is a tap that nothing comes from.
type deadPort struct{ fd int }

func (p *deadPort) Send([]*ring.Frame)                                {}
func (p *deadPort) Receive(*ring.Batch, *ring.Pool) (bool, sys.Errno) { return false, 0 }
func (p *deadPort) FD() int                                           { return p.fd }
func (p *deadPort) SetCounters(*stats.Counters)                       {}
func (p *deadPort) Close() error                                      { sys.Close(p.fd); return nil }

// deadGroup is a group of n shards that has not been started.
func deadGroup(t *testing.T, n int, pin bool) *Group {
	t.Helper()
	c := Config{
		Rules: &fwd.Rules{}, Guest: &fwd.Guest{}, Seed: flow.NewSeed(), Flows: 16, Pin: pin,
		Failed: func(err error) { t.Error(err) },
	}
	for range n {
		fd, err := sys.NewEventFD()
		if err != nil {
			t.Fatal(err)
		}
		c.Ports = append(c.Ports, tap.Port(&deadPort{fd}))
	}
	g, err := NewGroup(c)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestPin asks each shard's own thread where it may run.
func TestPin(t *testing.T) {
	all, err := sys.UsableCPUs()
	if err != nil {
		t.Fatal(err)
	}
	for _, pin := range []bool{false, true} {
		n := min(len(all)+1, 16) // the last begins anew
		g := deadGroup(t, n, pin)
		g.Start()
		got := make([][]int, n)
		var mu sync.Mutex
		g.ask(func(s *Shard) {
			cpus, err := sys.UsableCPUs()
			mu.Lock()
			defer mu.Unlock()
			if got[s.env.Shard] = cpus; err != nil {
				t.Error(err)
			}
		})
		g.Close()
		for i := range got {
			want := all
			if pin {
				want = []int{all[i%len(all)]}
			}
			if !slices.Equal(got[i], want) {
				t.Errorf("pinned %v: shard %d runs on CPUs %v, want %v", pin, i, got[i], want)
			}
		}
	}
}

// TestFramesOutliveTheirShard has a shard hold a peer's frame when that one has
// ended, and messages that come too late.
func TestFramesOutliveTheirShard(t *testing.T) {
	g := deadGroup(t, 2, false)
	f := g.shards[0].env.Pool.Get()
	f.SetBounds(ring.HeadRoom, 64)
	f.Bytes()[0] = 7
	g.shards[0].close()
	if f.Bytes()[0] != 7 {
		t.Error("the frame has changed")
	}
	sys.Signal(g.shards[0].wake)
	g.shards[1].close()
	for _, s := range g.shards {
		s.free()
	}
	g.SocketsReady()
	if fd := g.shards[0].wake; fd >= 0 {
		t.Errorf("descriptor %d is closed, and messages signal it", fd)
	}
}

// TestFullHandOff: what a peer's ring has no room for is dropped, counted and
// free again, and the next frame goes when there is room.
func TestFullHandOff(t *testing.T) {
	g := deadGroup(t, 2, false)
	t.Cleanup(func() {
		for _, s := range g.shards {
			s.close()
			s.free()
		}
	})
	from, owner := g.shards[0], g.shards[1]
	const hash, lost = 12345, 3
	if owner.env.ClaimFlow(hash) != owner.env.Shard {
		t.Fatal("the flow is another's")
	}
	pass := func() {
		f := from.env.Pool.Get()
		f.H.Proto = wire.ProtoTCP
		if !from.env.HandToOwner(f, hash) {
			t.Fatal("the frame is not another's")
		}
	}
	free := from.env.Pool.Free()
	for range handoffFrames + lost {
		pass()
	}
	if n, out := from.count.Drops[stats.HandoffFull], from.count.HandedOut; n != lost || out != handoffFrames {
		t.Errorf("%d dropped, %d passed on", n, out)
	}
	if n := free - from.env.Pool.Free(); n != handoffFrames {
		t.Errorf("%d frames are away", n)
	}
	from.env.Pool.Put(g.ring(0, 1).Pop())
	pass()
	if n := from.count.Drops[stats.HandoffFull]; n != lost {
		t.Errorf("%d dropped", n)
	}
	for f := g.ring(0, 1).Pop(); f != nil; f = g.ring(0, 1).Pop() {
		from.env.Pool.Put(f)
	}
	if n := from.env.Pool.Free(); n != free {
		t.Errorf("%d of %d frames came back", n, free)
	}
}

// TestReturnsMemory: traffic past the tap, too, takes memory that the shard returns,
// once, at a pause after keepMemory.
func TestReturnsMemory(t *testing.T) {
	g := deadGroup(t, 1, false)
	s := g.shards[0]
	if s.noteActivity(); !s.trimmed {
		t.Error("memory to return before any traffic")
	}
	s.count.SplicedBytes++
	s.noteActivity()
	if s.trimmed || s.trimAt != s.env.Now+int64(keepMemory) {
		t.Errorf("at the begin of a burst: trimmed %v, to trim %v later", s.trimmed, time.Duration(s.trimAt-s.env.Now))
	}
	s.trimAt = sys.Now() + int64(time.Hour) // however slow this machine is
	if left := s.trimOrShorten(-1); s.trimmed || left <= 0 || left > time.Hour {
		t.Errorf("during a burst: trimmed %v, %v left", s.trimmed, left)
	}
	s.trimAt = sys.Now()
	if left := s.trimOrShorten(-1); !s.trimmed || left != -1 {
		t.Errorf("after it: trimmed %v, waits %v", s.trimmed, left)
	}
	s.noteActivity()
	if !s.trimmed {
		t.Error("memory to return without traffic")
	}
	g.Start()
	g.Close()
}
