package udpx

import (
	"net/netip"
	"strconv"
	"sync"
	"testing"

	"penne/internal/sys"
	"penne/internal/wire"
	"penne/test/guest"
)

func TestOnePortForAllDestinations(t *testing.T) {
	r, a, b := newRig(t), newServer(t, v4), newServer(t, v4)
	r.out(v4.datagram(20050, a.port(), []byte("a")), v4.datagram(20050, b.port(), []byte("b")))
	pa, pb := a.expect([]byte("a")), b.expect([]byte("b"))
	if pa != pb || pa.Port() != 20050 {
		t.Errorf("seen as %v and %v, want port 20050 for both", pa, pb)
	}
	// Each answer finds its flow although they share a port.
	a.reply([]byte("from a"), pa)
	o := r.in()
	r.check(&o, back(v4.datagram(20050, a.port(), nil), []byte("from a")))
	b.reply([]byte("from b"), pb)
	o = r.in()
	r.check(&o, back(v4.datagram(20050, b.port(), nil), []byte("from b")))
}

// TestTakenPort has another program on the guest's port: all flows of that port
// share one other, also those of other shards, and also when the port comes
// free later.
func TestTakenPort(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		for _, shared := range []bool{false, true} {
			r := newRig(t)
			r2 := r.sibling()
			taken := serverOn(t, anyOf(s), 20051)
			if shared { // by a program that would share it
				raw, _ := taken.SyscallConn()
				raw.Control(func(fd uintptr) { sys.ReuseAddress(int(fd), true) })
			}
			a, b, c := newServer(t, s), newServer(t, s), newServer(t, s)
			r.out(s.datagram(20051, a.port(), []byte("a")))
			pa := a.expect([]byte("a"))
			r2.out(s.datagram(20051, b.port(), []byte("b")))
			pb := b.expect([]byte("b"))
			taken.Close()
			r.out(s.datagram(20051, c.port(), []byte("c")))
			pc := c.expect([]byte("c"))
			if pa.Port() == 20051 || pa != pb || pa != pc {
				t.Errorf("seen as %v, %v and %v, want one port other than 20051", pa, pb, pc)
			}
			r.u.Close()
			r2.u.Close()
			if n := r.u.ports.substituted.Load(); n != 0 {
				t.Errorf("%d substituted ports after the last flow", n)
			}
			r.out(s.datagram(20051, a.port(), []byte("again")))
			if p := a.expect([]byte("again")); p.Port() != 20051 {
				t.Errorf("seen from port %d, want 20051, free again", p.Port())
			}
			r.u.Close()
		}
	})
}

// sibling is another shard's translator, with a guest side of its own.
func (r *rig) sibling() *rig {
	g := guest.New(r.t, 256)
	g.Env.Seed = r.Env.Seed
	u, err := New(Config{Env: g.Env, Flows: 64, Ports: r.u.ports})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(u.Close)
	return &rig{g, u, r.t}
}

func anyOf(s side) string {
	if s == v6 {
		return "::"
	}
	return "0.0.0.0"
}

// TestTwoGuestAddressesOnePort: their flows to one peer would be the same on the
// host if they shared a port.
func TestTwoGuestAddressesOnePort(t *testing.T) {
	r, srv := newRig(t), newServer(t, v4)
	d1 := v4.datagram(20052, srv.port(), []byte("one"))
	d2 := v4.datagram(20052, srv.port(), []byte("two"))
	d2.Src = wire.Addr4([]byte{198, 51, 100, 77})
	r.out(d1, d2)
	p1, p2 := srv.expect(d1.Payload), srv.expect(d2.Payload)
	if p1 == p2 {
		t.Fatalf("both seen as %v", p1)
	}
	srv.reply([]byte("for two"), p2)
	o := r.in()
	r.check(&o, back(d2, []byte("for two")))
}

// TestTwoNamesOfOnePeer: a forwarded resolver is also reached by its own
// address, from the same port of the guest.
func TestTwoNamesOfOnePeer(t *testing.T) {
	for _, first := range []bool{true, false} {
		guest.Namespace(t)
		r := newRig(t)
		srv := serverOn(t, "127.0.0.1", 53)
		rules := *r.Env.Rules
		rules.V4.DNSForward = wire.Addr4([]byte{169, 254, 1, 1})
		rules.V4.DNSHost = wire.Addr4([]byte{127, 0, 0, 1})
		r.Env.Rules = &rules
		d1, d2 := v4.datagram(20049, 53, []byte("one")), v4.datagram(20049, 53, []byte("two"))
		d2.Dst = rules.V4.DNSForward
		if first {
			d1, d2 = d2, d1
		}
		r.out(d1, d2)
		p1, p2 := srv.expect(d1.Payload), srv.expect(d2.Payload)
		srv.reply([]byte("answer two"), p2)
		o := r.in()
		r.check(&o, back(d2, []byte("answer two")))
		srv.reply([]byte("answer one"), p1)
		o = r.in()
		r.check(&o, back(d1, []byte("answer one")))
		if p1.Port() != 20049 {
			t.Errorf("first flow leaves from %d, want 20049", p1.Port())
		}
	}
}

