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
	service, peer := listen(t, "127.0.0.1", 0), listen(t, "127.0.0.1", 0)
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
	service := listen(t, "127.0.0.1", 0)
	id := b.serve(at, service)
	b.serve(kept, service)
	var peers []*conn
	for i := range 3 {
		peer := listen(t, "127.0.0.1", 0)
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
	// The place is used again, by a listener on the same port.
	if again := b.serve(at, service); again != id {
		t.Fatalf("place %d, want %d", again, id)
	}
	b.echo(peers[0], service, "127.0.0.1", at.port, payload(10, 3))
}

func TestRemoveOneFlowOfAList(t *testing.T) {
	for gone := range 3 {
		b := newRig(t, 8)
		at := bind(t, "127.0.0.1", 0)
		service := listen(t, "127.0.0.1", 0)
		id := b.serve(at, service)
		for range 3 {
			b.echo(listen(t, "127.0.0.1", 0), service, "127.0.0.1", at.port, payload(10, 1))
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
	service := listen(t, "127.0.0.1", 0)
	peers := []*conn{listen(t, "127.0.0.1", 0), listen(t, "127.0.0.1", 0), listen(t, "127.0.0.1", 0)}
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
	service := listen(t, "127.0.0.1", 0)
	b.serve(at, service)
	if _, err := b.r.Serve(Listener{FD: at.fd, Target: 1, To: &Host}); err == nil {
		t.Error("watched twice, and no error")
	}
	b.echo(listen(t, "127.0.0.1", 0), service, "127.0.0.1", at.port, payload(10, 1))
}

func TestNoAddressOverThere(t *testing.T) {
	b := newRig(t, 4)
	at := bind(t, "127.0.0.1", 0)
	nowhere := Side{Socket: hostSocket, Addr: func(*wire.Addr) wire.Addr { return wire.Addr{} }}
	if _, err := b.r.Serve(Listener{FD: at.fd, Target: 1, To: &nowhere}); err != nil {
		t.Fatal(err)
	}
	listen(t, "127.0.0.1", 0).send([]byte("x"), "127.0.0.1", at.port)
	b.step()
	b.drops(stats.BadDest, 1)
}

// TestStaleEvents gives the relay tokens of flows and listeners that are gone.
func TestStaleEvents(t *testing.T) {
	b := newRig(t, 4)
	at := bind(t, "127.0.0.1", 0)
	service, peer := listen(t, "127.0.0.1", 0), listen(t, "127.0.0.1", 0)
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
	b.step()
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
