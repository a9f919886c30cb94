package tcpx

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/test/guest"
)

// TestGuestEnds walks CLOSE-WAIT and LAST-ACK, with data from the host after
// the guest's FIN.
func TestGuestEnds(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	c := r.conn()
	g.Send(wire.FIN, []byte("bye"))
	if s := lastAck(g); s.TCP.Ack() != g.Seq {
		t.Errorf("ack %d short", g.Seq-s.TCP.Ack())
	}
	if b, err := io.ReadAll(host); err != nil || string(b) != "bye" {
		t.Errorf("%q %v", b, err)
	}
	if c.phase() != "CLOSE-WAIT" {
		t.Error(c.phase())
	}
	g.Raw(wire.ACK|wire.FIN, g.Seq-1, g.Ack, nil, nil) // repeated
	if s := lastAck(g); s.TCP.Ack() != g.Seq {
		t.Errorf("ack %d short", g.Seq-s.TCP.Ack())
	}
	g.Raw(wire.ACK, g.Seq, g.Ack, nil, []byte("after the end"))
	if s := lastAck(g); s.TCP.Ack() != g.Seq {
		t.Error("data after a FIN taken")
	}
	want := pattern(50_000)
	host.Write(want)
	if got := receiveSome(t, g, len(want)); !bytes.Equal(got, want) {
		t.Error("contents differ")
	}
	host.Close()
	s := g.Next()
	if !s.Has(wire.FIN) || c.phase() != "LAST-ACK" {
		t.Errorf("flags %#x, %s", s.Flags(), c.phase())
	}
	g.Ack++
	g.Send(0, nil)
	g.None()
	if r.tcp.Len() != 0 {
		t.Error("flow stays")
	}
}

// TestFinBehindTail: the host sees the end only behind everything before it.
func TestFinBehindTail(t *testing.T) {
	r := newRig(t, false, Config{MaxTail: 500_000})
	g, host := r.open()
	c := r.conn()
	sent := fill(t, r, g, 60000, 64<<20)
	g.Send(wire.FIN, nil)
	g.Pass()
	if !c.guestFIN || c.shut || c.tailLen == 0 {
		t.Fatalf("FIN taken %t, sent on %t, tail %d", c.guestFIN, c.shut, c.tailLen)
	}
	done := make(chan int)
	go func() {
		n, err := io.Copy(io.Discard, host)
		if err != nil {
			t.Error(err)
		}
		done <- int(n)
	}()
	g.Until(func() bool { return c.shut })
	if n := <-done; n != sent {
		t.Errorf("%d octets before the end, want %d", n, sent)
	}
	r.Advance(200 * time.Millisecond)
	g.Pass()
	if s := lastAck(g); s.TCP.Ack() != g.Seq {
		t.Errorf("ack %d short", g.Seq-s.TCP.Ack())
	}
}

// TestSimultaneousClose walks CLOSING and TIME-WAIT.
func TestSimultaneousClose(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	c := r.conn()
	host.Close()
	s := g.Next()
	if !s.Has(wire.FIN) || c.phase() != "FIN-WAIT-1" {
		t.Fatalf("flags %#x, %s", s.Flags(), c.phase())
	}
	g.Send(wire.FIN, nil) // does not acknowledge ours
	g.Pass()
	if c.phase() != "CLOSING" {
		t.Error(c.phase())
	}
	g.Ack++
	g.Send(0, nil)
	g.Pass()
	if c.phase() != "TIME-WAIT" || c.fd >= 0 {
		t.Errorf("%s, socket %d", c.phase(), c.fd)
	}
	g.Got = nil
	g.Raw(wire.ACK|wire.FIN, g.Seq-1, g.Ack, nil, nil) // our acknowledgment got lost
	if s := lastAck(g); s.TCP.Ack() != g.Seq || s.Seq() != g.Ack {
		t.Errorf("ack %d seq %d", s.TCP.Ack(), s.Seq())
	}
	g.Raw(wire.RST, g.Seq+5, 0, nil, nil)
	if r.tcp.Len() != 1 {
		t.Error("a RST elsewhere ends TIME-WAIT")
	}
	r.Advance(timeWaitTime + 10*time.Millisecond)
	g.None()
	if r.tcp.Len() != 0 {
		t.Error("flow stays")
	}
}

