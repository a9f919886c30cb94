package relay

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard/flow"
	"penne/test/guest"
)

// rig is a relay between peers and services that are all on the loopback of
// the test's own namespace.
type rig struct {
	*guest.Guest
	r *Relay
	t testing.TB
}

func newRig(t testing.TB, flows int) *rig {
	t.Helper()
	g := guest.New(t, 128)
	b := &rig{g, New(g.Env, flows), t}
	t.Cleanup(b.r.Close)
	return b
}

// bound is a socket as the control thread binds it.
type bound struct {
	fd   int
	port uint16
}

func bind(t testing.TB, ip string, port uint16) bound {
	t.Helper()
	a := wire.AddrFrom(netip.MustParseAddr(ip))
	family := sys.AF_INET6
	if a.Is4() {
		family = sys.AF_INET
	}
	fd, errno := sys.Socket(family, sys.SOCK_DGRAM, 0)
	if errno != 0 {
		t.Fatalf("make socket: %v", errno)
	}
	t.Cleanup(func() { sys.Close(fd) })
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(&a), a.Is4(), port, 0)
	if errno := sys.Bind(fd, &sa); errno != 0 {
		t.Fatalf("bind to %s: %v", ip, errno)
	}
	if errno := sys.Sockname(fd, &sa); errno != 0 {
		t.Fatalf("read address: %v", errno)
	}
	_, port, _, _ = sa.Inet()
	return bound{fd, port}
}

// serve relays all that comes to at to the service.
func (b *rig) serve(at bound, service *conn) int32 {
	b.t.Helper()
	id, err := b.r.Serve(Listener{FD: at.fd, Target: service.port(), To: &Host})
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

// conn is a peer's or a service's socket.
type conn struct {
	*net.UDPConn
	b *rig
}

func (b *rig) listen(ip string, port uint16) *conn {
	b.t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(parse(ip), port)))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	return &conn{c, b}
}

func (c *conn) port() uint16 { return c.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

func (c *conn) send(p []byte, ip string, port uint16) {
	c.b.t.Helper()
	if _, err := c.WriteToUDPAddrPort(p, netip.AddrPortFrom(parse(ip), port)); err != nil {
		c.b.t.Fatalf("send %d octets: %v", len(p), err)
	}
}

// take receives one datagram if there is one.
func (c *conn) take() (p []byte, from netip.AddrPort, ok bool) {
	c.b.t.Helper()
	p = make([]byte, 1<<16)
	c.raw(func(fd int) {
		n, sa, err := syscall.Recvfrom(fd, p, syscall.MSG_DONTWAIT)
		if err == syscall.EAGAIN {
			return
		}
		if err != nil {
			c.b.t.Fatalf("receive: %v", err)
		}
		p, ok = p[:n], true
		switch a := sa.(type) {
		case *syscall.SockaddrInet4:
			from = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
		case *syscall.SockaddrInet6:
			from = netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
		}
	})
	return p, from, ok
}

func (c *conn) raw(fn func(fd int)) {
	c.b.t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { fn(int(fd)) })
	}
	if err != nil {
		c.b.t.Fatal(err)
	}
}

// next lets the relay work until a datagram is here, and receives it.
func (c *conn) next() (p []byte, from netip.AddrPort) {
	c.b.t.Helper()
	ok := false
	c.raw(func(fd int) { c.b.watching(fd, func() bool { p, from, ok = c.take(); return ok }) })
	return p, from
}

// expect is next for a datagram that is known.
func (c *conn) expect(want []byte) netip.AddrPort {
	c.b.t.Helper()
	p, from := c.next()
	if !bytes.Equal(p, want) {
		c.b.t.Fatalf("got %d octets, want %d: %.40q", len(p), len(want), p)
	}
	return from
}

// silent fails if anything waits on c.
func (c *conn) silent() {
	c.b.t.Helper()
	if p, from, ok := c.take(); ok {
		c.b.t.Fatalf("got %d octets from %v that nobody sent", len(p), from)
	}
}

