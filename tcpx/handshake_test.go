package tcpx

import (
	"errors"
	"io"
	"syscall"
	"testing"
	"time"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
	"penne/test/guest"
)

func TestSynAckOptions(t *testing.T) {
	for _, c := range []struct {
		mss   uint16
		scale int
		sack  bool
	}{{1460, 7, true}, {0, -1, false}, {65495, 14, false}, {536, -1, true}} {
		r := newRig(t, false, Config{})
		g := r.dial()
		g.MSS, g.Scale, g.SACK = c.mss, c.scale, c.sack
		s := g.Connect()
		o := s.Opts
		if o.MSS != 65480 || o.HasWS != (c.scale >= 0) || o.SACKOK != c.sack || o.HasTS {
			t.Errorf("%+v: answered %+v", c, o)
		}
		if o.HasWS && o.WScale != ourScale {
			t.Errorf("scale %d", o.WScale)
		}
		if s.Window() == 0 {
			t.Error("no window in the SYN-ACK")
		}
		if got := r.conn().phase(); got != "ESTABLISHED" {
			t.Error(got)
		}
	}
}

// TestNoScaling: a guest without window scale gets windows it can read, and its
// own is not shifted.
func TestNoScaling(t *testing.T) {
	r := newRig(t, false, Config{})
	g := r.dial()
	g.Scale, g.Win = -1, 1000
	g.Connect()
	host, err := r.ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	host.Write(pattern(5000))
	s := g.Next()
	if len(s.Data) != 1000 {
		t.Errorf("%d octets into a window of 1000", len(s.Data))
	}
	g.Send(0, pattern(1400))
	g.Until(func() bool { return len(g.Got) > 0 })
	if w := g.Next().Window(); int(w) < 30000 {
		t.Errorf("window %d", w)
	}
}

func TestRefusedPort(t *testing.T) {
	bothFamilies(t, func(t *testing.T, v6 bool) {
		r := newRig(t, v6, Config{})
		g := r.dial()
		r.ln.Close()
		g.SYN()
		s := g.Next()
		if s.Flags() != wire.RST|wire.ACK || s.Seq() != 0 || s.TCP.Ack() != g.Seq {
			t.Errorf("flags %#x seq %d ack %d", s.Flags(), s.Seq(), s.TCP.Ack())
		}
		if r.tcp.Len() != 0 {
			t.Error("flow stays")
		}
	})
}

// TestConnectErrors looks at the answers to errors of connect that a test
// cannot provoke without a namespace; a kernel reads them in test/guest.
func TestConnectErrors(t *testing.T) {
	bothFamilies(t, func(t *testing.T, v6 bool) {
		codes := map[syscall.Errno][2]int{ // for IPv4 and IPv6; -1: RST
			syscall.ENETUNREACH: {0, 0}, syscall.EHOSTUNREACH: {1, 3}, syscall.EACCES: {-1, 1},
			syscall.ECONNRESET: {-1, -1}, syscall.EADDRNOTAVAIL: {-1, -1}, syscall.EMFILE: {-1, -1},
		}
		for errno, code := range codes {
			r := newRig(t, v6, Config{})
			g := r.dial()
			g.SYN()
			r.tcp.cannotConnect(r.conn(), errno)
			g.Pass()
			want := code[0]
			if v6 {
				want = code[1]
			}
			if want < 0 {
				if s := g.Next(); !s.Has(wire.RST) {
					t.Errorf("%v: flags %#x", errno, s.Flags())
				}
				continue
			}
			if len(g.Other) != 1 {
				t.Fatalf("%v: %d ICMP messages", errno, len(g.Other))
			}
			checkUnreachable(t, g, &g.Other[0], want)
		}
	})
}

func checkUnreachable(t *testing.T, g *guest.TCP, o *guest.Out, code int) {
	t.Helper()
	b := o.Bytes[o.H.L4:]
	if int(b[1]) != code {
		t.Errorf("code %d, want %d", b[1], code)
	}
	// The quote is an IP packet of ours to the remote: read it as a frame.
	q := append(append([]byte{}, o.Bytes[:wire.EthLen]...), b[wire.ICMPLen:]...)
	var h wire.Headers
	if v := wire.Parse(q, &h); v != wire.OK || h.Src != g.Addr || h.Dst != g.Remote || h.SrcPort != g.Port || h.DstPort != g.RemotePort {
		t.Errorf("quote: verdict %d %+v", v, h)
	}
	if s := wire.TCP(q[h.L4:]); s.Seq() != g.Seq-1 || s.Flags() != wire.SYN {
		t.Errorf("quoted segment: seq %d flags %#x", s.Seq(), s.Flags())
	}
}

