package udpx

import (
	"testing"
	"time"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
	"penne/test/guest"
)

// back is what the guest sees of an answer to d.
func back(d *guest.Datagram, payload []byte) *guest.Datagram {
	return &guest.Datagram{Src: d.Dst, Dst: d.Src, SrcPort: d.DstPort, DstPort: d.SrcPort, Payload: payload}
}

func TestRoundTrip(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		r, srv := newRig(t), newServer(t, s)
		for _, payload := range [][]byte{[]byte("hello"), {}, make([]byte, 9000)} {
			d := s.datagram(20001, srv.port(), payload)
			r.out(d)
			peer := srv.expect(payload)
			if peer.Port() != 20001 {
				t.Errorf("host sees source port %d, want the guest's 20001", peer.Port())
			}
			srv.reply(payload, peer)
			o := r.in()
			r.check(&o, back(d, payload))
		}
		if n := r.u.Len(); n != 1 {
			t.Errorf("%d flows, want 1", n)
		}
		if c := r.Env.Count; c.UDPToHost != 3 || c.UDPToGuest != 3 || c.UDPOpened != 1 || c.UDPFlows != 1 {
			t.Errorf("counters %d %d %d %d, want 3 3 1 1", c.UDPToHost, c.UDPToGuest, c.UDPOpened, c.UDPFlows)
		}
	})
}

func TestManyFlowsInOneBatch(t *testing.T) {
	r, a, b := newRig(t), newServer(t, v4), newServer(t, v6)
	r.out(
		v4.datagram(20002, a.port(), []byte("a1")), v6.datagram(20002, b.port(), []byte("b1")),
		v4.datagram(20002, a.port(), []byte("a2")), v6.datagram(20003, b.port(), []byte("b2")),
		v4.datagram(20002, a.port(), []byte("a333")),
	)
	a.expect([]byte("a1"))
	a.expect([]byte("a2"))
	a.expect([]byte("a333"))
	if from := b.expect([]byte("b1")); from.Port() != 20002 {
		t.Errorf("IPv6 flow leaves from port %d, want 20002 as the IPv4 one", from.Port())
	}
	if from := b.expect([]byte("b2")); from.Port() != 20003 {
		t.Errorf("second IPv6 flow leaves from port %d, want 20003", from.Port())
	}
	if n := r.u.Len(); n != 3 {
		t.Errorf("%d flows, want 3", n)
	}
}

func TestLifetimes(t *testing.T) {
	for _, c := range []struct {
		name   string
		rounds int
		life   time.Duration
	}{{"query and answer", 1, DefaultIdle}, {"conversation", 2, DefaultAssured}} {
		t.Run(c.name, func(t *testing.T) {
			r, srv := newRig(t), newServer(t, v4)
			d := v4.datagram(20004, srv.port(), []byte("x"))
			for range c.rounds {
				r.out(d)
				srv.reply([]byte("y"), srv.expect(d.Payload))
				r.in()
				r.Advance(10 * time.Second)
				r.u.Expire()
			}
			r.Advance(c.life - 11*time.Second)
			r.u.Expire()
			if r.u.Len() != 1 {
				t.Fatalf("flow ended before %v", c.life)
			}
			at, ok := r.u.Next()
			if due := r.Env.Now + int64(time.Second); !ok || at > due+int64(time.Second)/5 {
				t.Errorf("next timer in %v, want 1s or sooner", time.Duration(at-r.Env.Now))
			}
			r.Advance(1200 * time.Millisecond)
			r.u.Expire()
			if r.u.Len() != 0 {
				t.Fatalf("flow lives past %v", c.life)
			}
			if _, ok := r.u.Next(); ok {
				t.Error("a timer without a flow")
			}
			if r.Env.Count.UDPClosed != 1 || r.Env.Count.UDPFlows != 0 {
				t.Error("end of flow not counted")
			}
		})
	}
}

func TestOneWayTrafficStaysShortLived(t *testing.T) {
	r, srv := newRig(t), newServer(t, v4)
	d := v4.datagram(20005, srv.port(), []byte("x"))
	for range 5 {
		r.out(d)
	}
	r.Advance(DefaultIdle + time.Second)
	r.u.Expire()
	if r.u.Len() != 0 {
		t.Error("a flow nobody answered is assured")
	}
}

func TestTableFull(t *testing.T) {
	r, srv := newRigOf(t, 1), newServer(t, v4)
	r.out(v4.datagram(20006, srv.port(), []byte("first")))
	srv.expect([]byte("first"))
	d := v4.datagram(20007, srv.port(), []byte("second"))
	r.out(d)
	if n := r.Env.Count.Drops[stats.TableFull]; n != 1 {
		t.Errorf("%d drops for a full table, want 1", n)
	}
	r.checkICMP(r.in(), icmpWant{from: v4.gateway, typ: 3, code: 13, quote: d})
	r.out(v4.datagram(20006, srv.port(), []byte("third")))
	srv.expect([]byte("third"))
}

