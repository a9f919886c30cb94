package e2e

import (
	"io"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"testing"

	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard"
	"penne/shard/flow"
	"penne/tap"
	"penne/tap/tun"
	"penne/tap/tun/tuntest"
)

// TestSteadyStateAllocatesNothing runs the shards in this process, with the kernel as guest, and counts what all
// goroutines allocate while TCP and UDP echoes cross the whole path: with one queue, with two, and with frames at
// random queues, most of which are handed over. What the methods of single packages allocate has tests there.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	for _, c := range []struct {
		name   string
		queues int
		random bool
	}{{"one queue", 1, false}, {"two queues", 2, false}, {"hand-off", 2, true}} {
		t.Run(c.name, func(t *testing.T) {
			tcp, udp := echoOnLoopback(t) // these stay out of the namespace
			tuntest.Enter(t)
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(c.queues + 2)) // as the engine does: shards wait in raw calls
			g := shards(t, c.queues, c.random)
			defer g.Close()
			const flows, warm, rounds = 4, 50, 200
			talk := newEchoes(t, flows, tcp, udp)
			talk.rounds(t, warm)
			defer debug.SetGCPercent(debug.SetGCPercent(-1))
			before, objects := handed(g), mallocs()
			talk.rounds(t, rounds)
			objects = mallocs() - objects
			// The runtime allocates a little by itself, such as threads.
			if objects > rounds/5 {
				t.Errorf("%d objects allocated in %d rounds of %d packets", objects, rounds, 4*flows)
			}
			if n := handed(g) - before; c.random && n < rounds {
				t.Errorf("%d frames handed over in %d rounds", n, rounds)
			}
		})
	}
}

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

func handed(g *shard.Group) uint64 {
	var sum stats.Counters
	for _, c := range g.Stats() {
		sum.Add(&c)
	}
	return sum.HandedOut
}

// randomly is a steering program that returns queue 0 or 1 at random: call bpf_get_prandom_u32; r0 &= 1; exit.
var randomly = []uint64{7<<32 | 0x85, 1<<32 | 0x57, 0x95}

// The addresses of the shards' guest, and of the loopback's map inside.
var (
	innerIP   = netip.MustParseAddr("192.0.2.5")
	innerHost = netip.MustParseAddr("192.0.2.1")
)

// shards starts a Group for a tap in the namespace of this thread.
func shards(t *testing.T, queues int, random bool) *shard.Group {
	t.Helper()
	dev, err := tun.Open(tun.Options{Name: "eth0", Queues: queues})
	if err != nil {
		t.Fatal(err)
	}
	if dev.Queues() != queues {
		t.Skip("this kernel's tap has no second queue")
	}
	if random {
		prog, err := sys.LoadSocketFilter("random_queue", randomly)
		if err != nil {
			t.Skipf("no steering program without CAP_BPF: %v", err)
		}
		defer sys.Close(prog)
		if err := sys.TunSetSteering(dev.Queue(0).FD(), prog); err != nil {
			t.Fatal(err)
		}
	}
	ports := make([]tap.Port, queues)
	for i := range ports {
		ports[i] = dev.Queue(i)
	}
	mac := wire.MAC{2, 0, 0, 0, 0, 7}
	tuntest.SetUp(t, "eth0", mac, netip.PrefixFrom(innerIP, 24))
	r := &fwd.Rules{OurMAC: wire.MAC{0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55}, MTU: 65520}
	host := wire.AddrFrom(innerHost)
	r.V4 = fwd.Family{On: true, Guest: wire.AddrFrom(innerIP), Bits: 24, HostLoopback: host, Ours: host}
	g, err := shard.NewGroup(shard.Config{
		Ports: ports, Rules: r, Guest: &fwd.Guest{}, Seed: flow.NewSeed(), Flows: 1024,
		Failed: func(err error) { t.Error(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	g.Start()
	return g
}

// echoOnLoopback serves TCP and UDP echoes without allocating for each, and returns the ports.
func echoOnLoopback(t *testing.T) (tcp, udp uint16) {
	t.Helper()
	loopback := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 0)
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); p.Close() })
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			go echo(c)
		}
	}()
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := p.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			p.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort().Port(), p.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

func echo(c net.Conn) {
	defer c.Close()
	b := make([]byte, 2048)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		c.Write(b[:n])
	}
}

// echoes are clients inside, which allocate nothing in a round.
type echoes struct {
	conns []net.Conn
	in    []byte
}

func newEchoes(t *testing.T, flows int, tcp, udp uint16) *echoes {
	t.Helper()
	e := &echoes{in: make([]byte, 2048)}
	for range flows {
		for network, port := range map[string]uint16{"tcp4": tcp, "udp4": udp} {
			c, err := net.Dial(network, netip.AddrPortFrom(innerHost, port).String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			e.conns = append(e.conns, c)
		}
	}
	return e
}

// rounds sends a message on each connection and waits for its echo, n times.
func (e *echoes) rounds(t *testing.T, n int) {
	t.Helper()
	out := make([]byte, 1000)
	for range n {
		for _, c := range e.conns {
			if _, err := c.Write(out); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range e.conns {
			if _, err := io.ReadFull(c, e.in[:len(out)]); err != nil {
				t.Fatal(err)
			}
		}
	}
}