// watching lets the relay work until done; it looks again whenever fd has
// become readable.
func (b *rig) watching(fd int, done func() bool) {
	b.t.Helper()
	b.Env.Epoll.Add(fd, sys.EPOLLIN, uint64(flow.NewToken(flow.KindWake, 0, 0)))
	defer b.Env.Epoll.Del(fd)
	b.until(done)
}

// until lets the relay work until done.
func (b *rig) until(done func() bool) {
	b.t.Helper()
	for !done() {
		b.Wait(b.event)
	}
}

func (b *rig) event(tok flow.Token, bits uint32) {
	if tok.Kind() == flow.KindRelayUDP {
		b.r.Event(tok, bits)
	}
}

// dropped lets the relay work until something has been dropped for that reason.
func (b *rig) dropped(why stats.Reason) {
	b.t.Helper()
	b.until(func() bool { return b.Env.Count.Drops[why] > 0 })
}

// drops fails unless so many datagrams were dropped for that reason, and none
// for any other.
func (b *rig) drops(why stats.Reason, want uint64) {
	b.t.Helper()
	for i, n := range b.Env.Count.Drops {
		switch {
		case stats.Reason(i) == why && n != want:
			b.t.Fatalf("%d drops for %q, want %d", n, why, want)
		case stats.Reason(i) != why && n != 0:
			b.t.Fatalf("%d drops for %q", n, stats.Reason(i))
		}
	}
}

func parse(ip string) netip.Addr { return netip.MustParseAddr(ip) }

func payload(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7) + byte(i>>8) + seed
	}
	return b
}

var loopbacks = []string{"127.0.0.1", "::1"}

func TestEchoOfEveryLength(t *testing.T) {
	for _, ip := range loopbacks {
		b := newRig(t, 4)
		at := bind(t, ip, 0)
		service, peer := b.listen(ip, 0), b.listen(ip, 0)
		b.serve(at, service)
		octets := 0
		for _, n := range []int{0, 1, 2, 100, 1399, 1400, 1472, 1500, 8972, 9000, 32767, 65000, 65506, 65507} {
			octets += 2 * n
			b.echo(peer, service, ip, at.port, payload(n, 1))
		}
		if ip == "::1" {
			b.echo(peer, service, ip, at.port, payload(65527, 1)) // the longest (RFC 8200 section 4.5)
			octets += 2 * 65527
		}
		if n := b.Env.Count.SplicedBytes; n != uint64(octets) {
			t.Errorf("%s: %d octets counted of %d", ip, n, octets)
		}
		if b.r.Len() != 1 {
			t.Errorf("%s: %d flows", ip, b.r.Len())
		}
		b.drops(stats.NumReasons, 0)
	}
}

// echo sends one datagram to the service and the same back.
func (b *rig) echo(peer, service *conn, ip string, port uint16, p []byte) (from netip.AddrPort) {
	b.t.Helper()
	peer.send(p, ip, port)
	from = service.expect(p)
	service.send(p, from.Addr().String(), from.Port())
	if got := peer.expect(p); got != netip.AddrPortFrom(netip.MustParseAddr(ip), port) {
		b.t.Fatalf("answered by %v, want %s port %d", got, ip, port)
	}
	return from
}

func TestAnswerComesFromWhereThePeerWrote(t *testing.T) {
	for _, c := range []struct{ wildcard, peer, to, service string }{
		{"0.0.0.0", "127.0.0.1", "127.0.0.1", "127.0.0.1"},
		{"0.0.0.0", "127.0.0.1", "127.0.0.2", "127.0.0.1"},
		{"0.0.0.0", "127.0.0.9", "127.0.0.3", "127.0.0.1"},
		{"::", "127.0.0.1", "127.0.0.2", "127.0.0.1"}, // dual-stack
		{"::", "::1", "::1", "::1"},
	} {
		b := newRig(t, 4)
		at := bind(t, c.wildcard, 0)
		service, peer := b.listen(c.service, 0), b.listen(c.peer, 0)
		b.serve(at, service)
		b.echo(peer, service, c.to, at.port, payload(100, 2))
		b.drops(stats.NumReasons, 0)
	}
}