// TestTimeWaitMakesWay: a full table of finished flows refuses nobody.
func TestTimeWaitMakesWay(t *testing.T) {
	r := newRig(t, false, Config{Flows: 1})
	for i := range 3 {
		g := r.dial()
		g.Port += uint16(i)
		g.Connect()
		host, err := r.ln.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		host.Close()
		if s := g.Next(); !s.Has(wire.FIN) {
			t.Fatalf("flags %#x", s.Flags())
		}
		g.Ack++
		g.Send(wire.FIN, nil)
		g.Pass()
		if r.tcp.Len() != 1 || r.conn().phase() != "TIME-WAIT" {
			t.Fatalf("%d flows, %s", r.tcp.Len(), r.conn().phase())
		}
	}
	if n := r.Env.Count.Drops[stats.TableFull]; n != 0 {
		t.Errorf("%d refused", n)
	}
}

// TestTimeWaitReuse: the guest may connect again from the same port at once.
func TestTimeWaitReuse(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	host.Close()
	g.Next()
	g.Ack++
	g.Send(wire.FIN, nil)
	g.Pass()
	if r.conn().phase() != "TIME-WAIT" {
		t.Fatal(r.conn().phase())
	}
	g.Got = nil
	g.Seq += 1000
	g.Connect()
	if r.conn().phase() != "ESTABLISHED" {
		t.Error(r.conn().phase())
	}
}

func TestTimeWaitReset(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	host.Close()
	g.Next()
	g.Ack++
	g.Send(wire.FIN, nil)
	g.Pass()
	g.Send(wire.RST, nil)
	if r.tcp.Len() != 0 {
		t.Error("flow stays")
	}
}

// TestFinRepeated: our FIN is repeated by the timer, alone and with data.
func TestFinRepeated(t *testing.T) {
	for _, data := range []string{"", "data"} {
		for _, noOff := range []bool{false, true} {
			r := newRig(t, false, Config{NoPeekOff: noOff})
			g, host := r.open()
			host.Write([]byte(data))
			host.Close()
			g.Until(func() bool { return len(g.Got) > 0 && g.Got[len(g.Got)-1].Has(wire.FIN) })
			for i := range 3 {
				g.Got = nil
				r.Advance(time.Duration(rto(uint8(i))) + 20*time.Millisecond)
				g.Pass()
				var got []byte
				fins := 0
				for _, s := range g.Got {
					got = append(got, s.Data...)
					if s.Has(wire.FIN) {
						fins++
					}
				}
				if string(got) != data || fins != 1 {
					t.Fatalf("repetition %d: %q, %d FINs", i, got, fins)
				}
			}
			g.Got = nil
			g.Ack += uint32(len(data)) + 1
			g.Send(wire.FIN, nil)
			g.Pass()
			if p := r.conn().phase(); p != "TIME-WAIT" {
				t.Error(p)
			}
		}
	}
}

// TestFastRetransmitFin: duplicates while only the FIN is missing.
func TestFastRetransmitFin(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	host.Write([]byte("data"))
	g.Next()
	host.Close()
	g.Next()
	g.Ack += 4
	g.Send(0, nil)
	for range 3 {
		g.Send(0, nil)
	}
	if s := g.Next(); !s.Has(wire.FIN) || s.Seq() != g.Ack || len(s.Data) > 0 {
		t.Errorf("flags %#x seq %d off", s.Flags(), int32(s.Seq()-g.Ack))
	}
}