func TestConnectTimesOut(t *testing.T) {
	r := newRig(t, false, Config{})
	g := r.dial()
	g.SYN()
	r.tcp.cannotConnect(r.conn(), syscall.ETIMEDOUT)
	g.None()
	if r.tcp.Len() != 0 {
		t.Error("flow stays")
	}
}

func TestSynRepeated(t *testing.T) {
	r := newRig(t, false, Config{})
	g := r.dial()
	g.SYN()
	g.Seq--
	g.SYN() // while connecting: absorbed
	first := g.Next()
	g.None()
	g.Seq--
	g.SYN() // our SYN-ACK got lost
	again := g.Next()
	if again.Flags() != wire.SYN|wire.ACK || again.Seq() != first.Seq() || r.tcp.Len() != 1 {
		t.Errorf("answer to the repeated SYN: flags %#x seq %d", again.Flags(), again.Seq())
	}
}

func TestSynAckRepeatedByTimer(t *testing.T) {
	r := newRig(t, false, Config{})
	g := r.dial()
	g.SYN()
	first := g.Next()
	for i := range maxSYNTries {
		r.Advance(time.Duration(rto(uint8(i))) - 200*time.Millisecond)
		g.None()
		r.Advance(250 * time.Millisecond)
		g.Pass()
		if len(g.Got) != 1 || g.Got[0].Flags() != wire.SYN|wire.ACK || g.Got[0].Seq() != first.Seq() {
			t.Fatalf("repetition %d: %d segments", i, len(g.Got))
		}
		g.Got = nil
	}
	host, err := r.ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	r.Advance(2 * time.Minute)
	g.Pass()
	if r.tcp.Len() != 0 {
		t.Error("flow stays")
	}
	if _, err := host.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("host read %v", err)
	}
}

func TestNewSynWhileConnecting(t *testing.T) {
	r := newRig(t, false, Config{})
	g := r.dial()
	g.SYN()
	g.Seq += 5000
	g.SYN()
	s := g.Next()
	if s.Flags() != wire.SYN|wire.ACK || s.TCP.Ack() != g.Seq || r.tcp.Len() != 1 {
		t.Errorf("flags %#x ack %d, want %d", s.Flags(), s.TCP.Ack(), g.Seq)
	}
}

func TestResetWhileConnecting(t *testing.T) {
	r := newRig(t, false, Config{})
	g := r.dial()
	g.SYN()
	g.Raw(wire.RST, g.Seq+1, 0, nil, nil)
	if r.tcp.Len() != 1 {
		t.Error("a RST elsewhere counts")
	}
	g.Raw(wire.RST, g.Seq, 0, nil, nil)
	if r.tcp.Len() != 0 {
		t.Error("flow stays")
	}
	g.None()
}

func TestSynRcvdSegments(t *testing.T) {
	r := newRig(t, false, Config{})
	g := r.dial()
	g.SYN()
	s := g.Next()
	g.Raw(wire.ACK, g.Seq, s.Seq()+2, nil, nil) // acknowledges what was not sent
	if got := g.Next(); got.Flags() != wire.RST || got.Seq() != s.Seq()+2 {
		t.Errorf("flags %#x seq %d", got.Flags(), got.Seq())
	}
	g.Raw(wire.ACK, g.Seq-100, s.Seq()+1, nil, nil) // out of window
	if got := g.Next(); got.Flags() != wire.ACK {
		t.Errorf("flags %#x", got.Flags())
	}
	g.Raw(wire.SYN, g.Seq+1, 0, nil, nil)
	if got := g.Next(); got.Flags() != wire.ACK {
		t.Errorf("SYN in the window: flags %#x", got.Flags())
	}
	g.Raw(0, g.Seq, 0, nil, pattern(10))
	g.None()
	if r.conn().phase() != "SYN-RECEIVED" {
		t.Error(r.conn().phase())
	}
	// Data with the acknowledgment that opens.
	g.Ack = s.Seq() + 1
	g.Send(0, []byte("hello"))
	g.Pass()
	if r.conn().phase() != "ESTABLISHED" {
		t.Error(r.conn().phase())
	}
	host, err := r.ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	b := make([]byte, 5)
	if _, err := io.ReadFull(host, b); err != nil || string(b) != "hello" {
		t.Errorf("%q %v", b, err)
	}
}

func TestTableFull(t *testing.T) {
	r := newRig(t, false, Config{Flows: 2})
	var gs []*guest.TCP
	for i := range 3 {
		g := guest.NewTCP(r.Guest, r.tcp, guest.Gateway4, uint16(40000+i), r.port())
		gs = append(gs, g)
	}
	gs[0].Connect()
	gs[1].Connect()
	gs[2].SYN()
	if s := gs[2].Next(); !s.Has(wire.RST) || s.TCP.Ack() != gs[2].Seq {
		t.Errorf("flags %#x", s.Flags())
	}
	if r.Env.Count.Drops[stats.TableFull] != 1 {
		t.Error("not counted")
	}
	gs[0].Send(wire.RST, nil)
	gs[2].Connect()
}