func TestOnePeerAtTwoAddressesIsTwoFlows(t *testing.T) {
	b := newRig(t, 4)
	at := bind(t, "0.0.0.0", 0)
	service, peer := b.listen("127.0.0.1", 0), b.listen("127.0.0.1", 0)
	b.serve(at, service)
	one := b.echo(peer, service, "127.0.0.1", at.port, payload(10, 1))
	two := b.echo(peer, service, "127.0.0.2", at.port, payload(10, 2))
	if one == two || b.r.Len() != 2 {
		t.Fatalf("service sees %v and %v, %d flows", one, two, b.r.Len())
	}
}

func TestTwoPeersAtOnce(t *testing.T) {
	b := newRig(t, 4)
	at := bind(t, "127.0.0.1", 0)
	service := b.listen("127.0.0.1", 0)
	peers := []*conn{b.listen("127.0.0.1", 0), b.listen("127.0.0.1", 0)}
	b.serve(at, service)
	const each = 5
	for i := range each {
		for p, peer := range peers {
			peer.send(payload(50+i, byte(p)), "127.0.0.1", at.port)
		}
	}
	var from [2]netip.AddrPort
	var got [2]int
	for range 2 * each {
		d, a := service.next()
		p := int(d[0]) // payload's first octet is its seed
		if want := payload(50+got[p], byte(p)); !bytes.Equal(d, want) {
			t.Fatalf("datagram %d of peer %d came changed or out of order", got[p], p)
		}
		got[p]++
		from[p] = a
	}
	if from[0] == from[1] {
		t.Fatalf("both peers come from %v", from[0])
	}
	for p, a := range from {
		service.send(payload(7, byte(p)), a.Addr().String(), a.Port())
	}
	for p, peer := range peers {
		peer.expect(payload(7, byte(p)))
	}
	for _, peer := range peers {
		peer.silent()
	}
}

func TestSharedListenerTakesLoopbackPeersOnly(t *testing.T) {
	// The peer's address and the relay's choice are all that matters here, so
	// that a row is enough: the rest of it is the tap path's.
	b := newRig(t, 4)
	at := bind(t, "0.0.0.0", 0)
	service, peer := b.listen("127.0.0.1", 0), b.listen("127.0.0.1", 0)
	sys.EnablePacketInfo(at.fd, false)
	id := b.r.Share(Listener{FD: at.fd, Target: service.port(), To: &Host})
	own := ownAddr(t)
	other := b.listen(own, 0)
	peer.send(payload(10, 1), "127.0.0.1", at.port)
	other.send(payload(10, 2), own, at.port)
	peer.send(payload(10, 3), "127.0.0.1", at.port)
	in := sys.NewRecvRow(4)
	for i := range 4 {
		in.SetBuf(i, make([]byte, 2000))
	}
	var taken []bool
	b.watching(at.fd, func() bool {
		n, _ := in.Recv(at.fd, 4)
		bits := b.r.Local(id, in, n)
		for i := range n {
			taken = append(taken, bits>>i&1 != 0)
		}
		return len(taken) >= 3
	})
	if want := []bool{true, false, true}; !slices.Equal(taken, want) {
		t.Fatalf("took %v, want %v", taken, want)
	}
	service.expect(payload(10, 1))
	service.expect(payload(10, 3))
	service.silent()
}

// ownAddr is an IPv4 address of this machine that is not a loopback one.
func ownAddr(t *testing.T) string {
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	t.Skip("needs an IPv4 address besides loopback")
	return ""
}

func TestTargetThatRefusesEndsTheFlow(t *testing.T) {
	for _, ip := range loopbacks {
		b := newRig(t, 4)
		at := bind(t, ip, 0)
		service, peer := b.listen(ip, 0), b.listen(ip, 0)
		port := service.port()
		b.serve(at, service)
		service.Close()
		peer.send(payload(10, 1), ip, at.port)
		b.dropped(stats.BadDest)
		if b.r.Len() != 0 {
			t.Fatalf("%s: %d flows", ip, b.r.Len())
		}
		b.drops(stats.BadDest, 1)
		// The service starts: the peer's next datagram reaches it.
		b.echo(peer, b.listen(ip, port), ip, at.port, payload(10, 2))
	}
}

