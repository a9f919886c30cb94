package ping

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
	"penne/test/guest"
)

// rig is an echo translator with a scripted guest on one side and the host on
// the other, which answers pings by itself.
type rig struct {
	*guest.Guest
	p      *Ping
	t      testing.TB
	warned []error
}

// newRig needs a network namespace around it, since pings are not allowed by
// default.
func newRig(t testing.TB) *rig { return newRigOf(t, 16) }

func newRigOf(t testing.TB, flows int) *rig {
	t.Helper()
	g := guest.New(t, 256)
	r := &rig{Guest: g, t: t}
	p, err := New(Config{Env: g.Env, Flows: flows, Warn: func(err error) { r.warned = append(r.warned, err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	r.p = p
	return r
}

func (r *rig) out(es ...*guest.Echo) {
	r.t.Helper()
	batch := make([]*ring.Frame, 0, len(es))
	for _, e := range es {
		batch = append(batch, r.Echo(e))
	}
	r.p.Input(batch)
	r.Env.Out.Flush()
	if n := r.Env.Pool.Size() - r.Env.Pool.Free(); n != r.Env.Out.Size() {
		r.t.Fatalf("%d frames in use after Input, want %d", n, r.Env.Out.Size())
	}
}

func (r *rig) in() guest.Out {
	r.t.Helper()
	for len(r.Sent) == 0 {
		r.Wait(r.p.Event)
		r.Env.Out.Flush()
	}
	o := r.Sent[0]
	r.Sent = r.Sent[1:]
	return o
}

// side is one family.
type side struct {
	name                string
	guest, gateway, far wire.Addr
	reply               uint8
	exceeded            uint8
}

var sides = []side{
	{"v4", guest.Addr4, guest.Gateway4, guest.Far4, 0, 11},
	{"v6", guest.Addr6, guest.Gateway6, guest.Far6, 129, 3},
}

func eachSide(t *testing.T, fn func(t *testing.T, s side)) {
	for _, s := range sides {
		t.Run(s.name, func(t *testing.T) {
			guest.Namespace(t)
			fn(t, s)
		})
	}
}

func (s side) echo(id, seq uint16, payload []byte) *guest.Echo {
	return &guest.Echo{Src: s.guest, Dst: s.gateway, ID: id, Seq: seq, Payload: payload}
}

// check fails unless o is the answer to e.
func (r *rig) check(o guest.Out, s side, e *guest.Echo) {
	r.t.Helper()
	if o.Verdict != wire.OK || !o.SumOK() || !o.IPOK() {
		r.t.Fatalf("bad frame: verdict %d, sum ok %v, IP sum ok %v", o.Verdict, o.SumOK(), o.IPOK())
	}
	icmp := o.Bytes[o.H.L4:]
	if icmp[0] != s.reply || o.H.Src != e.Dst || o.H.Dst != e.Src {
		r.t.Fatalf("ICMP type %d from %v to %v, want %d from %v to %v", icmp[0], o.H.Src, o.H.Dst, s.reply, e.Dst, e.Src)
	}
	if id, seq := o.H.SrcPort, binary.BigEndian.Uint16(icmp[6:]); id != e.ID || seq != e.Seq {
		r.t.Errorf("identifier %d sequence %d, want %d %d", id, seq, e.ID, e.Seq)
	}
	if !bytes.Equal(o.Payload(), e.Payload) {
		r.t.Errorf("payload of %d octets, want %d", len(o.Payload()), len(e.Payload))
	}
}

func TestEcho(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		r := newRig(t)
		for seq, payload := range [][]byte{[]byte("abcdefgh"), {}, bytes.Repeat([]byte{7}, 20000), make([]byte, 65472)} {
			e := s.echo(4711, uint16(seq), payload)
			r.out(e)
			r.check(r.in(), s, e)
		}
		if c := r.Env.Count; r.p.Len() != 1 || c.PingOpened != 1 || c.PingFlows != 1 {
			t.Errorf("%d flows, counted %d opened, %d open; want 1 1 1", r.p.Len(), c.PingOpened, c.PingFlows)
		}
	})
}

// TestSecondAddress: an echo from another of the guest's addresses is answered to that one, which is then the one
// last seen.
func TestSecondAddress(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		r := newRig(t)
		one, two := s.echo(70, 1, []byte("one")), s.echo(70, 2, []byte("two"))
		two.Src[15] ^= 0x55
		for _, e := range []*guest.Echo{one, two} {
			r.out(e)
			r.check(r.in(), s, e)
			if seen := r.Env.Guest.Addr(&e.Dst, r.Env.Rules); seen != e.Src {
				t.Errorf("%v was seen last, want %v", seen, e.Src)
			}
		}
	})
}