// TestSynFlood fills the table with half-open flows and lets them go.
func TestSynFlood(t *testing.T) {
	r := newRig(t, false, Config{Flows: 64})
	g := r.dial()
	for i := range 200 {
		g.Port = uint16(1000 + i)
		g.SYN()
	}
	if r.tcp.Len() != 64 || r.Env.Count.Drops[stats.TableFull] != 136 {
		t.Errorf("%d flows, %d refused", r.tcp.Len(), r.Env.Count.Drops[stats.TableFull])
	}
	answered := func() (n uint64) {
		for i := range r.tcp.conns {
			if r.tcp.conns[i].state == synRcvd {
				n++
			}
		}
		return n
	}
	g.Until(func() bool { return answered() == 64 })
	for range maxSYNTries + 1 {
		r.Advance(2 * time.Minute)
		g.Pass()
	}
	if r.tcp.Len() != 0 {
		t.Errorf("%d flows stay", r.tcp.Len())
	}
}

func TestNoSocket(t *testing.T) {
	r := newRig(t, false, Config{})
	g := r.dial()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	low := old
	low.Cur = 3
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	g.SYN()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if s := g.Next(); !s.Has(wire.RST) {
		t.Errorf("flags %#x", s.Flags())
	}
	if r.Env.Count.Drops[stats.NoSocket] != 1 || r.tcp.Len() != 0 {
		t.Errorf("counted %d, %d flows", r.Env.Count.Drops[stats.NoSocket], r.tcp.Len())
	}
	g.Connect() // and it recovers
}

func TestStrangers(t *testing.T) {
	r := newRig(t, false, Config{})
	g := r.dial()
	g.Raw(wire.ACK, 500, 700, nil, pattern(10))
	if s := g.Next(); s.Flags() != wire.RST || s.Seq() != 700 {
		t.Errorf("to an ACK: flags %#x seq %d", s.Flags(), s.Seq())
	}
	g.Raw(wire.FIN, 500, 0, nil, pattern(10))
	if s := g.Next(); s.Flags() != wire.RST|wire.ACK || s.Seq() != 0 || s.TCP.Ack() != 511 {
		t.Errorf("to a FIN: flags %#x ack %d", s.Flags(), s.TCP.Ack())
	}
	g.Raw(wire.SYN|wire.FIN, 500, 0, nil, nil)
	if s := g.Next(); s.Flags() != wire.RST|wire.ACK || s.TCP.Ack() != 502 {
		t.Errorf("to SYN and FIN: flags %#x ack %d", s.Flags(), s.TCP.Ack())
	}
	g.Raw(wire.RST|wire.ACK, 500, 700, nil, nil)
	g.Raw(wire.RST, 500, 0, nil, nil)
	g.None()
	if r.Env.Count.Drops[stats.NoFlow] != 3 || r.tcp.Len() != 0 {
		t.Errorf("%d counted, %d flows", r.Env.Count.Drops[stats.NoFlow], r.tcp.Len())
	}
}

func TestBadEnds(t *testing.T) {
	r := newRig(t, false, Config{})
	for _, src := range []string{"127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"} {
		g := r.dial()
		g.Addr = wire.AddrFrom(mustAddr(src))
		g.SYN()
		g.Raw(wire.ACK, 1, 1, nil, nil)
		g.None()
		if len(g.Other) > 0 || r.tcp.Len() != 0 {
			t.Errorf("%s: answered", src)
		}
	}
	// RFC 9293 section 3.9.2.3: not even with a RST.
	dsts := []string{"127.0.0.1", "224.0.0.1", "0.0.0.0", "255.255.255.255"}
	for _, dst := range dsts {
		g := r.dial()
		g.Remote = wire.AddrFrom(mustAddr(dst))
		g.SYN()
		g.Raw(wire.ACK, 1, 1, nil, nil)
		g.None()
		if len(g.Other) > 0 || r.tcp.Len() != 0 {
			t.Errorf("%s: answered", dst)
		}
	}
	g := r.dial() // the broadcast address of a network that we do not know
	b := g.Frame(wire.SYN, 1, 0, nil, nil)
	copy(b, wire.Broadcast[:])
	r.tcp.Input([]*ringFrame{r.Frame(b, ring.Offload{})})
	g.None()
	if r.tcp.Len() != 0 {
		t.Error("a connection to a broadcast address")
	}
	if n := r.Env.Count.Drops[stats.BadDest]; n != uint64(2*len(dsts)+1) {
		t.Errorf("%d bad destinations counted", n)
	}
}

