package tcpx

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"penne/internal/stats"
	"penne/internal/wire"
	"penne/ring"
	"penne/test/guest"
)

func fill(t *testing.T, r *rig, g *guest.TCP, size, limit int) int {
	t.Helper()
	c := r.conn()
	sent, edge := 0, c.edge
	data := pattern(size)
	for sent < limit {
		n := min(size, int(c.edge-g.Seq), limit-sent)
		if n > 0 {
			g.Send(0, data[:n])
			sent += n
		}
		g.Pass()
		for _, s := range g.Got {
			e := s.TCP.Ack() + uint32(s.Window())<<ourScale
			if wire.SeqLT(e, edge) {
				t.Fatalf("edge moved left by %d", edge-e)
			}
			edge = e
		}
		g.Got = nil
		if n == 0 {
			break
		}
	}
	return sent
}

func TestTail(t *testing.T) {
	for _, size := range []int{1000, 9000, 60000} {
		r := newRig(t, false, Config{MaxTail: 1 << 20})
		g, host := r.open()
		c := r.conn()
		sent := fill(t, r, g, size, 64<<20)
		if c.tailLen == 0 || !c.blocked {
			t.Fatal("the socket took everything")
		}
		// Nothing is promised beyond the tail's bound, but for one scale step.
		if got := int(c.tailLen) + int(c.edge-c.rcvNxt); got > 1<<20+255 {
			t.Errorf("tail of %d with a window to %d", c.tailLen, got)
		}
		frames := 0
		for f := c.tail; f != nil; f = f.Next {
			frames++
		}
		if most := 2*int(c.tailLen)/72000 + 2; frames > most {
			t.Errorf("%d octets in %d frames, want at most %d", c.tailLen, frames, most)
		}
		done := readLater(t, host, sent)
		g.Until(func() bool { return c.tailLen == 0 })
		got := <-done
		for i := 0; i < len(got); i += size {
			if !bytes.Equal(got[i:min(i+size, len(got))], pattern(size)[:min(size, len(got)-i)]) {
				t.Fatalf("contents differ in segment %d", i/size)
			}
		}
		r.Advance(200 * time.Millisecond)
		g.Pass()
		if c.rcvAck != g.Seq || c.edge-c.rcvNxt < 500_000 {
			t.Errorf("acknowledged %d short, window %d", g.Seq-c.rcvAck, c.edge-c.rcvNxt)
		}
	}
}

func TestWindowProbe(t *testing.T) {
	r := newRig(t, false, Config{MaxTail: 200_000})
	g, _ := r.open()
	fill(t, r, g, 60000, 64<<20)
	c := r.conn()
	for range 3 {
		g.Raw(wire.ACK, g.Seq-1, g.Ack, nil, nil) // as Linux asks
		if s := lastAck(g); s.TCP.Ack()+uint32(s.Window())<<ourScale != c.edge {
			t.Error("the answer says something else")
		}
		g.Raw(wire.ACK, g.Seq, g.Ack, nil, []byte{1}) // as RFC 9293 has it
		if s := lastAck(g); wire.SeqLT(c.edge, s.TCP.Ack()) {
			t.Error("acknowledged beyond the window")
		}
		g.Seq = c.rcvNxt
	}
}

func TestNoFrames(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	c := r.conn()
	release := r.hoard(r.tcp.reserve + 1)
	c.edge += 32 << 20 // promised when frames were plenty
	seq := g.Seq
	data := pattern(60000)
	for i := 0; r.Env.Count.Drops[stats.NoFrame] == 0; i++ {
		if i > 2000 {
			t.Fatal("nothing was dropped")
		}
		g.Seq = c.rcvNxt
		g.Send(0, data[:min(60000, max(1, int(c.edge-c.rcvNxt)))])
		g.Pass()
	}
	if wire.SeqLT(c.rcvNxt, c.rcvAck) || r.Env.Pool.Free() < r.tcp.reserve-1 {
		t.Errorf("acknowledged %d not kept; %d frames free", int32(c.rcvAck-c.rcvNxt), r.Env.Pool.Free())
	}
	release()
	total := int(c.rcvNxt - seq)
	got := readLater(t, host, total)
	g.Until(func() bool { return c.tailLen == 0 })
	<-got
	r.Advance(poolRecheck + time.Millisecond)
	g.Pass()
	if c.edge-c.rcvNxt < 60000 {
		t.Errorf("window stays at %d", c.edge-c.rcvNxt)
	}
}

func TestOneByteSegments(t *testing.T) {
	r := newRig(t, false, Config{MaxTail: 100_000})
	g, host := r.open()
	sent := fill(t, r, g, 60000, 64<<20)
	c := r.conn()
	used := r.Env.Pool.Free()
	extra := min(int(c.edge-g.Seq), 2000)
	for i := range extra {
		g.Send(0, []byte{byte(i)})
	}
	if n := used - r.Env.Pool.Free(); n > 1 {
		t.Errorf("%d frames for %d octets", n, extra)
	}
	got := readLater(t, host, sent+extra)
	g.Until(func() bool { return c.tailLen == 0 })
	for i, b := range (<-got)[sent:] {
		if b != byte(i) {
			t.Fatalf("octet %d is %d", i, b)
		}
	}
}

