package relay

import (
	"os"
	"testing"
	"time"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard/flow"
)

func TestLifetimes(t *testing.T) {
	b := newRig(t, 2)
	at := bind(t, "127.0.0.1", 0)
	service, peer := b.listen("127.0.0.1", 0), b.listen("127.0.0.1", 0)
	b.serve(at, service)
	pass := func(d time.Duration, want int) {
		t.Helper()
		b.Advance(d)
		b.r.Expire()
		if b.r.Len() != want {
			t.Fatalf("%d flows, want %d", b.r.Len(), want)
		}
	}
	b.echo(peer, service, "127.0.0.1", at.port, payload(10, 1))
	pass(Idle-time.Second, 1)
	pass(2*time.Second, 0) // one question, one answer
	b.echo(peer, service, "127.0.0.1", at.port, payload(10, 1))
	pass(Idle-time.Second, 1)
	b.echo(peer, service, "127.0.0.1", at.port, payload(10, 2))
	pass(Idle+time.Second, 1) // both have spoken twice
	if at, ok := b.r.Next(); !ok || at < b.Env.Now {
		t.Fatalf("next at %d, %v; now %d", at, ok, b.Env.Now)
	}
	pass(Assured-Idle-2*time.Second, 1)
	pass(2*time.Second, 0)
	if _, ok := b.r.Next(); ok {
		t.Fatal("a timer is left")
	}
}

func TestRemoveEndsFlows(t *testing.T) {
	b := newRig(t, 8)
	at, kept := bind(t, "127.0.0.1", 0), bind(t, "127.0.0.1", 0)
	service := b.listen("127.0.0.1", 0)
	id := b.serve(at, service)
	b.serve(kept, service)
	var peers []*conn
	for i := range 3 {
		peer := b.listen("127.0.0.1", 0)
		peers = append(peers, peer)
		b.echo(peer, service, "127.0.0.1", at.port, payload(10, byte(i)))
		b.echo(peer, service, "127.0.0.1", kept.port, payload(10, byte(i)))
	}
	b.r.Remove(id)
	b.r.Remove(id) // twice does no harm
	if b.r.Len() != 3 {
		t.Fatalf("%d flows left", b.r.Len())
	}
	for _, peer := range peers {
		b.echo(peer, service, "127.0.0.1", kept.port, payload(10, 9))
	}
	// The id is used again, for a listener on the same port.
	if again := b.serve(at, service); again != id {
		t.Fatalf("place %d, want %d", again, id)
	}
	b.echo(peers[0], service, "127.0.0.1", at.port, payload(10, 3))
}

func TestRemoveOneFlowOfAList(t *testing.T) {
	for gone := range 3 {
		b := newRig(t, 8)
		at := bind(t, "127.0.0.1", 0)
		service := b.listen("127.0.0.1", 0)
		id := b.serve(at, service)
		for range 3 {
			b.echo(b.listen("127.0.0.1", 0), service, "127.0.0.1", at.port, payload(10, 1))
		}
		b.r.drop(int32(gone))
		b.r.Remove(id)
		if b.r.Len() != 0 {
			t.Fatalf("%d flows left after the %d-th went first", b.r.Len(), gone)
		}
	}
}

func TestNoDescriptorIsLeft(t *testing.T) {
	b := newRig(t, 4)
	at := bind(t, "127.0.0.1", 0)
	service := b.listen("127.0.0.1", 0)
	peers := []*conn{b.listen("127.0.0.1", 0), b.listen("127.0.0.1", 0), b.listen("127.0.0.1", 0)}
	before := descriptors(t)
	for i := range 3 {
		id := b.serve(at, service)
		for _, peer := range peers {
			b.echo(peer, service, "127.0.0.1", at.port, payload(10, byte(i)))
		}
		switch i {
		case 0:
			b.r.Remove(id)
		case 1:
			b.Advance(Assured)
			b.r.Expire()
			b.r.Remove(id)
		case 2:
			b.r.Close()
		}
		if after := descriptors(t); after != before || b.r.Len() != 0 {
			t.Fatalf("round %d: %d descriptors, %d before; %d flows", i, after, before, b.r.Len())
		}
	}
}