// TestClaims: with several shards, a flow of another one is handed on, and a
// claim ends with its flow.
func TestClaims(t *testing.T) {
	r := newRig(t, false, Config{})
	r.Env.Directory = flow.NewDirectory(64)
	handed := 0
	r.Env.HandOff = func(f *ringFrame, owner uint8) {
		if owner != 3 {
			t.Errorf("handed to %d", owner)
		}
		handed++
		r.Env.Pool.Put(f)
	}
	g := r.dial()
	key := flow.Key{Guest: g.Addr, Remote: g.Remote, GuestPort: g.Port, RemotePort: g.RemotePort, Proto: wire.ProtoTCP}
	hash := r.tcp.table.Hash(&key)
	r.Env.Directory.Claim(hash, 3)
	g.SYN()
	g.Raw(wire.ACK, 1, 1, nil, nil)
	g.None()
	if handed != 2 || r.tcp.Len() != 0 {
		t.Errorf("%d handed on, %d flows", handed, r.tcp.Len())
	}
	r.Env.Directory.Release(hash, 3)
	g.Seq--
	g.Connect()
	if owner, ok := r.Env.Directory.Owner(hash); !ok || owner != r.Env.Shard {
		t.Error("not claimed")
	}
	g.Send(wire.RST, nil)
	if _, ok := r.Env.Directory.Owner(hash); ok {
		t.Error("claim stays")
	}
}

func TestInitialSequenceNumbers(t *testing.T) {
	r := newRig(t, false, Config{})
	a := flow.Key{GuestPort: 1}
	b := flow.Key{GuestPort: 2}
	x := r.tcp.initialSeq(&a)
	if x == r.tcp.initialSeq(&b) {
		t.Error("the same for two connections")
	}
	r.Advance(time.Second)
	if d := r.tcp.initialSeq(&a) - x; d < 249_000 || d > 251_000 {
		t.Errorf("clock moved by %d in a second, want 250000", d)
	}
}

// TestBindSource: outbound sockets get the source that the options ask for;
// those to loopback do not.
func TestBindSource(t *testing.T) {
	r := newRig(t, false, Config{})
	r.Env.Rules.V4.Bind = wire.AddrFrom(mustAddr("127.0.0.9"))
	for dst, want := range map[string]string{"192.0.2.1": "127.0.0.9", "127.0.0.1": "0.0.0.0"} {
		fd, errno := sys.Socket(sys.AF_INET, sys.SOCK_STREAM, sys.IPPROTO_TCP)
		if errno != 0 {
			t.Fatal(errno)
		}
		to := wire.AddrFrom(mustAddr(dst))
		if errno := r.tcp.env.BindSource(fd, &to); errno != 0 {
			t.Error(errno)
		}
		var sa sys.Sockaddr
		sys.Sockname(fd, &sa)
		if ip, _, _, _ := sa.Inet(); wire.Addr(ip).String() != want {
			t.Errorf("to %s from %s, want %s", dst, wire.Addr(ip), want)
		}
		sys.Close(fd)
	}
	r.Env.Rules.V4.BindIf = "no-such-device"
	to := wire.AddrFrom(mustAddr("192.0.2.1"))
	fd, _ := sys.Socket(sys.AF_INET, sys.SOCK_STREAM, sys.IPPROTO_TCP)
	if r.tcp.env.BindSource(fd, &to) == 0 {
		t.Error("bound to a device that is not there")
	}
	sys.Close(fd)
}

// TestMangledSYN: options that run past the header are counted; what came
// before them stands.
func TestMangledSYN(t *testing.T) {
	r := newRig(t, false, Config{})
	g := r.dial()
	g.Raw(wire.SYN, g.Seq, 0, []byte{wire.OptMSS, 4, 2, 0, wire.OptWScale, 200, 1, 1}, nil)
	g.Seq++
	if s := g.Next(); s.Flags() != wire.SYN|wire.ACK || s.Opts.HasWS {
		t.Errorf("flags %#x %+v", s.Flags(), s.Opts)
	}
	if r.Env.Count.Drops[stats.BadOption] != 1 || r.conn().mss != 512 {
		t.Errorf("counted %d, MSS %d", r.Env.Count.Drops[stats.BadOption], r.conn().mss)
	}
}

func TestPortZero(t *testing.T) {
	r := newRig(t, false, Config{})
	g := r.dial()
	g.RemotePort = 0
	g.SYN()
	if s := g.Next(); !s.Has(wire.RST) {
		t.Errorf("flags %#x", s.Flags())
	}
	g.RemotePort, g.Port = 80, 0
	g.SYN()
	g.None()
}