func TestRefused(t *testing.T) {
	group := wire.Addr4([]byte{224, 0, 0, 251})
	all := wire.Addr4([]byte{255, 255, 255, 255})
	for _, c := range []struct {
		name string
		d    guest.Datagram
		why  stats.Reason
	}{
		{"multicast", guest.Datagram{Src: guest.Addr4, Dst: group, SrcPort: 5353, DstPort: 5353}, stats.BadDest},
		{"broadcast", guest.Datagram{Src: guest.Addr4, Dst: all, SrcPort: 9, DstPort: 9}, stats.BadDest},
		{"loopback", guest.Datagram{Src: guest.Addr6, Dst: wire.Addr{15: 1}, SrcPort: 9, DstPort: 9}, stats.BadDest},
		{"port 0", guest.Datagram{Src: guest.Addr4, Dst: guest.Gateway4, SrcPort: 9}, stats.BadDest},
		{"source multicast", guest.Datagram{Src: group, Dst: guest.Gateway4, SrcPort: 9, DstPort: 9}, stats.BadSource},
		{"source nobody", guest.Datagram{Src: wire.Addr{}, Dst: guest.Gateway6, SrcPort: 9, DstPort: 9}, stats.BadSource},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.out(&c.d)
			if r.Env.Count.Drops[c.why] != 1 || r.u.Len() != 0 || len(r.Sent) != 0 {
				t.Errorf("drops %v, %d flows, %d frames; want one drop as %v only", r.Env.Count.Drops, r.u.Len(), len(r.Sent), c.why)
			}
		})
	}
	t.Run("switched off", func(t *testing.T) {
		r := newRig(t)
		rules := *r.Env.Rules
		rules.V6.On = false
		r.Env.Rules = &rules
		r.out(v6.datagram(9, 9, nil))
		rules.NoUDP = true
		r.out(v4.datagram(9, 9, nil))
		if n := r.Env.Count.Drops[stats.FamilyOff]; n != 2 {
			t.Errorf("%d drops, want 2", n)
		}
	})
}

func TestHandOff(t *testing.T) {
	r, srv := newRig(t), newServer(t, v4)
	r.Env.Directory = flow.NewDirectory(64)
	var handed []*ring.Frame
	r.Env.HandOff = func(f *ring.Frame, owner uint8) {
		if owner != 7 {
			t.Errorf("handed to shard %d, want 7", owner)
		}
		handed = append(handed, f)
	}
	d := v4.datagram(20008, srv.port(), []byte("x"))
	f := r.Datagram(d)
	key := flow.KeyOf(&f.H)
	hash := r.Env.Seed.Hash(&key)
	r.Env.Directory.Claim(hash, 7)
	r.u.Input([]*ring.Frame{f})
	if len(handed) != 1 || r.u.Len() != 0 {
		t.Fatalf("%d frames handed on, %d flows; want 1, 0", len(handed), r.u.Len())
	}
	r.Env.Directory.Release(hash, 7)

	f.Handed = true // what came from elsewhere stays, even for a flow that is new
	r.u.Input([]*ring.Frame{f})
	srv.expect(d.Payload)
	if owner, ok := r.Env.Directory.Owner(hash); !ok || owner != 0 {
		t.Error("flow not claimed")
	}
	r.u.Close()
	if _, ok := r.Env.Directory.Owner(hash); ok {
		t.Error("claim outlives its flow")
	}
}

func TestStaleToken(t *testing.T) {
	r, srv := newRig(t), newServer(t, v4)
	r.out(v4.datagram(20009, srv.port(), []byte("x")))
	srv.reply([]byte("late"), srv.expect([]byte("x")))
	var tok flow.Token
	r.Wait(func(k flow.Token, _ uint32) { tok = k })
	r.u.drop(tok.Slot())
	r.out(v4.datagram(20010, srv.port(), []byte("y"))) // takes the same slot
	r.u.Event(tok, sys.EPOLLIN|sys.EPOLLERR)
	r.u.Event(flow.NewToken(flow.KindUDP, 0, 1<<30), sys.EPOLLIN)
	r.u.Event(flow.NewToken(flow.KindListenUDP, 0, 1<<30), sys.EPOLLIN)
	if len(r.Take()) != 0 {
		t.Error("stale event served")
	}
}

func TestHopLimitIsTheGuests(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		r, srv := newRig(t), newServer(t, s)
		set := func(ttl uint8) int {
			d := s.datagram(20011, srv.port(), []byte{ttl})
			d.TTL = ttl
			r.out(s.datagram(20011, srv.port(), []byte("plain")), d)
			srv.expect([]byte("plain"))
			srv.expect(d.Payload)
			return ttlOf(t, r.u.rec[0].fd, s == v6)
		}
		for _, ttl := range []uint8{3, 128, 64} {
			if got := set(ttl); got != int(ttl) {
				t.Errorf("socket has hop limit %d, want %d", got, ttl)
			}
		}
	})
}

// TestHopLimitZero: a limit that no host sends is taken for 1, and leaves nothing
// behind.
func TestHopLimitZero(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		r, srv := newRig(t), newServer(t, s)
		for _, c := range []struct{ ttl, want uint8 }{{5, 5}, {0, 1}, {64, 64}} {
			f := r.Datagram(s.datagram(20012, srv.port(), []byte("x")))
			f.H.TTL = c.ttl
			r.u.Input([]*ring.Frame{f})
			if got := ttlOf(t, r.u.rec[0].fd, s == v6); got != int(c.want) {
				t.Errorf("socket has hop limit %d after %d, want %d", got, c.ttl, c.want)
			}
		}
	})
}

func TestNewRefusesNoRoom(t *testing.T) {
	g := guest.New(t, 64)
	if _, err := New(Config{Env: g.Env}); err == nil {
		t.Error("a translator for no flow")
	}
}