// TestIdentifiers pings two destinations with one identifier, and one that
// another program has.
func TestIdentifiers(t *testing.T) {
	guest.World(t)
	r, s := newRig(t), sides[0]
	near, away := s.echo(99, 1, []byte("near")), s.echo(99, 1, []byte("away"))
	away.Dst = s.far
	r.out(near, away)
	for range 2 {
		o := r.in()
		if o.H.Src == s.far {
			r.check(o, s, away)
		} else {
			r.check(o, s, near)
		}
	}
	if r.p.Len() != 2 {
		t.Errorf("%d flows, want 2", r.p.Len())
	}

	fd, errno := sys.PingSocket(false)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer sys.Close(fd)
	var sa sys.Sockaddr
	sa.SetInet(&[16]byte{10: 0xff, 11: 0xff}, true, 100, 0)
	if errno := sys.Bind(fd, &sa); errno != 0 {
		t.Fatal(errno)
	}
	e := s.echo(100, 2, []byte("taken"))
	r.out(e)
	r.check(r.in(), s, e)
}

func TestTimeExceeded(t *testing.T) {
	for _, s := range sides {
		t.Run(s.name, func(t *testing.T) {
			guest.World(t)
			r := newRig(t)
			e := &guest.Echo{Src: s.guest, Dst: s.far, ID: 5, Seq: 77, TTL: 1, Payload: []byte("how far")}
			r.out(e)
			o := r.in()
			icmp := o.Bytes[o.H.L4:]
			if o.Verdict != wire.OK || !o.SumOK() || icmp[0] != s.exceeded || o.H.Src != s.gateway {
				t.Fatalf("ICMP type %d from %v, sum ok %v; want %d from the router %v", icmp[0], o.H.Src, o.SumOK(), s.exceeded, s.gateway)
			}
			quote := o.Payload()[s.guest.IPLen():]
			if id, seq := binary.BigEndian.Uint16(quote[4:]), binary.BigEndian.Uint16(quote[6:]); id != 5 || seq != 77 {
				t.Errorf("quoted identifier %d sequence %d, want 5 77", id, seq)
			}
			e.TTL = 2
			r.out(e)
			r.check(r.in(), s, e)
			e.TTL = 0 // the usual one
			r.out(e)
			r.check(r.in(), s, e)
		})
	}
}

func TestNoRoute(t *testing.T) {
	far := guest.World(t)
	r, s := newRig(t), sides[0]
	far.Cut()
	r.out(&guest.Echo{Src: s.guest, Dst: s.far, ID: 5})
	o := r.in()
	if icmp := o.Bytes[o.H.L4:]; icmp[0] != 3 || icmp[1] != 0 || r.Env.Count.Drops[stats.BadDest] != 1 {
		t.Errorf("ICMP type %d code %d, want network unreachable", icmp[0], icmp[1])
	}
}

