package shard_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard"
	"penne/tap/tun"
	"penne/tap/tun/tuntest"
	"penne/test/guest"
)

// TestPortIsSpread has many peers ask one port: both shards serve some, each
// peer is served by one, and the port is free afterwards.
func TestPortIsSpread(t *testing.T) {
	for _, any := range []string{"127.0.0.1", "::"} {
		t.Run(any, func(t *testing.T) {
			g := twoShards(t)
			fd, port := hostSocket(t, wire.ProtoUDP, any)
			l := &shard.Listener{FD: fd, Proto: wire.ProtoUDP, Target: 21200}
			server, err := net.ListenPacket("udp4", "127.0.0.1:21200")
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			slots := listenOnHost(g, l)
			g.Stats() // a round trip to every shard: they have taken it over
			const peers = 40
			for range peers {
				onHost(func() { queries(t, port, server) })
			}
			by := g.Stats()
			if by[0].Spliced == 0 || by[1].Spliced == 0 || by[0].Spliced+by[1].Spliced != peers {
				t.Errorf("%d and %d flows of %d peers", by[0].Spliced, by[1].Spliced, peers)
			}
			g.Unlisten(slots)
			sys.Close(fd)
			onHost(func() {
				c, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
				if err != nil {
					t.Errorf("bind the port again: %v", err)
					return
				}
				c.Close()
			})
		})
	}
}

// TestBroadcastComesOnce writes datagrams into a tap, as from a link: of a broadcast the first socket of a group has
// the only copy.
func TestBroadcastComesOnce(t *testing.T) {
	tuntest.Enter(t)
	dev, err := tun.Open(tun.Options{Name: "link0", Queues: 1})
	if err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName("link0")
	if err != nil {
		t.Fatal(err)
	}
	mac := link.Attrs().HardwareAddr
	addr, _ := netlink.ParseAddr("198.51.100.2/24")
	if err := errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link)); err != nil {
		t.Fatal(err)
	}
	first, err := sys.Listener(sys.ListenOptions{V4: true, V6: true, Datagram: true})
	if err != nil {
		t.Fatal(err)
	}
	member, errno := sys.JoinReusePort(first, "")
	if errno != 0 {
		t.Fatal(errno)
	}
	defer sys.Close(first)
	defer sys.Close(member)
	arena, err := ring.NewArena(4, 0)
	if err != nil {
		t.Fatal(err)
	}
	pool := ring.NewPool(arena)
	const peers = 40
	send := func(mac net.HardwareAddr, to string) (atFirst, atTwin int) {
		for i := range peers {
			d := guest.Datagram{
				Src: wire.AddrFrom(netip.MustParseAddr("198.51.100.3")), Dst: wire.AddrFrom(netip.MustParseAddr(to)),
				SrcPort: uint16(5000 + i), DstPort: portOf(first), Payload: []byte("x"),
			}
			f := pool.Get()
			b := d.Bytes()
			copy(b, mac)
			f.SetBounds(ring.HeadRoom, copy(f.Slot()[ring.HeadRoom:], b))
			f.Offload = d.Offload()
			dev.Queue(0).Send([]*ring.Frame{f})
			pool.Put(f)
		}
		return waiting(first), waiting(member)
	}
	if a, b := send(wire.Broadcast[:], "255.255.255.255"); a != peers || b != 0 {
		t.Errorf("%d and %d of %d broadcasts", a, b, peers)
	}
	if a, b := send(wire.Broadcast[:], "198.51.100.255"); a != peers || b != 0 {
		t.Errorf("%d and %d of %d broadcasts of the network", a, b, peers)
	}
	if a, b := send(mac, "198.51.100.2"); a+b != peers || a == 0 || b == 0 {
		t.Errorf("%d and %d of %d datagrams", a, b, peers)
	}
}

// waiting takes the datagrams that wait in a socket and counts them.
func waiting(fd int) (n int) {
	row := sys.NewRecvRow(1)
	row.SetBuf(0, make([]byte, 100))
	for {
		if _, errno := row.Recv(fd, 1); errno != 0 {
			return n
		}
		n++
	}
}

// listenOnHost is Listen, called where the control thread is.
func listenOnHost(g *shard.Group, ls ...*shard.Listener) (slots []int) {
	onHost(func() { slots = g.Listen(ls) })
	return slots
}

// queries are a few of one peer, answered by server. The peer stays until the end of the test, so that the next one has
// another port.
func queries(t *testing.T, port int, server net.PacketConn) {
	peer, err := net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { peer.Close() })
	b := make([]byte, 100)
	for n := range 5 {
		fmt.Fprintf(peer, "%d", n)
		m, from, err := server.ReadFrom(b)
		if err != nil {
			t.Error(err)
			return
		}
		server.WriteTo(b[:m], from)
		if m, err = peer.Read(b); err != nil || string(b[:m]) != fmt.Sprint(n) {
			t.Errorf("%q, %v", b[:m], err)
		}
	}
}

// hostSocket is a listener's on the host, as the control thread makes it.
func hostSocket(t *testing.T, proto uint8, ip string) (fd, port int) {
	t.Helper()
	onHost(func() {
		o := sys.ListenOptions{V4: true, V6: true, Datagram: proto == wire.ProtoUDP}
		if a := netip.MustParseAddr(ip); !a.IsUnspecified() {
			o.Addr = a.As16()
		}
		var err error
		if fd, err = sys.Listener(o); err != nil {
			t.Error(err)
		}
	})
	return fd, int(portOf(fd))
}

// TestSpreadIsBounded: more ports than a socket for each shard is worth have
// one socket each, and ports that went make room for others.
func TestSpreadIsBounded(t *testing.T) {
	g := twoShards(t)
	listen := func(n int) (ls []*shard.Listener, slots []int) {
		for range n {
			fd, _ := hostSocket(t, wire.ProtoUDP, "127.0.0.1")
			ls = append(ls, &shard.Listener{FD: fd, Proto: wire.ProtoUDP, Target: 21201})
		}
		return ls, listenOnHost(g, ls...)
	}
	end := func(ls []*shard.Listener, slots []int) {
		g.Unlisten(slots)
		for _, l := range ls {
			sys.Close(l.FD)
		}
	}
	const room = 64
	most, mostSlots := listen(room)
	more, moreSlots := listen(1)
	if !shared(t, most[0].FD) || !shared(t, most[room-1].FD) || shared(t, more[0].FD) {
		t.Error("not the first 64 have members")
	}
	end(most, mostSlots)
	end(more, moreSlots)
	many, manySlots := listen(room + 1)
	if shared(t, many[0].FD) {
		t.Error("a large range has members")
	}
	end(many, manySlots)
	one, oneSlots := listen(1)
	if !shared(t, one[0].FD) {
		t.Error("no member where there is room again")
	}
	end(one, oneSlots)
}

// shared tells whether a socket is in a group.
func shared(t *testing.T, fd int) bool {
	t.Helper()
	v, errno := sys.GetInt(fd, solSocket, soReusePort)
	if errno != 0 {
		t.Fatal(errno)
	}
	return v != 0
}

// From the kernel's asm-generic/socket.h.
const solSocket, soReusePort = 1, 15
