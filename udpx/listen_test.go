package udpx

import (
	"bytes"
	"net/netip"
	"testing"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard/flow"
	"penne/test/guest"
)

// bound is a UDP socket as the control thread binds it.
func bound(t testing.TB, ip string) (fd int, port uint16) {
	t.Helper()
	a := wire.AddrFrom(netip.MustParseAddr(ip))
	family := sys.AF_INET
	if !a.Is4() {
		family = sys.AF_INET6
	}
	fd, errno := sys.Socket(family, sys.SOCK_DGRAM, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() { sys.Close(fd) })
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(&a), a.Is4(), 0, 0)
	if errno := sys.Bind(fd, &sa); errno != 0 {
		t.Fatal(errno)
	}
	sys.Sockname(fd, &sa)
	_, port, _, _ = sa.Inet()
	return fd, port
}

func (r *rig) listen(fd int, l Listener) int32 {
	r.t.Helper()
	id, err := r.u.Listen(fd, l)
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

func to(ip string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), port)
}

// bind is where a listener is bound, and how a peer reaches it.
type bind struct {
	name, listen, dial string
	s                  side
}

var binds = []bind{
	{"v4", "127.0.0.1", "127.0.0.1", v4},
	{"v4 wildcard", "0.0.0.0", "127.0.0.9", v4},
	{"v6", "::1", "::1", v6},
	{"v6 wildcard", "::", "::1", v6},
	{"v4 on dual-stack wildcard", "::", "127.0.0.9", v4},
}

// TestInbound has two peers talk to the guest, whose answers leave from the address
// that they wrote to: flows with sockets of their own, and such as share the
// listener's.
func TestInbound(t *testing.T) {
	for _, c := range binds {
		t.Run(c.name, func(t *testing.T) { inbound(t, c, (*rig).listen, 0) })
		t.Run(c.name+" exclusive", func(t *testing.T) { inbound(t, c, (*rig).listenExclusive, 2) })
	}
}

func inbound(t *testing.T, c bind, listen func(*rig, int, Listener) int32, sharers int32) {
	r := newRig(t)
	fd, port := bound(t, c.listen)
	id := listen(r, fd, Listener{GuestPort: 53})
	peers := []*server{newServer(t, c.s), newServer(t, c.s)}
	for i := range 4 {
		for _, peer := range peers {
			d := c.s.datagram(53, peer.port(), nil) // the flow, seen from the guest
			peer.reply(pattern(i, 1000*i), to(c.dial, port))
			o := r.in()
			r.check(&o, back(d, pattern(i, 1000*i)))
			d.Payload = pattern(i, 20+i)
			r.out(d)
			if from := peer.expect(d.Payload); from != to(c.dial, port) {
				t.Errorf("answer comes from %v, want %v", from, to(c.dial, port))
			}
		}
	}
	r.wantFlows(id, 2, sharers)
}

func TestInboundPeersAreKeptApart(t *testing.T) {
	r := newRig(t)
	fd, port := bound(t, "0.0.0.0")
	r.listen(fd, Listener{GuestPort: 7000})
	var peers []*server
	for range 5 {
		p := newServer(t, v4)
		peers = append(peers, p)
		p.reply([]byte("hello"), to("127.0.0.1", port))
	}
	for i := range peers {
		o := r.in()
		r.check(&o, back(v4.datagram(7000, o.H.SrcPort, nil), []byte("hello")))
		r.out(v4.datagram(7000, peers[i].port(), pattern(i, 50)))
	}
	for i, p := range peers {
		p.expect(pattern(i, 50))
	}
}

// TestGuestUsesForwardedPort: what the guest sends from a forwarded port to
// strangers leaves from the listener's port, though the listener holds it.
func TestGuestUsesForwardedPort(t *testing.T) {
	r, srv := newRig(t), newServer(t, v4)
	fd, port := bound(t, "0.0.0.0")
	id := r.listen(fd, Listener{GuestPort: port})
	r.out(v4.datagram(port, srv.port(), []byte("x")))
	if from := srv.expect([]byte("x")); from.Port() != port {
		t.Errorf("seen from port %d, want the forwarded %d", from.Port(), port)
	}
	// A guest port of that number that the listener does not serve stays off.
	r.u.Unlisten(id)
	r.u.Close()
	r.listen(fd, Listener{GuestPort: port + 1})
	r.out(v4.datagram(port, srv.port(), []byte("y")))
	if from := srv.expect([]byte("y")); from.Port() == port {
		t.Error("two guest ports share a host port")
	}
}