func descriptors(t *testing.T) int {
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestServeRefuses(t *testing.T) {
	b := newRig(t, 4)
	if _, err := b.r.Serve(Listener{FD: -1, Target: 1, To: &Host}); err == nil {
		t.Error("no socket, and no error")
	}
	at := bind(t, "127.0.0.1", 0)
	service := b.listen("127.0.0.1", 0)
	b.serve(at, service)
	if _, err := b.r.Serve(Listener{FD: at.fd, Target: 1, To: &Host}); err == nil {
		t.Error("watched twice, and no error")
	}
	b.echo(b.listen("127.0.0.1", 0), service, "127.0.0.1", at.port, payload(10, 1))
}

func TestNoAddressOverThere(t *testing.T) {
	b := newRig(t, 4)
	at := bind(t, "127.0.0.1", 0)
	nowhere := Side{Socket: hostSocket, Addr: func(*wire.Addr) wire.Addr { return wire.Addr{} }}
	if _, err := b.r.Serve(Listener{FD: at.fd, Target: 1, To: &nowhere}); err != nil {
		t.Fatal(err)
	}
	b.listen("127.0.0.1", 0).send([]byte("x"), "127.0.0.1", at.port)
	b.dropped(stats.BadDest)
	b.drops(stats.BadDest, 1)
}

// TestStaleEvents gives the relay tokens of flows and listeners that are gone.
func TestStaleEvents(t *testing.T) {
	b := newRig(t, 4)
	at := bind(t, "127.0.0.1", 0)
	service, peer := b.listen("127.0.0.1", 0), b.listen("127.0.0.1", 0)
	id := b.serve(at, service)
	b.echo(peer, service, "127.0.0.1", at.port, payload(10, 1))
	b.r.Remove(id)
	again := b.serve(at, service)
	peer.send(payload(10, 2), "127.0.0.1", at.port)
	for _, tok := range []flow.Token{
		flow.NewToken(flow.KindRelayUDP, 0, 0), flow.NewToken(flow.KindRelayUDP, 0, ^again),
		flow.NewToken(flow.KindRelayUDP, 0, ^int32(99)), flow.NewToken(flow.KindRelayUDP, 0, 3),
		flow.NewToken(flow.KindRelayUDP, 0, 99),
	} {
		b.r.Event(tok, sys.EPOLLIN|sys.EPOLLERR)
	}
	if b.r.Len() != 0 {
		t.Fatal("a stale token was served")
	}
	service.expect(payload(10, 2))
}

func TestOwnersAreAllShards(t *testing.T) {
	seen := map[int]int{}
	for port := range 1000 {
		seen[Owner(uint16(port), 7)]++
	}
	for shard := range 7 {
		if seen[shard] < 1000/7 {
			t.Errorf("shard %d has %d of 1000 ports", shard, seen[shard])
		}
	}
}

// TestRefusalFoundBySending has the peer's next datagrams come before the
// report of the ICMP message does.
func TestRefusalFoundBySending(t *testing.T) {
	b := newRig(t, 4)
	at := bind(t, "127.0.0.1", 0)
	service, peer := b.listen("127.0.0.1", 0), b.listen("127.0.0.1", 0)
	id := b.serve(at, service)
	service.Close()
	peer.send(payload(10, 1), "127.0.0.1", at.port)
	b.until(func() bool { return b.r.Len() == 1 })
	b.Wait(func(flow.Token, uint32) {}) // the report is there, and left alone
	for n := range 3 {
		peer.send(payload(20+n, 1), "127.0.0.1", at.port)
	}
	listener := flow.NewToken(flow.KindRelayUDP, 0, ^id)
	for b.Env.Count.Drops[stats.BadDest] == 0 {
		b.r.Event(listener, sys.EPOLLIN)
	}
}

func TestLongerThanTheOtherFamilyCarries(t *testing.T) {
	b := newRig(t, 4)
	at := bind(t, "::1", 0)
	service, peer := b.listen("127.0.0.1", 0), b.listen("::1", 0)
	to := addrOf("127.0.0.1")
	if _, err := b.r.Serve(Listener{FD: at.fd, Target: service.port(), ToAddr: to, To: &Host}); err != nil {
		t.Fatal(err)
	}
	peer.send(payload(65527, 1), "::1", at.port)
	b.dropped(stats.TooLong)
	b.drops(stats.TooLong, 1)
	b.echo(peer, service, "::1", at.port, payload(65507, 1))
}

// TestAnswersInFlightWhenTheTargetEnds has a target that answers and is gone.
func TestAnswersInFlightWhenTheTargetEnds(t *testing.T) {
	b := newRig(t, 4)
	at := bind(t, "127.0.0.1", 0)
	service, peer := b.listen("127.0.0.1", 0), b.listen("127.0.0.1", 0)
	id := b.serve(at, service)
	peer.send(payload(10, 1), "127.0.0.1", at.port)
	from := service.expect(payload(10, 1))
	service.send(payload(10, 2), from.Addr().String(), from.Port())
	service.Close()
	peer.send(payload(10, 3), "127.0.0.1", at.port)
	listener := flow.NewToken(flow.KindRelayUDP, 0, ^id)
	last := &b.r.rec[0].fromPeer
	for *last < 2 && b.r.Len() > 0 { // the second datagram goes out before the answer is seen
		b.r.Event(listener, sys.EPOLLIN)
	}
	b.dropped(stats.BadDest)
	peer.expect(payload(10, 2))
	if b.r.Len() != 0 {
		t.Fatalf("%d flows", b.r.Len())
	}
}

// TestHeldPort: a flow's port can be shared with a listener that asks for it, and is free after the flow.
func TestHeldPort(t *testing.T) {
	b := newRig(t, 4)
	at := bind(t, "127.0.0.1", 0)
	service, peer := b.listen("127.0.0.1", 0), b.listen("127.0.0.9", 0)
	side := Host
	side.Held = new(Held)
	id, err := b.r.Serve(Listener{FD: at.fd, Target: service.port(), To: &side})
	if err != nil {
		t.Fatal(err)
	}
	if from := b.echo(peer, service, "127.0.0.1", at.port, payload(10, 1)); from.Port() != peer.port() {
		t.Fatalf("seen as %v, not from port %d", from, peer.port())
	}
	listen := func(share bool) error {
		fd, err := sys.Listener(sys.ListenOptions{Addr: addrOf("127.0.0.1"), Port: peer.port(), Datagram: true, Share: share})
		if err == nil {
			sys.Close(fd)
		}
		return err
	}
	if !side.Held.Has(peer.port()) || listen(false) == nil || listen(true) != nil {
		t.Errorf("held: %v; a listener alone: %v, sharing: %v", side.Held.Has(peer.port()), listen(false), listen(true))
	}
	b.r.drop(b.r.listeners[id].flows)
	if err := listen(false); side.Held.Has(peer.port()) || err != nil {
		t.Errorf("after the flow: held: %v; a listener: %v", side.Held.Has(peer.port()), err)
	}
}
