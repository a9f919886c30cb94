package tcpx

import (
	"bytes"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"penne/internal/wire"
	"penne/test/guest"
)

// manyOctets are more than one frame takes, and no more than fits into a
// socket's first window: 65,495 up to kernel 6.4, which reckons that half of the
// buffer holds payload, and more since.
const manyOctets = 65_000

// lose makes n octets, manyOctets at most, arrive that the guest pretends not to
// have got.
func lose(t *testing.T, r *rig, g *guest.TCP, host *net.TCPConn, n int) []byte {
	t.Helper()
	data := pattern(n)
	host.Write(data)
	got := 0
	g.Until(func() bool {
		got = 0
		for _, s := range g.Got {
			got += len(s.Data)
		}
		return got == n
	})
	g.Got = nil
	return data
}

func TestTimeout(t *testing.T) {
	for _, noOff := range []bool{false, true} {
		r := newRig(t, false, Config{NoPeekOff: noOff})
		g, host := r.open()
		data := lose(t, r, g, host, manyOctets)
		r.Advance(time.Second - 10*time.Millisecond)
		g.None()
		r.Advance(20 * time.Millisecond)
		g.Pass()
		c := r.conn()
		if len(g.Got) != 1 || g.Got[0].Seq() != g.Ack || len(g.Got[0].Data) != int(c.chunk) {
			t.Fatalf("%d segments after the timeout", len(g.Got))
		}
		if r.Env.Count.TCPRetransmits != 1 {
			t.Error("not counted")
		}
		if got := receiveSome(t, g, len(data)); !bytes.Equal(got, data) {
			t.Error("contents differ")
		}
		// And on as if nothing had been.
		more := pattern(5000)
		host.Write(more)
		if got := receiveSome(t, g, len(more)); !bytes.Equal(got, more) {
			t.Error("contents differ afterwards")
		}
	}
}

// receiveSome acknowledges what comes in sequence until it has n octets.
func receiveSome(t *testing.T, g *guest.TCP, n int) []byte {
	t.Helper()
	var got []byte
	for len(got) < n {
		s := g.Next()
		if s.Seq() != g.Ack {
			t.Fatalf("seq %d off", int32(s.Seq()-g.Ack))
		}
		got = append(got, s.Data...)
		g.Ack += uint32(len(s.Data))
		g.Send(0, nil)
	}
	return got
}

// TestTimeoutAckAhead: after a timeout the guest may acknowledge more than was
// sent again, since it had the rest.
func TestTimeoutAckAhead(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	lose(t, r, g, host, manyOctets)
	r.Advance(1100 * time.Millisecond)
	g.Next()
	g.Ack += manyOctets
	g.Send(0, nil)
	g.None()
	host.Write([]byte("after"))
	if s := g.Next(); s.Seq() != g.Ack || string(s.Data) != "after" {
		t.Errorf("seq %d off, %q", int32(s.Seq()-g.Ack), s.Data)
	}
}

func TestTimeoutsEnd(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	lose(t, r, g, host, 1000)
	for i := range maxDataTries {
		r.Advance(time.Duration(rto(uint8(i))) + 20*time.Millisecond)
		g.Pass()
		n := 0
		for _, s := range g.Got {
			if len(s.Data) > 0 {
				n++
			}
		}
		if n != 1 {
			t.Fatalf("expiry %d: %d repetitions", i, n)
		}
		g.Got = nil
	}
	r.Advance(2 * time.Minute)
	g.Pass()
	if r.tcp.Len() != 0 || len(g.Got) == 0 || !g.Got[len(g.Got)-1].Has(wire.RST) {
		t.Error("not given up")
	}
	if _, err := host.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("host read %v", err)
	}
}

