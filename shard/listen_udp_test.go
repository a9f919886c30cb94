package shard_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"penne/internal/fwd"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard"
	"penne/shard/flow"
	"penne/tap"
	"penne/tap/tun"
	"penne/tap/tun/tuntest"
)

// onHost runs fn outside the namespace that the test's thread is in.
func onHost(fn func()) {
	done := make(chan struct{})
	go func() { defer close(done); fn() }()
	<-done
}

// twoShards is a group of two shards in a namespace of its own, where the
// test's thread is.
func twoShards(t *testing.T) *shard.Group {
	t.Helper()
	tuntest.Enter(t)
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	dev, err := tun.Open(tun.Options{Name: "eth0", Queues: 2})
	if err != nil {
		t.Fatal(err)
	}
	sockets := make(chan int, 128)
	for range cap(sockets) {
		fd, errno := sys.Socket(sys.AF_INET, sys.SOCK_DGRAM, 0)
		if errno != 0 {
			t.Fatal(errno)
		}
		sockets <- fd
	}
	g, err := shard.NewGroup(shard.Config{
		Ports: []tap.Port{dev.Queue(0), dev.Queue(1)}, Rules: &fwd.Rules{}, Guest: &fwd.Guest{}, Seed: flow.NewSeed(), Flows: 256,
		Bypass: shard.Bypass{ToLoopback: true, Socket: func(bool, uint8) (int, sys.Errno) { return <-sockets, 0 }},
		Failed: func(err error) { t.Error(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	g.Start()
	t.Cleanup(g.Close)
	return g
}

// TestDatagramsBypassTheTap has two shards and four ports each way, with peers
// and services on both loopbacks, and requires that no frame is needed. It is
// traffic all the same, whose octets count.
func TestDatagramsBypassTheTap(t *testing.T) {
	g := twoShards(t)
	octets := 0
	for i := range 4 {
		for _, inside := range []bool{false, true} {
			octets += exchange(t, g, inside, i)
		}
	}
	if c := total(g); c.SplicedBytes != uint64(octets) {
		t.Errorf("%d octets past the tap, want %d", c.SplicedBytes, octets)
	}
	if c := total(g); c.TapTxFrames != 0 || c.Spliced != 8 {
		t.Errorf("%d frames to the guest, %d flows past the tap", c.TapTxFrames, c.Spliced)
	}
}

// exchange has a peer, inside or on the host, talk to an echo server on the
// other side, and returns how much was said.
func exchange(t *testing.T, g *shard.Group, inside bool, i int) (octets int) {
	here, there := onHost, func(fn func()) { fn() }
	if inside {
		here, there = there, here
	}
	var server net.PacketConn
	there(func() { server, _ = net.ListenPacket("udp4", fmt.Sprintf("127.0.0.1:%d", 21100+i)) })
	var at int
	var peer net.Conn
	here(func() {
		at = boundSocket(t)
		peer, _ = net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", portOf(at)))
	})
	defer server.Close()
	defer peer.Close()
	l := &shard.Listener{FD: at, Proto: wire.ProtoUDP, Inside: inside, Target: uint16(21100 + i)}
	slots := g.Listen([]*shard.Listener{l})
	g.Stats() // a round trip to every shard: they have taken it over
	b := make([]byte, 2000)
	active := int64(0)
	for n := range 100 {
		fmt.Fprintf(peer, "%d %*s", n, n, "")
		m, from, err := server.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		server.WriteTo(b[:m], from)
		if m, err = peer.Read(b); err != nil || string(b[:m]) != fmt.Sprintf("%d %*s", n, n, "") {
			t.Fatalf("echo %q, %v", b[:m], err)
		}
		octets += 2 * m
		switch n {
		case 97:
			g.Stats() // a round trip again: the pass has ended
			active = g.LastActive()
		case 98:
			g.Stats()
			if g.LastActive() == active {
				t.Error("datagrams of a flow are no activity")
			}
		}
	}
	g.Unlisten(slots)
	sys.Close(at)
	return octets
}

func boundSocket(t *testing.T) int {
	fd, err := sys.Listener(sys.ListenOptions{Addr: netip.MustParseAddr("127.0.0.1").As16(), V4: true, Datagram: true})
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func portOf(fd int) uint16 {
	var sa sys.Sockaddr
	sys.Sockname(fd, &sa)
	_, port, _, _ := sa.Inet()
	return port
}