func TestTailRandom(t *testing.T) {
	r := newRig(t, true, Config{MaxTail: 300_000})
	g, host := r.open()
	c := r.conn()
	const total = 24 << 20
	data := pattern(total)
	got := readLater(t, host, total)
	rng := rand.New(rand.NewPCG(9, 9))
	for sent := 0; sent < total; {
		n := min(1+rng.IntN(64000), int(c.edge-g.Seq), total-sent)
		if n == 0 {
			g.Got = nil
			g.Until(func() bool { return c.edge != g.Seq })
			continue
		}
		g.Send(0, data[sent:sent+n])
		sent += n
		if rng.IntN(4) == 0 {
			g.Pass()
		}
		if rng.IntN(16) == 0 {
			r.Ready(r.tcp.Event)
		}
	}
	g.Until(func() bool { return c.tailLen == 0 })
	if !bytes.Equal(<-got, data) {
		t.Error("contents differ")
	}
}

// hoard takes frames out of the pool until left are free, and returns how to
// give them back.
func (r *rig) hoard(left int) (release func()) {
	var list *ringFrame
	for r.Env.Pool.Free() > left {
		f := r.Env.Pool.Get()
		f.Next, list = list, f
	}
	return func() { r.Env.Pool.PutAll(list) }
}

// TestTailGivesWay: when the tap needs the last frames, a tail that nobody was
// promised is dropped, and sent again by the guest it arrives.
func TestTailGivesWay(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	c := r.conn()
	release := r.hoard(r.tcp.reserve - 1)
	c.edge += 64 << 20 // promised when frames were plenty
	start, data := g.Seq, pattern(60000)
	for r.Env.Count.Drops[stats.NoFrame] == 0 {
		if g.Seq-start > 48<<20 {
			t.Fatal("the socket takes everything")
		}
		g.Send(0, data)
		g.Pass()
	}
	if c.tail != nil || c.rcvNxt == g.Seq || wire.SeqLT(c.inSocket(), c.rcvAck) || c.rcvNxt != c.inSocket() {
		t.Fatalf("tail of %d, taken %d short, acknowledged %d beyond", c.tailLen, g.Seq-c.rcvNxt, int32(c.rcvAck-c.inSocket()))
	}
	release()
	lost := int(g.Seq - c.rcvNxt)
	g.Raw(wire.ACK, c.rcvNxt, g.Ack, nil, data[len(data)-lost:])
	got := readLater(t, host, int(g.Seq-start))
	g.Until(func() bool { return c.tail == nil })
	for i, b := range <-got {
		if b != data[i%len(data)] {
			t.Fatalf("octet %d differs", i)
		}
	}
	if c.rcvNxt != g.Seq {
		t.Errorf("%d octets short", g.Seq-c.rcvNxt)
	}
}

// TestPoolRecheck: a window that only the pool's shortage closed opens again
// without anybody asking.
func TestPoolRecheck(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	c := r.conn()
	release := r.hoard(r.tcp.reserve)
	for n := int(c.edge - c.rcvNxt); n > 0; n = int(c.edge - c.rcvNxt) {
		n = min(n, 60000)
		g.Send(0, pattern(n))
		g.Pass()
		readAll(t, host, n)
	}
	g.Pass()
	g.Got = nil
	release()
	g.None()
	r.Advance(poolRecheck + time.Millisecond)
	g.Pass()
	if len(g.Got) != 1 || g.Got[0].Window() == 0 {
		t.Errorf("%d segments", len(g.Got))
	}
}

// TestCompact: small frames of one batch that the socket refuses are put
// together.
func TestCompact(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	c := r.conn()
	start := g.Seq
	var want []byte
	for i := byte(0); !c.blocked; i++ {
		var batch []*ringFrame
		for range 40 {
			p := bytes.Repeat([]byte{i}, 999)
			if int(c.edge-g.Seq) < len(p) {
				break
			}
			want = append(want, p...)
			batch = append(batch, r.Frame(g.Frame(wire.ACK, g.Seq, g.Ack, nil, p), ring.Offload{}))
			g.Seq += uint32(len(p))
		}
		r.tcp.Input(batch)
		frames := 0
		for f := c.tail; f != nil; f = f.Next {
			frames++
		}
		if frames > 2 {
			t.Errorf("%d octets in %d frames", c.tailLen, frames)
		}
		g.Pass()
	}
	got := readLater(t, host, int(g.Seq-start))
	g.Until(func() bool { return c.tail == nil })
	if !bytes.Equal(<-got, want) {
		t.Error("contents differ")
	}
}
