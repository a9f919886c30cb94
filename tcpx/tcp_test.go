package tcpx

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
	"penne/test/guest"
)

// rig is a translator, a scripted guest and a listener on the host's loopback.
type rig struct {
	*guest.Guest
	t   *testing.T
	tcp *TCP
	ln  *net.TCPListener
}

func newRig(t *testing.T, v6 bool, cfg Config) *rig {
	t.Helper()
	r := &rig{Guest: guest.New(t, 512), t: t}
	cfg.Env = r.Env
	if cfg.Flows == 0 {
		cfg.Flows = 16
	}
	cfg.ShortPath = time.Hour // loopback, which an emulated CPU takes milliseconds for
	var err error
	if r.tcp, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.check)
	ip := net.IPv4(127, 0, 0, 1)
	if v6 {
		ip = net.IPv6loopback
	}
	if r.ln, err = net.ListenTCP("tcp", &net.TCPAddr{IP: ip}); err != nil {
		t.Skipf("no loopback of this family: %v", err)
	}
	t.Cleanup(func() { r.ln.Close() })
	return r
}

// check ends all flows and looks for what they left behind.
func (r *rig) check() {
	r.tcp.Close()
	r.Env.Out.Flush()
	if n := r.tcp.Len(); n != 0 {
		r.t.Errorf("%d flows left after Close", n)
	}
	if free, all := r.Env.Pool.Free(), r.Env.Pool.Size()-r.Env.Out.Size(); free != all {
		r.t.Errorf("%d of %d frames came back", free, all)
	}
}

// flush ends a pass.
func (r *rig) flush() {
	r.tcp.Flush()
	r.Env.Out.Flush()
}

func (r *rig) port() uint16 { return uint16(r.ln.Addr().(*net.TCPAddr).Port) }

// dial makes the guest's end of a new connection to the listener.
func (r *rig) dial() *guest.TCP {
	gw := guest.Gateway4
	if r.ln.Addr().(*net.TCPAddr).IP.To4() == nil {
		gw = guest.Gateway6
	}
	g := guest.NewTCP(r.Guest, r.tcp, gw, 40000, r.port())
	r.wrapSoon(g)
	return g
}

// wrapSoon moves the clock, if there is no flow yet, to where the first sequence
// number of g's flow is one just before they wrap.
func (r *rig) wrapSoon(g *guest.TCP) {
	if r.tcp.Len() > 0 {
		return
	}
	key := flow.Key{Guest: g.Addr, Remote: g.Remote, GuestPort: g.Port, RemotePort: g.RemotePort, Proto: wire.ProtoTCP}
	r.Env.Now += int64(uint32(1<<32-3000)-r.tcp.initialSeq(&key)) * 4000
}

// open makes a connection and returns both ends.
func (r *rig) open() (*guest.TCP, *net.TCPConn) {
	r.t.Helper()
	c := r.dial()
	c.Connect()
	host, err := r.ln.AcceptTCP()
	if err != nil {
		r.t.Fatal(err)
	}
	host.SetDeadline(time.Now().Add(guest.Patience))
	r.t.Cleanup(func() { host.Close() })
	return c, host
}

// conn is the translator's record of the only flow.
func (r *rig) conn() *conn {
	r.t.Helper()
	if r.tcp.Len() != 1 {
		r.t.Fatalf("%d flows, want 1", r.tcp.Len())
	}
	return &r.tcp.conns[0]
}

type ringFrame = ring.Frame

// token is what the only flow's socket is watched with.
func (r *rig) token() flow.Token {
	return flow.NewToken(flow.KindTCP, r.tcp.table.Gen(0), 0)
}

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

func pattern(n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func bothFamilies(t *testing.T, fn func(t *testing.T, v6 bool)) {
	t.Run("v4", func(t *testing.T) { fn(t, false) })
	t.Run("v6", func(t *testing.T) { fn(t, true) })
}

func TestGuestToHost(t *testing.T) {
	bothFamilies(t, func(t *testing.T, v6 bool) {
		r := newRig(t, v6, Config{})
		c, host := r.open()
		want := pattern(60_000)
		c.Send(wire.PSH, want)
		c.Until(func() bool { return len(c.Got) > 0 })
		s := c.Next()
		if s.TCP.Ack() != c.Seq || s.Flags() != wire.ACK {
			t.Fatalf("ack %d flags %#x, want %d and ACK", s.TCP.Ack(), s.Flags(), c.Seq)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(host, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("host got something else: %v", err)
		}
	})
}

func TestHostToGuest(t *testing.T) {
	bothFamilies(t, func(t *testing.T, v6 bool) {
		for _, noOff := range []bool{false, true} {
			r := newRig(t, v6, Config{NoPeekOff: noOff})
			c, host := r.open()
			want := pattern(1 << 20)
			go func() {
				host.Write(want)
				host.CloseWrite()
			}()
			got := receive(t, c, len(want))
			if !bytes.Equal(got, want) {
				t.Fatal("guest got something else")
			}
		}
	})
}

// receive plays a guest that acknowledges everything, until n octets and the
// FIN have come.
func receive(t *testing.T, c *guest.TCP, n int) []byte {
	t.Helper()
	var got []byte
	for {
		s := c.Next()
		if s.Seq() != c.Ack {
			t.Fatalf("seq %d, want %d", s.Seq(), c.Ack)
		}
		got = append(got, s.Data...)
		c.Ack += uint32(len(s.Data))
		if s.Has(wire.FIN) {
			c.Ack++
		}
		c.Send(0, nil)
		if s.Has(wire.FIN) {
			break
		}
	}
	if len(got) != n {
		t.Fatalf("%d octets before the FIN, want %d", len(got), n)
	}
	return got
}

// TestScriptsWrap: the rig keeps its promise, so that every script crosses the
// wrap of both sequence numbers.
func TestScriptsWrap(t *testing.T) {
	r := newRig(t, false, Config{})
	g, _ := r.open()
	if g.Seq != 1<<32-2999 || g.Ack != 1<<32-2999 {
		t.Errorf("guest at %d, translator at %d", g.Seq, g.Ack)
	}
}