// TestForeignSubstitute: a guest port that happens to be the substitute of
// another one moves on as well.
func TestForeignSubstitute(t *testing.T) {
	r, srv := newRig(t), newServer(t, v4)
	serverOn(t, "0.0.0.0", 20053)
	r.out(v4.datagram(20053, srv.port(), []byte("x")))
	p := srv.expect([]byte("x")).Port()
	r.out(v4.datagram(p, srv.port(), []byte("y")))
	if q := srv.expect([]byte("y")).Port(); q == p {
		t.Errorf("guest ports 20053 and %d share host port %d", p, q)
	}
}

func TestSourcePortZero(t *testing.T) {
	r, srv := newRig(t), newServer(t, v4)
	r.out(v4.datagram(0, srv.port(), []byte("x")))
	srv.reply([]byte("y"), srv.expect([]byte("x")))
	o := r.in()
	r.check(&o, back(v4.datagram(0, srv.port(), nil), []byte("y")))
}

// TestAllCandidatesTaken leaves it to the kernel.
func TestAllCandidatesTaken(t *testing.T) {
	p := NewPorts()
	b := binding{guest: 20054, tag: 99, addr: wire.Unspecified(true)}
	for i := range candidates {
		p.claim[0][b.candidate(i)].Store(portOne | 1)
	}
	fd, errno := sys.Socket(sys.AF_INET, sys.SOCK_DGRAM, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer sys.Close(fd)
	b.fd = fd
	if port, errno := p.bind(&b); port != 0 || errno != 0 {
		t.Fatalf("port %d, %v; want 0, success", port, errno)
	}
	var sa sys.Sockaddr
	sys.Sockname(fd, &sa)
	if _, port, _, _ := sa.Inet(); port == 0 {
		t.Error("socket is not bound")
	}
}

// TestPortsAreSharedSafely lets goroutines, as shards do, claim and release the
// same port at the same time: it is always the same one, and free in the end.
func TestPortsAreSharedSafely(t *testing.T) {
	p := NewPorts()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 300 {
				fd, errno := sys.Socket(sys.AF_INET, sys.SOCK_DGRAM, 0)
				if errno != 0 {
					t.Error(errno)
					return
				}
				b := binding{fd: fd, guest: 20055, tag: 7, addr: wire.Unspecified(true)}
				port, errno := p.bind(&b)
				if errno != 0 || port != 20055 {
					t.Errorf("port %d, %v; want 20055", port, errno)
				}
				sys.Close(fd)
				if port != 0 {
					p.release(false, port, 20055)
				}
			}
		})
	}
	wg.Wait()
	if w := p.claim[0][20055].Load(); w != 0 {
		t.Errorf("claim %#x after the last release", w)
	}
}

func TestOutboundAddress(t *testing.T) {
	r := newRig(t)
	rules := *r.Env.Rules
	rules.V4.HostLoopback = wire.Addr{}
	rules.V4.Bind = wire.AddrFrom(netip.MustParseAddr("192.0.2.1")) // not ours
	r.Env.Rules = &rules
	r.out(&guest.Datagram{Src: guest.Addr4, Dst: guest.Gateway4, SrcPort: 20056, DstPort: 9})
	if r.u.Len() != 0 {
		t.Error("a flow from an address that the host does not have")
	}
	// Loopback peers are reached from loopback, whatever --outbound says.
	rules.V4.HostLoopback = guest.Gateway4
	srv := newServer(t, v4)
	r.out(v4.datagram(20056, srv.port(), []byte("x")))
	if from := srv.expect([]byte("x")); from.String() != "127.0.0.1:"+strconv.Itoa(20056) {
		t.Errorf("seen as %v", from)
	}
}

// TestListenerJoinsFlows binds a listener to a port from which the guest has sent already, and again after peers have
// come in by it.
func TestListenerJoinsFlows(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		r, srv := newRig(t), newServer(t, s)
		const port = 20057
		options := sys.ListenOptions{V4: true, V6: true, Port: port, Datagram: true, Share: true}
		r.out(s.datagram(port, srv.port(), []byte("first")))
		if from := srv.expect([]byte("first")); from.Port() != port {
			t.Fatalf("seen as %v", from)
		}
		for range 2 { // the second time, peers' flows hold it as well
			if !r.u.ports.Holds(port) || r.u.ports.Holds(port+1) {
				t.Fatal("not known who holds the port")
			}
			fd, err := sys.Listener(options)
			if err != nil {
				t.Fatal(err)
			}
			id := r.listen(fd, Listener{GuestPort: port})
			stranger := newServer(t, s)
			stranger.reply([]byte("hello"), to(s.loopback, port))
			o := r.in()
			r.check(&o, back(s.datagram(port, stranger.port(), nil), []byte("hello")))
			r.u.Unlisten(id)
			sys.Close(fd)
		}
		r.u.table.All(func(slot int32) {
			if r.u.rec[slot].peerPort == srv.port() {
				r.u.drop(slot)
			}
		})
		if !r.u.ports.Holds(port) {
			t.Error("peers' flows do not hold the port")
		}
		r.u.table.All(r.u.drop)
		if r.u.ports.Holds(port) || r.u.ports.substituted.Load() != 0 {
			t.Error("held after the last flow")
		}
		options.Share = false
		if fd, err := sys.Listener(options); err != nil {
			t.Errorf("not free after the last flow: %v", err)
		} else {
			sys.Close(fd)
		}
	})
}
