package udpx

import (
	"testing"

	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
)

// second is another address of the guest, say one it made itself (SLAAC).
func (s side) second() wire.Addr {
	if s == v4 {
		return wire.Addr4([]byte{192, 0, 2, 77})
	}
	a := s.guest
	a[8] ^= 0x55
	return a
}

// TestAnswerFromAnotherAddress: a server of the guest is asked by one address
// and answers from another, whichever of them was configured or seen last.
func TestAnswerFromAnotherAddress(t *testing.T) {
	for _, c := range []struct {
		name        string
		seen, asked func(s side) wire.Addr // seen at the question; expected to be asked
		answers     func(s side) wire.Addr
	}{
		{"asked by the configured one", nil, configured, side.second},
		{"asked by the one seen", side.second, side.second, configured},
		{"asked by the one seen, which answers", side.second, side.second, side.second},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachSide(t, func(t *testing.T, s side) {
				r, peer := newRig(t), newServer(t, s)
				fd, port := bound(t, s.loopback)
				r.listen(fd, Listener{GuestPort: 53})
				if c.seen != nil {
					seen := c.seen(s)
					r.Env.Guest.SawAddr(&seen)
				}
				d := s.datagram(53, peer.port(), nil)
				for range 2 { // the second one finds the first one's flow without a look
					peer.reply([]byte("query"), to(s.loopback, port))
					o := r.in()
					d.Src = c.asked(s)
					r.check(&o, back(d, []byte("query")))
					d.Src, d.Payload = c.answers(s), []byte("answer")
					r.Env.Guest.SawAddr(&d.Src)
					r.out(d)
					if from := peer.expect(d.Payload); from != to(s.loopback, port) {
						t.Errorf("the answer comes from %v, want port %d", from, port)
					}
				}
				if r.u.Len() != 1 {
					t.Errorf("%d flows, want 1", r.u.Len())
				}
				r.u.drop(0)
				if r.u.anyAddr.table.Len() != 0 {
					t.Error("the index entry outlives its flow")
				}
			})
		})
	}
}

func configured(s side) wire.Addr { return s.guest }

// TestOtherAddressOfTheGuest: what the guest itself begins from two addresses stays apart, and is answered to the
// address it came from.
func TestOtherAddressOfTheGuest(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		r, srv := newRig(t), newServer(t, s)
		one, two := s.datagram(20070, srv.port(), []byte("one")), s.datagram(20070, srv.port(), []byte("two"))
		two.Src = s.second()
		r.out(one)
		first := srv.expect(one.Payload)
		r.out(two)
		second := srv.expect(two.Payload)
		if second == first {
			t.Error("two addresses of the guest look the same on the host")
		}
		srv.reply([]byte("to one"), first)
		o := r.in()
		r.check(&o, back(one, []byte("to one")))
		srv.reply([]byte("to two"), second)
		o = r.in()
		r.check(&o, back(two, []byte("to two")))
	})
}

// TestSourceIsSeen: forwarded datagrams go to the address that the guest last began a flow from.
func TestSourceIsSeen(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		r, peer := newRig(t), newServer(t, s)
		fd, port := bound(t, s.loopback)
		r.listen(fd, Listener{GuestPort: 53})
		d := s.datagram(20080, peer.port(), []byte("x"))
		d.Src = s.second()
		r.out(d)
		peer.expect(d.Payload)
		peer.reply([]byte("query"), to(s.loopback, port))
		o := r.in()
		d.SrcPort = 53
		r.check(&o, back(d, []byte("query")))
	})
}

// TestSharedFollowsItsFlow: the guest is seen with another address while a flow that shares its listener's socket
// goes on.
func TestSharedFollowsItsFlow(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		r, peer := newRig(t), newServer(t, s)
		fd, port := bound(t, s.loopback)
		id := r.listenExclusive(fd, Listener{GuestPort: 53})
		for range 3 {
			peer.reply([]byte("query"), to(s.loopback, port))
			o := r.in()
			r.check(&o, back(s.datagram(53, peer.port(), nil), []byte("query")))
			seen := s.second()
			r.Env.Guest.SawAddr(&seen)
		}
		r.wantFlows(id, 1, 1)
	})
}

// TestFixedAddressesAreKeptApart: two ports of the host lead one peer to the same port of two addresses.
func TestFixedAddressesAreKeptApart(t *testing.T) {
	r, peer := newRig(t), newServer(t, v4)
	d := v4.datagram(53, peer.port(), []byte("answer"))
	for _, guest := range []wire.Addr{v4.second(), {}} {
		fd, port := bound(t, "127.0.0.1")
		r.listen(fd, Listener{GuestPort: 53, Guest: guest})
		peer.reply([]byte("query"), to("127.0.0.1", port))
		if d.Src = guest; guest.IsZero() {
			d.Src = v4.guest
		}
		o := r.in()
		r.check(&o, back(d, []byte("query")))
		r.out(d)
		if from := peer.expect(d.Payload); from.Port() != port {
			t.Errorf("%v is answered from %v, want port %d", d.Src, from, port)
		}
	}
}

// TestAnswerOnAnotherShard: the answer from another address finds the shard of the flow.
func TestAnswerOnAnotherShard(t *testing.T) {
	r, peer := newRig(t), newServer(t, v4)
	r.Env.Directory = flow.NewDirectory(64)
	var handed []*ring.Frame
	r.Env.HandOff = func(f *ring.Frame, owner uint8) {
		if owner != 3 {
			t.Errorf("handed to shard %d, want 3", owner)
		}
		handed = append(handed, f)
	}
	d := v4.datagram(53, peer.port(), []byte("answer"))
	key := flow.Key{Guest: v4.guest, GuestPort: 53, Remote: d.Dst, RemotePort: d.DstPort, Proto: wire.ProtoUDP}
	r.Env.Directory.Claim(r.Env.Seed.Hash(&key), 3)
	key.Guest = wire.Addr{}
	r.Env.Directory.Claim(r.Env.Seed.Hash(&key), 3)
	d.Src = v4.second()
	r.u.Input([]*ring.Frame{r.Datagram(d)})
	if len(handed) != 1 || r.u.Len() != 0 {
		t.Fatalf("%d frames handed on, %d flows made here", len(handed), r.u.Len())
	}
	r.Env.Pool.PutAll(handed[0])
}

// TestAnyAddrKeyIsClaimed: a flow from the host claims its key without the guest's address, and releases it.
func TestAnyAddrKeyIsClaimed(t *testing.T) {
	r, peer := newRig(t), newServer(t, v4)
	r.Env.Directory = flow.NewDirectory(64)
	fd, port := bound(t, "127.0.0.1")
	r.listen(fd, Listener{GuestPort: 53})
	peer.reply([]byte("query"), to("127.0.0.1", port))
	r.in()
	_, hash := r.u.anyAddrKey(r.u.table.Key(0))
	if owner, ok := r.Env.Directory.Owner(hash); !ok || owner != r.Env.Shard {
		t.Errorf("owner %d, %v", owner, ok)
	}
	r.u.drop(0)
	if _, ok := r.Env.Directory.Owner(hash); ok {
		t.Error("the claim outlives its flow")
	}
}
