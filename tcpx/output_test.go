package tcpx

import (
	"bytes"
	"errors"
	"io"
	"syscall"
	"testing"
	"time"

	"penne/internal/wire"
	"penne/ring"
)

// TestSuperpackets: payloads are many whole segments, cut by the guest's MSS.
func TestSuperpackets(t *testing.T) {
	bothFamilies(t, func(t *testing.T, v6 bool) {
		r := newRig(t, v6, Config{})
		g, host := r.open()
		go host.Write(pattern(1 << 20))
		largest := 0
		for n := 0; n < 1<<20; {
			s := g.Next()
			n += len(s.Data)
			largest = max(largest, len(s.Data))
			want := uint8(ring.GSOTCPv4)
			if v6 {
				want = ring.GSOTCPv6
			}
			if len(s.Data) > 1460 && (s.Offload.GSOType != want || s.Offload.GSOSize != 1460) {
				t.Fatalf("%d octets with %+v", len(s.Data), s.Offload)
			}
			if len(s.Data) <= 1460 && s.Offload.GSOType != ring.GSONone {
				t.Fatalf("%d octets with %+v", len(s.Data), s.Offload)
			}
			g.Ack = s.Seq() + uint32(len(s.Data))
			g.Send(0, nil)
		}
		if largest != ring.MaxPayload/1460*1460 {
			t.Errorf("largest payload %d", largest)
		}
	})
}

// TestGuestWindow: nothing goes beyond the guest's window, whatever it does
// with it.
func TestGuestWindow(t *testing.T) {
	for _, noOff := range []bool{false, true} {
		r := newRig(t, false, Config{NoPeekOff: noOff})
		g := r.dial()
		g.Scale, g.Win = 0, 10_000
		g.Connect()
		host, err := r.ln.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
		want := pattern(200_000)
		go host.Write(want)
		var got []byte
		edge := g.Ack + 10_000
		for i := 0; len(got) < len(want); i++ {
			s := g.Next()
			if wire.SeqLT(edge, s.Seq()+uint32(len(s.Data))) {
				t.Fatalf("%d octets beyond the window", s.Seq()+uint32(len(s.Data))-edge)
			}
			if s.Seq() != g.Ack {
				t.Fatalf("seq %d, want %d", s.Seq(), g.Ack)
			}
			got = append(got, s.Data...)
			g.Ack += uint32(len(s.Data))
			g.Win = uint16(3000 + i*977%20000) // it shrinks and grows
			edge = g.Ack + uint32(g.Win)
			g.Send(0, nil)
			g.Pass()
			edge = maxSeq(edge, r.conn().max)
		}
		if !bytes.Equal(got, want) {
			t.Error("contents differ")
		}
	}
}

func maxSeq(a, b uint32) uint32 {
	if wire.SeqLT(a, b) {
		return b
	}
	return a
}

// TestZeroWindow: a closed window is probed, with back-off, without an octet
// beyond it; and what waits goes out when it opens.
func TestZeroWindow(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	g.Win = 0
	g.Send(0, nil)
	g.Pass()
	host.Write([]byte("wait"))
	g.Events()
	g.None()
	for i := range 5 {
		r.Advance(time.Duration(rto(uint8(i))) + 50*time.Millisecond)
		g.Pass()
		if len(g.Got) != 1 || len(g.Got[0].Data) != 0 || g.Got[0].Seq() != g.Ack-1 {
			t.Fatalf("probe %d: %d segments", i, len(g.Got))
		}
		g.Got = nil
		g.Send(0, nil) // still closed
		g.None()
	}
	g.Win = 500
	g.Send(0, nil)
	if s := g.Next(); string(s.Data) != "wait" {
		t.Errorf("%q", s.Data)
	}
}

// TestShrunkWindow: a guest that takes back its window, with data in flight, can still accept acknowledgments.
func TestShrunkWindow(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	host.Write(make([]byte, 1000))
	if s := g.Next(); len(s.Data) != 1000 {
		t.Fatalf("%d octets", len(s.Data))
	}
	for win, want := range map[uint16]uint32{0: 0, 6: 6 << 7, 7: 1000, 8: 1000} { // 7 may be 1000 rounded down
		g.Win = win
		g.Send(0, []byte("x"))
		if s := g.Next(); len(s.Data) != 0 || s.Seq()-g.Ack != want || s.Ack() != g.Seq {
			t.Errorf("window %d: acknowledged at %d, want %d", win<<7, s.Seq()-g.Ack, want)
		}
		g.Seq++ // a gap
		g.Send(0, []byte("z"))
		if s := g.Next(); s.Seq()-g.Ack != want || s.Ack() != g.Seq-2 {
			t.Errorf("window %d: duplicate at %d, want %d", win<<7, s.Seq()-g.Ack, want)
		}
		g.Raw(wire.SYN, g.Seq-2, 0, nil, nil)
		if s := g.Next(); s.Seq()-g.Ack != want {
			t.Errorf("window %d: challenged at %d, want %d", win<<7, s.Seq()-g.Ack, want)
		}
		g.Raw(wire.ACK, g.Seq-2, g.Ack, nil, []byte("y"))
		if s := g.Next(); s.Ack() != g.Seq {
			t.Errorf("acknowledged %d, want %d", s.Ack(), g.Seq)
		}
	}
}