func TestFastRetransmit(t *testing.T) {
	for _, sack := range []bool{false, true} {
		for _, noOff := range []bool{false, true} {
			r := newRig(t, false, Config{NoPeekOff: noOff})
			g, host := r.open()
			data := lose(t, r, g, host, 50_000)
			var opts []byte
			if sack {
				opts = sackOption(make([]byte, 40), [][2]uint32{{g.Ack + 1460, g.Ack + 50_000}})
			}
			for range 3 {
				g.None()
				if sack {
					g.Win-- // does not hide a duplicate then
				}
				g.Raw(wire.ACK, g.Seq, g.Ack, opts, nil)
			}
			s := g.Next()
			want := 50_000
			if sack {
				want = 1460
			}
			if s.Seq() != g.Ack || !bytes.Equal(s.Data, data[:want]) {
				t.Fatalf("sack %t: %d octets at %d", sack, len(s.Data), int32(s.Seq()-g.Ack))
			}
			for range 5 { // more of the same does nothing more
				g.Raw(wire.ACK, g.Seq, g.Ack, opts, nil)
				g.None()
			}
			g.Ack += 50_000
			g.Send(0, nil)
			g.None()
			host.Write([]byte("after"))
			if s := g.Next(); s.Seq() != g.Ack || string(s.Data) != "after" {
				t.Errorf("seq %d off, %q", int32(s.Seq()-g.Ack), s.Data)
			}
		}
	}
}

// TestPartialAck: a second gap is repaired without three more duplicates.
func TestPartialAck(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	data := lose(t, r, g, host, 50_000)
	for range 3 {
		g.Send(0, nil)
	}
	g.Next()
	g.Ack += 20_000
	g.Send(0, nil)
	s := g.Next()
	if s.Seq() != g.Ack || !bytes.Equal(s.Data, data[20_000:]) {
		t.Errorf("%d octets at %d", len(s.Data), int32(s.Seq()-g.Ack))
	}
	g.Ack += 30_000
	g.Send(0, nil)
	if r.conn().inRecovery {
		t.Error("recovery does not end")
	}
}

// TestSackLies: blocks that make no sense do no harm.
func TestSackLies(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	lose(t, r, g, host, 50_000)
	opts := sackOption(make([]byte, 40), [][2]uint32{{g.Ack + 1, g.Ack - 1}, {g.Ack - 5, g.Ack}, {g.Ack + 1<<31, 7}})
	for range 3 {
		g.Raw(wire.ACK, g.Seq, g.Ack, opts, nil)
	}
	if s := g.Next(); s.Seq() != g.Ack || len(s.Data) != 1 {
		t.Errorf("%d octets", len(s.Data))
	}
}

// TestTimeoutAckAheadSmall: the same with so little that what is acknowledged may
// stay in the socket, after a repetition that a shrunken window cut short.
func TestTimeoutAckAheadSmall(t *testing.T) {
	for _, noOff := range []bool{false, true} {
		r := newRig(t, false, Config{NoPeekOff: noOff})
		g, host := r.open()
		data := lose(t, r, g, host, 3000)
		g.Win = 1280 >> g.Scale
		g.Send(0, nil)
		g.None()
		r.Advance(1100 * time.Millisecond)
		if s := g.Next(); s.Seq() != g.Ack || !bytes.Equal(s.Data, data[:1280]) {
			t.Fatalf("%d octets again", len(s.Data))
		}
		g.Ack += 3000
		g.Win = 65535
		g.Send(0, nil)
		g.None()
		host.Write([]byte("after"))
		if s := g.Next(); s.Seq() != g.Ack || string(s.Data) != "after" {
			t.Errorf("seq %d off, %q", int32(s.Seq()-g.Ack), s.Data)
		}
	}
}

// TestDuplicatesOfAClosedWindow: a guest with a closed window repeats itself as
// often as it is asked. That is no loss, and nothing may go out.
func TestDuplicatesOfAClosedWindow(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	lose(t, r, g, host, 5000)
	g.Win = 0
	for range 5 {
		g.Send(0, nil)
		g.None()
	}
}