// TestForbidden closes ping_group_range, as it is by default.
func TestForbidden(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		guest.Sysctl(t, "net/ipv4/ping_group_range", "1 0")
		r := newRig(t)
		for range 3 {
			r.out(s.echo(1, 1, nil))
			o := r.in()
			if typ := o.Bytes[o.H.L4]; typ == s.reply || !o.SumOK() {
				t.Errorf("ICMP type %d, want unreachable", typ)
			}
		}
		if len(r.warned) != 1 || !errors.Is(r.warned[0], sys.EACCES) {
			t.Errorf("warned %v, want once, of EACCES", r.warned)
		}
		if r.Env.Count.Drops[stats.NoSocket] != 3 || r.p.Len() != 0 {
			t.Errorf("%d drops, %d flows; want 3, 0", r.Env.Count.Drops[stats.NoSocket], r.p.Len())
		}
	})
}

func TestLifetime(t *testing.T) {
	guest.Namespace(t)
	r, s := newRig(t), sides[0]
	r.out(s.echo(1, 1, nil))
	r.in()
	r.Advance(50 * time.Second)
	r.out(s.echo(1, 2, nil))
	r.in()
	r.Advance(Lifetime - time.Second)
	r.p.Expire()
	if r.p.Len() != 1 {
		t.Fatal("flow ended early")
	}
	if _, ok := r.p.Next(); !ok {
		t.Fatal("a flow without a timer")
	}
	r.Advance(2 * time.Second)
	r.p.Expire()
	if _, ok := r.p.Next(); ok || r.p.Len() != 0 || r.Env.Count.PingClosed != 1 {
		t.Error("flow did not end")
	}
}

func TestDropped(t *testing.T) {
	guest.Namespace(t)
	s := sides[0]
	for _, c := range []struct {
		name string
		e    guest.Echo
		why  stats.Reason
	}{
		{"echo reply", guest.Echo{Src: s.guest, Dst: s.gateway, Type: 129}, stats.Unanswered},
		{"unreachable", guest.Echo{Src: s.guest, Dst: s.gateway, Type: 3}, stats.Unanswered},
		{"multicast", guest.Echo{Src: s.guest, Dst: wire.Addr4([]byte{224, 0, 0, 1})}, stats.BadDest},
		{"loopback source", guest.Echo{Src: wire.Addr{15: 1}, Dst: guest.Gateway6}, stats.BadSource},
	} {
		r := newRig(t)
		r.out(&c.e)
		if r.Env.Count.Drops[c.why] != 1 || r.p.Len() != 0 || len(r.Sent) != 0 {
			t.Errorf("%s: drops %v, want one as %v", c.name, r.Env.Count.Drops, c.why)
		}
	}
	r := newRigOf(t, 1)
	r.out(s.echo(1, 1, nil), s.echo(2, 1, nil))
	if r.Env.Count.Drops[stats.TableFull] != 1 || r.p.Len() != 1 {
		t.Error("second flow of one not refused")
	}
	r = newRig(t)
	rules := *r.Env.Rules
	rules.NoICMP = true
	r.Env.Rules = &rules
	r.out(s.echo(1, 1, nil))
	if r.Env.Count.Drops[stats.FamilyOff] != 1 {
		t.Error("ping although switched off")
	}
}

func TestHandOff(t *testing.T) {
	guest.Namespace(t)
	r, s := newRig(t), sides[0]
	r.Env.Directory = flow.NewDirectory(16)
	var handed *ring.Frame
	r.Env.HandOff = func(f *ring.Frame, owner uint8) { handed = f }
	f := r.Echo(s.echo(9, 1, nil))
	key := flow.Key{Guest: s.guest, Remote: s.gateway, GuestPort: 9, Proto: wire.ProtoICMP}
	hash := r.Env.Seed.Hash(&key)
	r.Env.Directory.Claim(hash, 2)
	r.p.Input([]*ring.Frame{f})
	if handed != f || r.p.Len() != 0 {
		t.Fatal("frame of another shard's flow was kept")
	}
	r.Env.Directory.Release(hash, 2)
	f.Handed = true
	r.p.Input([]*ring.Frame{f})
	r.check(r.in(), s, s.echo(9, 1, nil))
	r.p.Close()
	if _, ok := r.Env.Directory.Owner(hash); ok {
		t.Error("claim outlives its flow")
	}
}