func TestGuestResets(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	g.Send(wire.RST, nil)
	g.None()
	if r.tcp.Len() != 0 || r.Env.Count.TCPReset != 1 {
		t.Error("flow stays")
	}
	if _, err := host.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("host read %v", err)
	}
}

// TestGuestForgot: a guest that has rebooted takes the sequence number of its
// RST from our acknowledgment, which lags behind on a long path.
func TestGuestForgot(t *testing.T) {
	r := newRig(t, false, Config{})
	g, _ := r.open()
	c := r.conn()
	g.Send(0, pattern(1000)) // taken, not yet acknowledged
	if c.rcvAck == c.rcvNxt {
		t.Fatal("acknowledged before the end of the pass")
	}
	g.Raw(wire.RST, c.rcvAck, 0, nil, nil)
	if r.tcp.Len() != 0 {
		t.Error("flow stays")
	}
}

// TestHostResets: what the remote sent before its RST arrives first.
func TestHostResets(t *testing.T) {
	for _, noOff := range []bool{false, true} {
		r := newRig(t, false, Config{NoPeekOff: noOff})
		g, host := r.open()
		want := pattern(30_000)
		host.Write(want)
		host.SetLinger(0)
		host.Close()
		var got []byte
		for {
			s := g.Next()
			if s.Has(wire.RST) {
				if s.Seq() != g.Ack {
					t.Errorf("RST at %d off", int32(s.Seq()-g.Ack))
				}
				break
			}
			if s.Has(wire.FIN) {
				t.Fatal("a FIN where a RST is due")
			}
			got = append(got, s.Data...)
			g.Ack += uint32(len(s.Data))
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d octets before the RST", len(got))
		}
		if r.tcp.Len() != 0 {
			t.Error("flow stays")
		}
	}
}

// awaitReset waits for g's reset, with which the only flow ends.
func (r *rig) awaitReset(g *guest.TCP) {
	r.t.Helper()
	for s := g.Next(); !s.Has(wire.RST); {
		s = g.Next()
	}
	if r.tcp.Len() != 0 {
		r.t.Error("flow stays")
	}
}

// TestHostResetsSender: the guest learns of it when it sends, too.
func TestHostResetsSender(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	host.SetLinger(0)
	host.Close()
	g.Send(0, pattern(1000)) // the event is not read yet
	r.awaitReset(g)
}

// TestHostGone: the remote closed for good, and the guest goes on sending.
func TestHostGone(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	host.Close()
	g.Next()
	g.Ack++
	g.Send(0, pattern(1000))
	r.awaitReset(g)
}

// TestHostResetsHandshake: the guest's connection opens before it is reset, as
// it would have without us between, and what came in that time arrives. A guest
// that does not answer is given up soon.
func TestHostResetsHandshake(t *testing.T) {
	for _, data := range []string{"", "goodbye"} {
		for _, inOne := range []bool{false, true} { // connect, octets and reset are one event
			r := newRig(t, false, Config{})
			g := r.dial()
			g.SYN()
			if !inOne {
				g.Ack = g.Next().Seq() + 1
			}
			host, err := r.ln.AcceptTCP()
			if err != nil {
				t.Fatal(err)
			}
			reset(host, data)
			if inOne {
				g.Ack = g.Next().Seq() + 1
			} else {
				g.Events()
			}
			g.Send(0, nil)
			wantLastWords(t, r, g, data)
		}
		r := newRig(t, false, Config{})
		g, client := r.inbound()
		reset(client, data)
		g.Ack = g.Next().Seq() + 1
		g.Events()
		g.Raw(wire.SYN|wire.ACK, g.Seq, g.Ack, g.SynOptions(), nil)
		g.Seq++
		wantLastWords(t, r, g, data)
	}
	r := newRig(t, false, Config{})
	g, client := r.inbound()
	g.Next()
	reset(client, "goodbye")
	g.None()
	r.Advance(1010 * time.Millisecond)
	if s := g.Next(); s.Flags() != wire.RST && g.Next().Flags() != wire.RST {
		t.Errorf("flags %#x", s.Flags())
	}
	if r.tcp.Len() != 0 {
		t.Error("flow stays")
	}
}

