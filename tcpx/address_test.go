package tcpx

import (
	"testing"
	"time"

	"penne/internal/wire"
	"penne/ring"
	"penne/test/guest"
)

// moved makes g's Ethernet address another one, of which the translator has not
// heard on this flow.
func moved(r *rig) wire.MAC {
	mac := guest.MAC
	mac[5]++
	r.Env.Guest.SawMAC(&mac)
	return mac
}

// TestGuestMoves: segments go to where the latest came from.
func TestGuestMoves(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	mac := moved(r)
	b := g.Frame(wire.ACK|wire.PSH, g.Seq, g.Ack, nil, []byte("hello"))
	copy(b[6:], mac[:])
	r.tcp.Input([]*ringFrame{r.Frame(b, ring.Offload{})})
	g.Seq += 5
	if s := g.Next(); wire.MAC(s.Bytes[:6]) != mac {
		t.Errorf("acknowledged to %x, want %x", s.Bytes[:6], mac)
	}
	host.Write([]byte("welcome"))
	if s := g.Next(); wire.MAC(s.Bytes[:6]) != mac {
		t.Errorf("answered to %x, want %x", s.Bytes[:6], mac)
	}
}

// TestForgedAddress: an address counts only if the segment is in the window.
func TestForgedAddress(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	b := g.Frame(wire.ACK, g.Seq-100_000, g.Ack, nil, nil)
	b[11]++
	r.tcp.Input([]*ringFrame{r.Frame(b, ring.Offload{})})
	host.Write([]byte("welcome"))
	for s := g.Next(); ; s = g.Next() {
		if wire.MAC(s.Bytes[:6]) != guest.MAC {
			t.Errorf("sent to %x, want %x", s.Bytes[:6], guest.MAC)
		}
		if len(s.Data) > 0 {
			break
		}
	}
}

// TestSilentGuestMoves: a guest that only listens is found by what is sent again.
func TestSilentGuestMoves(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	lose(t, r, g, host, 1000)
	mac := moved(r)
	for i := range uint8(4) {
		r.Advance(time.Duration(rto(i)) + 20*time.Millisecond)
		if s := g.Next(); wire.MAC(s.Bytes[:6]) == mac {
			return
		}
	}
	t.Error("sent to the old address only")
}

// TestIdleGuestMoves: it is asked for a sign of life where it is now.
func TestIdleGuestMoves(t *testing.T) {
	r := newRig(t, false, Config{})
	g, _ := r.open()
	mac := moved(r)
	for range 20 {
		r.Advance(keepaliveAfter)
		g.Pass()
		for _, s := range g.Got {
			if wire.MAC(s.Bytes[:6]) == mac {
				return
			}
		}
		g.Got = nil
	}
	t.Error("asked at the old address only")
}