// TestStrayDatagrams: what a flow's socket catches from others goes where it
// belongs. Disconnecting the socket makes the moment between bind and connect
// last.
func TestStrayDatagrams(t *testing.T) {
	disconnect := func(r *rig, slot int32) {
		var none sys.Sockaddr
		none.SetLen(16)
		if errno := sys.Connect(r.u.rec[slot].fd, &none); errno != 0 {
			t.Fatal(errno)
		}
	}
	t.Run("to another flow", func(t *testing.T) {
		r, a, b := newRig(t), newServer(t, v4), newServer(t, v4)
		db := v4.datagram(20060, b.port(), []byte("b"))
		r.out(v4.datagram(20060, a.port(), []byte("a")), db)
		pa := a.expect([]byte("a"))
		b.expect([]byte("b"))
		disconnect(r, 0)
		disconnect(r, 1)
		b.reply([]byte("from b"), pa)
		a.reply([]byte("from a"), pa)
		for range 2 {
			o := r.in()
			name, d := "from a", v4.datagram(20060, a.port(), nil)
			if o.H.SrcPort == b.port() {
				name, d = "from b", db
			}
			r.check(&o, back(d, []byte(name)))
		}
	})
	t.Run("to a listener", func(t *testing.T) {
		r, a, b := newRig(t), newServer(t, v4), newServer(t, v4)
		fd, port := bound(t, "0.0.0.0")
		r.listen(fd, Listener{GuestPort: port})
		r.out(v4.datagram(port, a.port(), []byte("a")))
		a.expect([]byte("a"))
		disconnect(r, 0)
		b.reply([]byte("new peer"), to("127.0.0.1", port))
		r.Wait(func(tok flow.Token, bits uint32) {
			if tok.Kind() != flow.KindUDP {
				t.Error("the flow's socket caught nothing: not tested")
			}
			r.u.Event(tok, bits)
		})
		r.Env.Out.Flush()
		o := r.in()
		r.check(&o, back(v4.datagram(port, b.port(), nil), []byte("new peer")))
		if r.u.Len() != 2 {
			t.Errorf("%d flows, want 2", r.u.Len())
		}
	})
	t.Run("to nobody", func(t *testing.T) {
		r, a, b := newRig(t), newServer(t, v4), newServer(t, v4)
		d := v4.datagram(20061, a.port(), []byte("a"))
		r.out(d)
		pa := a.expect([]byte("a"))
		disconnect(r, 0)
		b.reply([]byte("who is there?"), pa)
		a.reply([]byte("yours"), pa)
		o := r.in()
		r.check(&o, back(d, []byte("yours")))
		if n := r.Env.Count.Drops[stats.NoFlow]; n != 1 {
			t.Errorf("%d stray datagrams dropped, want 1", n)
		}
	})
}

// TestForeignInboundFlow: another shard made the flow a moment ago; the datagram
// that came here is delivered all the same.
func TestForeignInboundFlow(t *testing.T) {
	r, peer := newRig(t), newServer(t, v4)
	r.Env.Directory = flow.NewDirectory(64)
	fd, port := bound(t, "127.0.0.1")
	r.listen(fd, Listener{GuestPort: 7001})
	key := flow.Key{
		Guest: guest.Addr4, GuestPort: 7001, Remote: guest.Gateway4, RemotePort: peer.port(), Proto: wire.ProtoUDP,
	}
	r.Env.Directory.Claim(r.Env.Seed.Hash(&key), 3)
	peer.reply([]byte("x"), to("127.0.0.1", port))
	o := r.in()
	r.check(&o, back(v4.datagram(7001, peer.port(), nil), []byte("x")))
	if r.u.Len() != 0 {
		t.Error("two shards have the flow")
	}
}