// reset sends data and an RST behind it.
func reset(c *net.TCPConn, data string) {
	io.WriteString(c, data)
	c.SetLinger(0)
	c.Close()
}

// wantLastWords wants the guest to get data, then an RST, and the flow gone.
func wantLastWords(t *testing.T, r *rig, g *guest.TCP, data string) {
	t.Helper()
	var got []byte
	for {
		s := g.Next()
		got = append(got, s.Data...)
		if s.Has(wire.RST) {
			break
		}
	}
	if string(got) != data || r.tcp.Len() != 0 {
		t.Errorf("%q before the RST, want %q; %d flows", got, data, r.tcp.Len())
	}
}

// TestHostEndsAndResets: the remote has closed, and answers with an RST what
// comes then. Its end is no less an end, though all that is noticed at once.
func TestHostEndsAndResets(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	io.WriteString(host, "goodbye")
	host.Close()
	for range 2 { // the first brings the RST, which the second meets
		r.tcp.Input([]*ring.Frame{r.Frame(g.Frame(wire.ACK, g.Seq, g.Ack, nil, []byte("x")), ring.Offload{})})
		g.Seq++
	}
	s := g.Next()
	if string(s.Data) != "goodbye" || !s.Has(wire.FIN) {
		t.Errorf("%q, flags %#x", s.Data, s.Flags())
	}
	if s := g.Next(); !s.Has(wire.RST) || r.tcp.Len() != 0 {
		t.Errorf("flags %#x, %d flows", s.Flags(), r.tcp.Len())
	}
}

// TestGuestsLastWords: octets and the RST behind them come in one row of frames.
func TestGuestsLastWords(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	want := pattern(1000)
	r.tcp.Input([]*ring.Frame{
		r.Frame(g.Frame(wire.ACK, g.Seq, g.Ack, nil, want), ring.Offload{}),
		r.Frame(g.Frame(wire.RST, g.Seq+1000, 0, nil, nil), ring.Offload{}),
	})
	if got, err := io.ReadAll(host); !bytes.Equal(got, want) || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%d octets, then %v", len(got), err)
	}
	if r.tcp.Len() != 0 {
		t.Error("flow stays")
	}
}

// TestClose resets every flow in every state.
func TestClose(t *testing.T) {
	r := newRig(t, false, Config{})
	in, client := r.inbound()
	in.Next()
	g, host := r.open()
	half := r.dial()
	half.Port++
	half.SYN()
	half.Next()
	connecting := r.dial()
	connecting.Port += 2
	connecting.SYN()
	r.tcp.Close()
	if r.tcp.Len() != 0 {
		t.Errorf("%d flows stay", r.tcp.Len())
	}
	g.Pass()
	if len(g.Got) != 1 || !g.Got[0].Has(wire.RST) || g.Got[0].Seq() != g.Ack {
		t.Error("the guest is not told")
	}
	if n := len(g.Other); n != 3 {
		t.Errorf("%d other flows reset, want 3", n)
	}
	for _, c := range []io.Reader{host, client} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("host read %v", err)
		}
	}
}

// TestStaleEvents: an event for a flow that has ended, or for its successor at
// the same slot, does nothing.
func TestStaleEvents(t *testing.T) {
	r := newRig(t, false, Config{})
	g, _ := r.open()
	tok := r.token()
	g.Send(wire.RST, nil)
	r.tcp.Event(tok, sys.EPOLLERR|sys.EPOLLIN)
	g.Port++
	g.Seq, g.Ack = 77, 0
	g.Connect()
	r.tcp.Event(tok, sys.EPOLLERR|sys.EPOLLRDHUP|sys.EPOLLIN)
	g.None()
	if c := r.conn(); c.rdhup || c.failed {
		t.Error("an event of the predecessor counts")
	}
}