func TestFullTableRefusesTheNewest(t *testing.T) {
	b := newRig(t, 2)
	at := bind(t, "127.0.0.1", 0)
	service := b.listen("127.0.0.1", 0)
	peers := []*conn{b.listen("127.0.0.1", 0), b.listen("127.0.0.1", 0), b.listen("127.0.0.1", 0)}
	b.serve(at, service)
	for i, peer := range peers {
		peer.send(payload(10, byte(i)), "127.0.0.1", at.port)
	}
	service.expect(payload(10, 0))
	service.expect(payload(10, 1))
	b.dropped(stats.TableFull)
	service.silent()
	b.drops(stats.TableFull, 1)
	b.echo(peers[0], service, "127.0.0.1", at.port, payload(10, 5))
}

func TestNoSocketDropsAndCounts(t *testing.T) {
	b := newRig(t, 2)
	at := bind(t, "127.0.0.1", 0)
	service, peer := b.listen("127.0.0.1", 0), b.listen("127.0.0.1", 0)
	ready := false
	side := Side{Addr: Host.Addr, Socket: func(v4 bool) int {
		if !ready {
			return -1
		}
		return hostSocket(v4)
	}}
	if _, err := b.r.Serve(Listener{FD: at.fd, Target: service.port(), To: &side}); err != nil {
		t.Fatal(err)
	}
	peer.send(payload(10, 1), "127.0.0.1", at.port)
	b.dropped(stats.NoSocket)
	service.silent()
	b.drops(stats.NoSocket, 1)
	ready = true
	b.echo(peer, service, "127.0.0.1", at.port, payload(10, 2))
}

func TestTargetAddressOfTheListener(t *testing.T) {
	b := newRig(t, 2)
	at := bind(t, "127.0.0.1", 0)
	service, peer := b.listen("::1", 0), b.listen("127.0.0.1", 0)
	to := wire.AddrFrom(netip.IPv6Loopback()) // the other family, at that
	if _, err := b.r.Serve(Listener{FD: at.fd, Target: service.port(), ToAddr: to, To: &Host}); err != nil {
		t.Fatal(err)
	}
	b.echo(peer, service, "127.0.0.1", at.port, payload(1000, 1))
}

func TestBroadcastIsAnsweredFromAnAddress(t *testing.T) {
	for _, wildcard := range []string{"0.0.0.0", "::"} { // the second is dual-stack
		b := newRig(t, 4)
		at := bind(t, wildcard, 0)
		service, peer := b.listen("127.0.0.1", 0), b.listen("127.0.0.1", 0)
		b.serve(at, service)
		peer.send([]byte("anybody there?"), "127.255.255.255", at.port)
		from := service.expect([]byte("anybody there?"))
		answers := [][]byte{payload(100, 1), payload(100, 2), {}, payload(1000, 3)}
		for _, a := range answers {
			service.send(a, from.Addr().String(), from.Port())
		}
		for _, a := range answers {
			if got := peer.expect(a); got != netip.AddrPortFrom(parse("127.0.0.1"), at.port) {
				t.Errorf("%s: answered by %v", wildcard, got)
			}
		}
		b.drops(stats.NumReasons, 0)
	}
}

func TestManyPeers(t *testing.T) {
	const peers = 200
	b := newRig(t, peers)
	at := bind(t, "::", 0)
	service := b.listen("::1", 0)
	to := addrOf("::1")
	if _, err := b.r.Serve(Listener{FD: at.fd, Target: service.port(), ToAddr: to, To: &Host}); err != nil {
		t.Fatal(err)
	}
	all := make([]*conn, peers)
	seen := map[netip.AddrPort]bool{}
	for round := range 3 {
		for i := range all {
			ip := loopbacks[i%2]
			if round == 0 {
				all[i] = b.listen(ip, 0)
			}
			seen[b.echo(all[i], service, ip, at.port, payload(i*17+round, byte(i)))] = true
		}
	}
	if len(seen) != peers || b.r.Len() != peers {
		t.Fatalf("the service saw %d peers, the relay %d flows, of %d", len(seen), b.r.Len(), peers)
	}
	b.drops(stats.NumReasons, 0)
	b.Advance(Assured + time.Second)
	b.r.Expire()
	if b.r.Len() != 0 {
		t.Fatalf("%d flows live on", b.r.Len())
	}
}
