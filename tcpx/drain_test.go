package tcpx

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"penne/internal/wire"
	"penne/test/guest"
)

// closed makes a connection whose guest has sent size octets and its FIN, and
// knows both acknowledged, while the host has read nothing.
func closed(t *testing.T, r *rig, size int) (*guest.TCP, *net.TCPConn, int) {
	t.Helper()
	g, host := r.open()
	sent := fill(t, r, g, 60000, size)
	g.Send(wire.FIN, nil)
	for range 4 {
		r.Advance(50 * time.Millisecond)
		g.Pass()
	}
	if c := r.conn(); c.rcvAck != g.Seq {
		t.Fatalf("%d short of the FIN acknowledged", g.Seq-c.rcvAck)
	}
	g.Got = nil
	return g, host, sent
}

// gone lets time pass for a guest that has forgotten the connection, as Linux
// does with one that nobody holds a minute after its FIN is acknowledged.
func gone(r *rig, g *guest.TCP, resets bool) {
	for range 60 {
		r.Advance(10 * time.Second)
		g.Pass()
		if len(g.Got) > 0 && resets {
			g.Raw(wire.RST, g.Got[0].TCP.Ack(), 0, nil, nil)
		}
		g.Got = nil
		if r.tcp.Len() == 0 || r.conn().state != open {
			return
		}
	}
}

// TestGuestGoneBehindFin: the remote reads slowly, the guest is long gone: it
// still gets all, and the end.
func TestGuestGoneBehindFin(t *testing.T) {
	for _, tc := range []struct {
		name   string
		size   int  // of what the guest sent; the socket takes less than the greater one
		unread bool // the guest never acknowledged what the host sent
		resets bool // a guest that answers with a RST, not one that is silent
	}{
		{"in the socket", 200_000, false, true},
		{"in the socket, silent", 200_000, false, false},
		{"in the tail", 64 << 20, false, true},
		{"in the tail, silent", 64 << 20, false, false},
		{"in the socket, data unread", 200_000, true, true},
		{"in the tail, data unread", 64 << 20, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, false, Config{MaxTail: 500_000})
			g, host, sent := closed(t, r, tc.size)
			if tail := r.conn().tail != nil; tail != (tc.size > 1<<20) {
				t.Fatalf("tail: %t", tail)
			}
			if tc.unread {
				host.Write(pattern(1000))
				g.Until(func() bool { return len(g.Got) > 0 })
				g.Got = nil
			}
			gone(r, g, tc.resets)
			done := make(chan error)
			go func() {
				n, err := io.Copy(io.Discard, host)
				if err == nil && int(n) != sent {
					err = errors.New("octets are missing")
				}
				done <- err
			}()
			g.Until(func() bool { return r.tcp.Len() == 0 })
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestGuestGoneHostStuck: what nobody reads is not kept for ever.
func TestGuestGoneHostStuck(t *testing.T) {
	r := newRig(t, false, Config{MaxTail: 500_000})
	g, host, _ := closed(t, r, 64<<20)
	gone(r, g, true)
	if r.conn().state != draining {
		t.Fatal(r.conn().phase())
	}
	r.Advance(drainLimit / 2)
	g.None()
	if r.tcp.Len() != 1 {
		t.Fatal("given up too early")
	}
	for range 20 {
		r.Advance(keepaliveAfter)
		g.None()
	}
	if r.tcp.Len() != 0 {
		t.Error("flow stays")
	}
	if _, err := io.Copy(io.Discard, host); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("host read %v", err)
	}
}

// TestGuestGoneComesBack: the ends of a connection that is being drained are
// not free yet; the guest's SYN is answered when they are.
func TestGuestGoneComesBack(t *testing.T) {
	r := newRig(t, false, Config{MaxTail: 500_000})
	g, host, sent := closed(t, r, 64<<20)
	gone(r, g, true)
	g.Seq, g.Ack = 77, 0
	g.SYN()
	g.None()
	got := readLater(t, host, sent)
	g.Until(func() bool { return r.tcp.Len() == 0 })
	<-got
	g.Seq = 77
	g.Connect()
	if p := r.conn().phase(); p != "ESTABLISHED" {
		t.Error(p)
	}
}

// TestCloseDeliversWhatIsFinished: the process ends when the command does, and
// the kernel delivers what the command wrote last.
func TestCloseDeliversWhatIsFinished(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host, sent := closed(t, r, 200_000)
	host.Write([]byte("unread"))
	g.Next()
	r.tcp.Close()
	if n, err := io.Copy(io.Discard, host); err != nil || int(n) != sent {
		t.Errorf("%d of %d octets before %v", n, sent, err)
	}
}

// TestCloseResetsTheRest: what of a stream the socket has not taken is lost with
// the process, and the remote must not take what it got for all.
func TestCloseResetsTheRest(t *testing.T) {
	r := newRig(t, false, Config{MaxTail: 500_000})
	g, host, _ := closed(t, r, 64<<20)
	gone(r, g, true)
	r.tcp.Close()
	if r.tcp.Len() != 0 {
		t.Error("flow stays")
	}
	if _, err := io.Copy(io.Discard, host); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("host read %v", err)
	}
}

// TestGuestGoneUnheard: a remote that has the guest's stream learns that its
// answer was not taken.
func TestGuestGoneUnheard(t *testing.T) {
	for _, answered := range []bool{false, true} {
		r := newRig(t, false, Config{})
		g, host := r.open()
		g.Send(wire.FIN, []byte("question"))
		g.Pass()
		if b, err := io.ReadAll(host); err != nil || string(b) != "question" {
			t.Fatalf("%q %v", b, err)
		}
		host.Write([]byte("answer"))
		g.Until(func() bool { return r.conn().flight() == 6 })
		if answered {
			g.Ack += 6
			g.Send(0, nil)
			g.Pass()
		}
		g.Send(wire.RST, nil)
		g.Pass()
		if r.tcp.Len() != 0 {
			t.Fatal("flow stays")
		}
		if _, err := host.Write([]byte("?")); (err == nil) != answered {
			t.Errorf("answer taken %t, then host wrote: %v", answered, err)
		}
	}
}
