// Package guest is a scripted guest: it plays the tap side frame by frame
// against a translator, in memory, while the host side is real kernel sockets.
// Tests step it by hand: they send frames, run passes, and look at what came
// out; time is Env.Now, which they move themselves.
package guest

import (
	"net/netip"
	"testing"
	"time"

	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/env"
	"penne/shard/flow"
)

// Patience bounds waits for what the kernel or another goroutine does at once.
const Patience = 2 * time.Minute

// Addresses of the scripted network. The gateway is the host's loopback, as
// pasta maps it by default.
var (
	Addr4    = addr("198.51.100.2")
	Addr6    = addr("2001:db8:1::2")
	Gateway4 = addr("198.51.100.1")
	Gateway6 = addr("2001:db8:1::1")
	MAC      = wire.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x56}
	OurMAC   = wire.MAC{0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55}
)

func addr(s string) wire.Addr { return wire.AddrFrom(netip.MustParseAddr(s)) }

// Out is one frame the translator sent to the guest: a copy, with what
// wire.Parse says of it.
type Out struct {
	Bytes   []byte
	H       wire.Headers
	Verdict wire.Verdict
	Offload ring.Offload
}

// Payload is the L4 payload.
func (o *Out) Payload() []byte {
	return o.Bytes[o.H.Payload : uint32(o.H.Payload)+o.H.PayloadLen]
}

// Guest is the tap side and the environment lent to the translator under test.
type Guest struct {
	T   testing.TB
	Env *env.Env
	// Sent is what the translator sent and nobody has taken yet.
	Sent []Out
	// Discard makes the sink forget frames, for tests that count allocations.
	Discard bool
	events  []sys.Event
}

// Send makes Guest the sink of its own Env.
func (g *Guest) Send(frames []*ring.Frame) {
	if g.Discard {
		return
	}
	for _, f := range frames {
		o := Out{Bytes: append([]byte(nil), f.Bytes()...), Offload: f.Offload}
		o.Verdict = wire.Parse(o.Bytes, &o.H)
		g.Sent = append(g.Sent, o)
	}
}

// New makes a guest with an arena of slots frames; 256 is plenty for most.
func New(t testing.TB, slots int) *Guest {
	t.Helper()
	g := &Guest{T: t, events: make([]sys.Event, 64)}
	arena, err := ring.NewArena(slots, 0)
	if err != nil {
		t.Fatal(err)
	}
	ep, err := sys.NewEpoll(64)
	if err != nil {
		t.Fatal(err)
	}
	seed := flow.NewSeed()
	pool := ring.NewPool(arena)
	g.Env = &env.Env{
		Now: sys.Now(), Rules: Rules(), Guest: &fwd.Guest{}, Epoll: ep, Pool: pool,
		Count: &stats.Counters{}, Seed: &seed,
	}
	g.Env.Guest.SawMAC(&MAC)
	g.Env.Out = ring.NewOut(pool, 32, g)
	t.Cleanup(func() {
		ep.Close()
		arena.Close()
	})
	return g
}

// Rules are the address rules of the scripted network.
func Rules() *fwd.Rules {
	r := &fwd.Rules{OurMAC: OurMAC, MTU: 65520}
	r.V4 = fwd.Family{On: true, Guest: Addr4, Bits: 24, Gateway: Gateway4, Ours: Gateway4, HostLoopback: Gateway4}
	r.V6 = fwd.Family{On: true, Guest: Addr6, Bits: 64, Gateway: Gateway6, Ours: Gateway6, HostLoopback: Gateway6}
	r.LinkLocal6 = addr("fe80::1")
	return r
}

// Frame takes a frame out of the pool, copies the Ethernet frame b into it as
// a back-end would, and classifies it.
func (g *Guest) Frame(b []byte, off ring.Offload) *ring.Frame {
	g.T.Helper()
	f := g.Env.Pool.Get()
	if f == nil {
		g.T.Fatal("no free frame")
	}
	copy(f.Slot()[ring.HeadRoom:], b)
	f.SetBounds(ring.HeadRoom, len(b))
	f.Offload = off
	if v := wire.Parse(f.Bytes(), &f.H); v != wire.OK {
		g.T.Fatalf("scripted frame does not parse: verdict %d", v)
	}
	return f
}

// Take returns what was sent since the last Take.
func (g *Guest) Take() []Out {
	s := g.Sent
	g.Sent = nil
	return s
}

// Wait blocks until the kernel reports events for the translator's sockets, and
// gives each to fn. Tests call it when they know that an event must come; it
// fails the test if none does within Patience.
func (g *Guest) Wait(fn func(tok flow.Token, bits uint32)) {
	g.T.Helper()
	for deadline := time.Now().Add(Patience); ; {
		n := g.Env.Epoll.Wait(g.events, time.Until(deadline))
		if n == 0 && time.Now().After(deadline) {
			g.T.Fatal("no event from the kernel")
		}
		for _, ev := range g.events[:n] {
			fn(flow.Token(ev.Token), ev.Bits)
		}
		if n > 0 {
			return
		}
	}
}

// Ready gives fn the events that are there now, if any, without waiting.
func (g *Guest) Ready(fn func(tok flow.Token, bits uint32)) {
	n := g.Env.Epoll.Poll(g.events)
	for _, ev := range g.events[:n] {
		fn(flow.Token(ev.Token), ev.Bits)
	}
}

// Advance moves the clock.
func (g *Guest) Advance(d time.Duration) { g.Env.Now += int64(d) }