// TestZeroWindowDead: a guest that does not answer probes is given up.
func TestZeroWindowDead(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	g.Win = 0
	g.Send(0, nil)
	host.Write([]byte("wait"))
	g.Events()
	for range 20 {
		r.Advance(time.Minute + time.Second)
		g.Pass()
	}
	if r.tcp.Len() != 0 {
		t.Error("flow stays")
	}
	if _, err := host.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("host read %v", err)
	}
}

// TestManyRounds: what one flow gets in a pass is bounded, and the rest comes
// in the next without a new event.
func TestManyRounds(t *testing.T) {
	r := newRig(t, false, Config{})
	g := r.dial()
	g.MSS, g.Scale, g.Win = 50, 14, 1000
	g.Connect()
	host, err := r.ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	c := r.conn()
	c.mss, c.chunk = 50, 50 // tiny frames: many rounds
	host.Write(pattern(10_000))
	g.Events()
	if len(g.Got) != 1+peekFrames*(peekRounds-1) {
		t.Errorf("%d frames in a pass", len(g.Got))
	}
	if at, ok := r.tcp.Next(); !ok || at > r.Env.Now {
		t.Error("the rest would wait")
	}
	n := len(g.Got)
	g.Pass()
	if len(g.Got) == n {
		t.Error("the rest does not come")
	}
}

func TestKeepaliveToGuest(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	for i := range 5 {
		n := 0
		for ; len(g.Got) == 0; n++ {
			if n > 100 {
				t.Fatalf("question %d does not come", i)
			}
			r.Advance(10 * time.Second)
			g.Pass()
		}
		if s := g.Got[0]; s.Flags() != wire.ACK || s.Seq() != g.Ack-1 || len(s.Data) > 0 {
			t.Fatalf("flags %#x seq %d", s.Flags(), s.Seq())
		}
		g.Got = nil
		g.Send(0, nil)
		g.None()
	}
	// It falls silent.
	for i := 0; r.tcp.Len() > 0; i++ {
		if i > 100 {
			t.Fatal("a dead guest is kept")
		}
		r.Advance(keepaliveAfter)
		g.Pass()
	}
	if _, err := host.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("host read %v", err)
	}
}

func TestInactivity(t *testing.T) {
	r := newRig(t, false, Config{})
	g, _ := r.open()
	hours := 0
	for ; r.tcp.Len() > 0; hours++ {
		if hours > 5 {
			t.Fatal("an idle flow is kept")
		}
		for range 12 {
			r.Advance(5 * time.Minute)
			g.Pass()
			if r.tcp.Len() > 0 {
				g.Send(0, nil) // it answers
			}
		}
	}
	if hours < 4 {
		t.Errorf("ended after %d hours", hours)
	}
}

func TestHostEnds(t *testing.T) {
	for _, noOff := range []bool{false, true} {
		r := newRig(t, false, Config{NoPeekOff: noOff})
		g, host := r.open()
		host.Write([]byte("bye"))
		host.CloseWrite()
		if got := receive(t, g, 3); string(got) != "bye" {
			t.Errorf("%q", got)
		}
		c := r.conn()
		if c.phase() != "FIN-WAIT-2" {
			t.Error(c.phase())
		}
		// The other direction goes on.
		g.Send(wire.PSH, []byte("and thanks"))
		g.Pass()
		if b := readAll(t, host, 10); string(b) != "and thanks" {
			t.Errorf("%q", b)
		}
		g.Got = nil
		g.Send(wire.FIN, nil)
		g.Pass()
		if c.phase() != "TIME-WAIT" || len(g.Got) != 1 || g.Got[0].TCP.Ack() != g.Seq {
			t.Errorf("%s, %d segments", c.phase(), len(g.Got))
		}
		if _, err := host.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("host read %v", err)
		}
	}
}

// TestIdleWakes: a flow on which nothing happens wakes its shard a handful of
// times before the first keepalive, timers left over from traffic included.
func TestIdleWakes(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	for range 10 {
		g.Send(wire.PSH, []byte("request"))
		g.Pass()
		readAll(t, host, 7)
		host.Write([]byte("answer"))
		g.Got = nil
		g.Ack += uint32(len(g.Next().Data))
	}
	g.Send(0, nil)
	g.None()
	wakes := 0
	for end := r.Env.Now + 29e9; ; wakes++ {
		at, ok := r.tcp.Next()
		if !ok || at > end {
			break
		}
		r.Env.Now = max(at, r.Env.Now+1)
		g.None()
	}
	if wakes > 10 {
		t.Errorf("%d wake-ups in 29 idle seconds", wakes)
	}
}
