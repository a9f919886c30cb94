package shard_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strconv"
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
// that they are handed over and nothing is lost: TCP and UDP of both families,
// in flows that the guest begins and in those that come in by a port.
func TestMisSteeredFramesReachTheirFlow(t *testing.T) {
	for _, network := range []string{"tcp4", "udp4", "tcp6", "udp6"} {
		for _, way := range []string{"out", "in"} {
			t.Run(network+" "+way, func(t *testing.T) {
				tuntest.Enter(t)
				g := echoGroup(t, 2, true)
				f, client, addr := families[network[3:]], inside, ""
				if way == "out" {
					addr = at(f.gateway, echoServer(t, onHost, network, f.loopback))
				} else {
					client, addr = onHost, publish(t, g, network, echoServer(t, inside, network, f.guest))
				}
				var conns []net.Conn
				for range 8 {
					conns = append(conns, dial(t, client, network, addr))
				}
				if network[:3] == "tcp" {
					talkTCP(t, conns)
				} else {
					talkUDP(t, conns)
				}
				nothingLost(t, g)
			})
		}
	}
}

// nothingLost requires that frames were handed over, that all of them arrived,
// and that none was dropped.
func nothingLost(t *testing.T, g *shard.Group) {
	t.Helper()
	sum := total(g)
	total(g) // so that each shard has looked at its rings since the first
	if out, in := sum.HandedOut, total(g).HandedIn; out == 0 || in < out {
		t.Errorf("%d frames were handed over, %d arrived", out, in)
	}
	for r, n := range sum.Drops {
		if why := stats.Reason(r); n > 0 && !harmless[why] {
			t.Errorf("%d drops: %s", n, why)
		}
	}
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

// families are the addresses that echoGroup gives out, and the host's loopback,
// by the last character of a network's name.
var families = map[string]struct{ guest, gateway, loopback string }{
	"4": {"192.0.2.5", "192.0.2.1", "127.0.0.1"},
	"6": {"2001:db8::5", "2001:db8::1", "::1"},
}

// inside is the counterpart of onHost.
func inside(fn func()) { fn() }

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
	mac, guest := wire.MAC{2, 0, 0, 0, 0, 7}, &fwd.Guest{}
	guest.SawMAC(&mac)
	r := &fwd.Rules{OurMAC: wire.MAC{0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55}, MTU: 65520, V4: rulesOf("4", 24), V6: rulesOf("6", 64)}
	tuntest.SetUp(t, "eth0", mac, netip.PrefixFrom(r.V4.Guest.Netip(), 24), netip.PrefixFrom(r.V6.Guest.Netip(), 64))
	g, err := shard.NewGroup(shard.Config{
		Ports: ports, Rules: r, Guest: guest, Seed: flow.NewSeed(), Flows: 1024, Bypass: shard.Bypass{Off: true},
		Failed: func(err error) { t.Error(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	was := runtime.GOMAXPROCS(queues + 2) // as the engine does: shards wait in raw calls
	t.Cleanup(func() { runtime.GOMAXPROCS(was) })
	g.Start()
	t.Cleanup(g.Close)
	return g
}

func rulesOf(family string, bits uint8) fwd.Family {
	f := families[family]
	guest, gateway := wire.AddrFrom(netip.MustParseAddr(f.guest)), wire.AddrFrom(netip.MustParseAddr(f.gateway))
	return fwd.Family{On: true, Guest: guest, Bits: bits, HostLoopback: gateway, Ours: gateway}
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

// echoServer serves on one side at ip, allocating nothing for a message, and
// returns its port.
func echoServer(t *testing.T, on func(func()), network, ip string) (port int) {
	t.Helper()
	var l net.Listener
	var p net.PacketConn
	var err error
	if network[:3] == "tcp" {
		on(func() { l, err = net.Listen(network, at(ip, 0)) })
	} else {
		on(func() { p, err = net.ListenPacket(network, at(ip, 0)) })
	}
	if err != nil {
		t.Fatal(err)
	}
	if p != nil {
		t.Cleanup(func() { p.Close() })
		go echoDatagrams(p.(*net.UDPConn))
		return p.LocalAddr().(*net.UDPAddr).Port
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			go echo(c)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func echoDatagrams(p *net.UDPConn) {
	b := make([]byte, 65536)
	for {
		n, from, err := p.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		p.WriteToUDPAddrPort(b[:n], from)
	}
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

// publish forwards a port of the host's loopback to port inside, and returns
// where it is.
func publish(t *testing.T, g *shard.Group, network string, port int) (addr string) {
	t.Helper()
	proto := uint8(wire.ProtoTCP)
	if network[:3] == "udp" {
		proto = wire.ProtoUDP
	}
	ip := families[network[3:]].loopback
	fd, own := hostSocket(t, proto, ip)
	slots := listenOnHost(g, &shard.Listener{FD: fd, Proto: proto, Target: uint16(port)})
	g.Stats() // a round trip to every shard: they have taken it over
	t.Cleanup(func() {
		g.Unlisten(slots)
		sys.Close(fd)
	})
	return at(ip, own)
}

func at(ip string, port int) string { return net.JoinHostPort(ip, strconv.Itoa(port)) }

// dial connects from one side to addr.
func dial(t *testing.T, on func(func()), network, addr string) (c net.Conn) {
	t.Helper()
	var err error
	on(func() { c, err = net.Dial(network, addr) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(tuntest.Patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// talkTCP has the connections at once echo some megabytes each.
func talkTCP(t *testing.T, conns []net.Conn) {
	var wg sync.WaitGroup
	for _, c := range conns {
		sent := make([]byte, 4<<20)
		rand.Read(sent)
		wg.Go(func() {
			c.Write(sent)
			c.(*net.TCPConn).CloseWrite()
		})
		wg.Go(func() {
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
func talkUDP(t *testing.T, conns []net.Conn) {
	b := make([]byte, 2000)
	for round := range 300 {
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