func TestInboundLimits(t *testing.T) {
	r, a, b := newRigOf(t, 1), newServer(t, v4), newServer(t, v4)
	fd, port := bound(t, "127.0.0.1")
	r.listen(fd, Listener{GuestPort: 7002})
	a.reply([]byte("a"), to("127.0.0.1", port))
	r.in()
	b.reply([]byte("b"), to("127.0.0.1", port))
	a.reply([]byte("a2"), to("127.0.0.1", port))
	o := r.in()
	r.check(&o, back(v4.datagram(7002, a.port(), nil), []byte("a2")))
	for r.Env.Count.Drops[stats.TableFull] == 0 {
		r.Wait(r.u.Event)
	}
	if r.u.Len() != 1 {
		t.Errorf("%d flows, want 1", r.u.Len())
	}
}

// TestUnansweredPeer: a peer that the rules give no address for is not let in,
// nor one that looks to the guest like another.
func TestUnansweredPeer(t *testing.T) {
	r, a := newRig(t), serverOn(t, "127.0.0.1", 0)
	fd, port := bound(t, "127.0.0.1")
	r.listen(fd, Listener{GuestPort: 7003})
	a.reply([]byte("a"), to("127.0.0.1", port))
	r.in()
	twin := serverOn(t, "127.0.0.2", a.port())
	twin.reply([]byte("twin"), to("127.0.0.1", port))
	for r.Env.Count.Drops[stats.BadSource] == 0 {
		r.Wait(r.u.Event)
	}
	rules := *r.Env.Rules
	rules.V4.HostLoopback = wire.Addr{}
	r.Env.Rules = &rules
	newServer(t, v4).reply([]byte("b"), to("127.0.0.1", port))
	for r.Env.Count.Drops[stats.BadSource] == 1 {
		r.Wait(r.u.Event)
	}
	r.Env.Out.Flush()
	if len(r.Take()) != 0 {
		t.Error("let in")
	}
}

func TestUnlisten(t *testing.T) {
	r, peer := newRig(t), newServer(t, v4)
	fd, port := bound(t, "127.0.0.1")
	id := r.listen(fd, Listener{GuestPort: 7004})
	peer.reply([]byte("x"), to("127.0.0.1", port))
	var tok flow.Token
	r.Wait(func(k flow.Token, _ uint32) { tok = k })
	r.u.Unlisten(id)
	r.u.Unlisten(id)
	r.u.Event(tok, sys.EPOLLIN)
	r.Ready(func(flow.Token, uint32) { t.Error("still watched") })
	if again := r.listen(fd, Listener{GuestPort: 7004}); again != id {
		t.Errorf("place %d, want %d again", again, id)
	}
	r.u.Event(tok, sys.EPOLLIN) // of the former generation
	if len(r.Sent) != 0 || r.u.Len() != 0 {
		t.Error("stale event served")
	}
}

func TestListenRefusesUnbound(t *testing.T) {
	r := newRig(t)
	fd, errno := sys.Socket(sys.AF_INET, sys.SOCK_DGRAM, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer sys.Close(fd)
	if _, err := r.u.Listen(fd, Listener{GuestPort: 1}); err == nil {
		t.Error("listens on no port")
	}
	if _, err := r.u.Listen(-1, Listener{GuestPort: 1}); err == nil {
		t.Error("listens on no socket")
	}
}

// TestInboundErrors: the guest's answers to a peer that is gone are refused, and
// the guest hears of it.
func TestInboundErrors(t *testing.T) {
	r, peer := newRig(t), newServer(t, v4)
	fd, port := bound(t, "127.0.0.1")
	r.listen(fd, Listener{GuestPort: 7005})
	peer.reply([]byte("x"), to("127.0.0.1", port))
	r.in()
	d := v4.datagram(7005, peer.port(), []byte("answer"))
	peer.Close()
	r.out(d)
	r.checkICMP(r.in(), icmpWant{from: v4.gateway, typ: 3, code: 3, quote: d})
}

// TestInboundMerged sends a row of datagrams to a listener.
func TestInboundMerged(t *testing.T) {
	r, peer := newRig(t), newServer(t, v4)
	fd, port := bound(t, "127.0.0.1")
	r.listen(fd, Listener{GuestPort: 7006})
	sent := pattern(3, 10*500+9)
	peer.sendSegmented(sent, 500, to("127.0.0.1", port))
	var got []byte
	for len(got) < len(sent) {
		o := r.in()
		got = append(got, bytes.Join(cut(&o), nil)...)
	}
	if !bytes.Equal(got, sent) {
		t.Error("payload changed")
	}
}
