package shard_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

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

// randomQueue is a steering program that returns a random queue, 0 or 1, for
// each frame: call bpf_get_prandom_u32; r0 &= 1; exit.
var randomQueue = []uint64{7<<32 | 0x85, 1<<32 | 0x57, 0x95}

// TestMisSteeredFramesReachTheirFlow lets the kernel deliver every frame to a
// random queue, so that half of them come in at the wrong shard, and requires
// that nothing is lost, TCP and UDP, in both directions.
func TestMisSteeredFramesReachTheirFlow(t *testing.T) {
	tcp, udp := echoServers(t) // on the host: these threads are not in the namespace
	tuntest.Enter(t)
	g := echoGroup(t, 2, true)
	run := func(proto string, talk func(t *testing.T)) {
		before := total(g)
		talk(t)
		after := total(g)
		if n := after.HandedOut - before.HandedOut; n == 0 {
			t.Errorf("%s: no frame was handed over", proto)
		}
		for r := range stats.NumReasons {
			if n := after.Drops[r] - before.Drops[r]; n > 0 && !harmless[r] {
				t.Errorf("%s: %d drops: %s", proto, n, r)
			}
		}
	}
	run("TCP", func(t *testing.T) { talkTCP(t, tcp) })
	run("UDP", func(t *testing.T) { talkUDP(t, udp) })
}

// harmless are drops that lose nothing: the kernel's own chatter (IPv6, IGMP,
// multicast), and a bare ACK that was overtaken by the one that ended its flow.
var harmless = map[stats.Reason]bool{
	stats.UnknownProto: true, stats.BadDest: true, stats.Unanswered: true, stats.FamilyOff: true, stats.NoFlow: true,
}

func total(g *shard.Group) (sum stats.Counters) {
	for _, c := range g.Stats() {
		sum.Add(&c)
	}
	return sum
}

// echoGroup serves a tap in the namespace of this thread, from which the host's
// loopback is reached. Frames come in at the queue of their flow, or at random.
func echoGroup(t *testing.T, queues int, random bool) *shard.Group {
	t.Helper()
	dev, err := tun.Open(tun.Options{Name: "eth0", Queues: queues})
	if err != nil {
		t.Fatal(err)
	}
	if dev.Queues() != queues {
		t.Skip("this kernel's tap has no second queue")
	}
	var ports []tap.Port
	for i := range queues {
		ports = append(ports, dev.Queue(i))
	}
	if random {
		steerAtRandom(t, dev)
	}
	guest, gateway, mac := netip.MustParseAddr("192.0.2.5"), netip.MustParseAddr("192.0.2.1"), wire.MAC{2, 0, 0, 0, 0, 7}
	tuntest.SetUp(t, "eth0", mac, netip.PrefixFrom(guest, 24))
	r := &fwd.Rules{OurMAC: wire.MAC{0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55}, MTU: 65520}
	r.V4 = fwd.Family{On: true, Guest: wire.AddrFrom(guest), Bits: 24, HostLoopback: wire.AddrFrom(gateway), Ours: wire.AddrFrom(gateway)}
	g, err := shard.NewGroup(shard.Config{
		Ports: ports, Rules: r, Guest: &fwd.Guest{}, Seed: flow.NewSeed(), Flows: 1024,
		Failed: func(err error) { t.Error(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	g.Start()
	t.Cleanup(g.Close)
	return g
}

func steerAtRandom(t *testing.T, dev *tun.Device) {
	t.Helper()
	prog, err := sys.LoadSocketFilter("random_queue", randomQueue)
	if err != nil {
		t.Skipf("no steering program without CAP_BPF: %v", err)
	}
	defer sys.Close(prog)
	if err := sys.TunSetSteering(dev.Queue(0).FD(), prog); err != nil {
		t.Fatal(err)
	}
}

// echoServers serve on the host's loopback, allocating nothing for a message,
// and return their ports.
func echoServers(t *testing.T) (tcp, udp int) {
	t.Helper()
	loopback := netip.MustParseAddrPort("127.0.0.1:0")
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
		b := make([]byte, 65536)
		for {
			n, from, err := p.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			p.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port, p.LocalAddr().(*net.UDPAddr).Port
}

func echo(c net.Conn) {
	defer c.Close()
	for b := make([]byte, 65536); ; {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		c.Write(b[:n])
	}
}

// dial connects to a port of the host's loopback.
func dial(t *testing.T, network string, port int) net.Conn {
	t.Helper()
	c, err := net.Dial(network, fmt.Sprintf("192.0.2.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(tuntest.Patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// talkTCP runs connections at once, each echoing some megabytes. Sockets are
// made on this thread, which is in the namespace.
func talkTCP(t *testing.T, port int) {
	var wg sync.WaitGroup
	for range 8 {
		c := dial(t, "tcp4", port)
		sent := make([]byte, 4<<20)
		rand.Read(sent)
		wg.Go(func() {
			c.Write(sent)
			c.(*net.TCPConn).CloseWrite()
		})
		wg.Go(func() {
			defer c.Close()
			sum := sha256.New()
			n, err := io.Copy(sum, c)
			if want := sha256.Sum256(sent); err != nil || !bytes.Equal(sum.Sum(nil), want[:]) {
				t.Errorf("%d octets came back changed: %v", n, err)
			}
		})
	}
	wg.Wait()
}

// talkUDP sends rounds of datagrams and waits for all echoes of a round.
func talkUDP(t *testing.T, port int) {
	const flows, rounds = 8, 300
	var conns []net.Conn
	for range flows {
		c := dial(t, "udp4", port)
		defer c.Close()
		conns = append(conns, c)
	}
	b := make([]byte, 2000)
	for round := range rounds {
		for i, c := range conns {
			fmt.Fprintf(c, "%d of %d %*s", round, i, round, "")
		}
		for i, c := range conns {
			want := fmt.Sprintf("%d of %d %*s", round, i, round, "")
			if n, err := c.Read(b); err != nil || string(b[:n]) != want {
				t.Fatalf("echo %q, %v, want %q", b[:n], err, want)
			}
		}
	}
}