func TestStaleToken(t *testing.T) {
	guest.Namespace(t)
	r, s := newRig(t), sides[0]
	r.out(s.echo(1, 1, nil))
	var tok flow.Token
	r.Wait(func(k flow.Token, _ uint32) { tok = k })
	r.p.drop(tok.Slot())
	r.out(s.echo(2, 1, nil))
	r.p.Event(tok, sys.EPOLLIN|sys.EPOLLERR)
	if r.Env.Out.Flush(); len(r.Sent) != 0 {
		t.Error("stale event served")
	}
}

func TestReplyLongerThanLink(t *testing.T) {
	guest.Namespace(t)
	r, s := newRig(t), sides[0]
	rules := *r.Env.Rules
	rules.MTU = 1500
	r.Env.Rules = &rules
	r.out(s.echo(1, 1, make([]byte, 3000)), s.echo(1, 2, []byte("short")))
	r.check(r.in(), s, s.echo(1, 2, []byte("short")))
	if r.Env.Count.Drops[stats.TooLong] != 1 {
		t.Error("reply longer than the link's MTU not counted")
	}
}

func TestEchoNoAlloc(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		r := newRig(t)
		r.Discard = true
		raw := s.echo(4711, 1, make([]byte, 500)).Bytes()
		batch := make([]*ring.Frame, 1)
		tok := flow.NewToken(flow.KindPing, 0, 0)
		run := func() {
			batch[0] = r.Frame(raw, ring.Offload{})
			r.p.Input(batch)
			r.p.Event(tok, sys.EPOLLIN)
			r.p.Expire()
			r.Env.Out.Flush()
		}
		run()
		if n := testing.AllocsPerRun(200, run); n != 0 {
			t.Errorf("an echo allocates %v times", n)
		}
		if r.p.Len() != 1 || r.Env.Count.PingOpened != 1 {
			t.Errorf("%d flows, want the one of the first echo", r.p.Len())
		}
		r.Discard = false
		if run(); len(r.Sent) != 1 {
			t.Errorf("%d replies to an echo: not measured", len(r.Sent))
		}
	})
}

// FuzzInput feeds ICMP frames as a hostile guest may send them. Destinations
// are led to the host's loopback. No frame may be lost, nothing may panic, and
// what goes to the guest is well-formed.
func FuzzInput(f *testing.F) {
	for _, s := range sides {
		f.Add(s.echo(1, 2, []byte("abc")).Bytes())
		e := s.echo(1, 2, nil)
		e.Type, e.TTL = 3, 1
		f.Add(e.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		guest.Namespace(t)
		r := newRig(t)
		fr := r.Env.Pool.Get()
		fr.SetBounds(ring.HeadRoom, copy(fr.Slot()[ring.HeadRoom:], b))
		if wire.Parse(fr.Bytes(), &fr.H) != wire.OK || fr.H.Proto != wire.ProtoICMP && fr.H.Proto != wire.ProtoICMPv6 {
			return
		}
		fr.H.Dst = guest.Gateway4
		if fr.H.V6 {
			fr.H.Dst = guest.Gateway6
		}
		r.p.Input([]*ring.Frame{fr})
		r.Ready(r.p.Event)
		r.Env.Out.Flush()
		if n := r.Env.Pool.Size() - r.Env.Pool.Free(); n != r.Env.Out.Size() {
			t.Fatalf("%d frames in use, want %d", n, r.Env.Out.Size())
		}
		for _, o := range r.Sent {
			if o.Verdict != wire.OK || !o.SumOK() || !o.IPOK() {
				t.Fatalf("bad frame to the guest: verdict %d", o.Verdict)
			}
		}
	})
}
