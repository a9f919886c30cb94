package udpx

import (
	"testing"

	"penne/internal/stats"
	"penne/internal/wire"
	"penne/ring"
	"penne/test/guest"
)

// beyond is one family's view of the world behind the host.
type beyond struct {
	name                 string
	guest, router        wire.Addr
	far, nowhere         wire.Addr
	exceeded, tooBig     [2]uint8
	noRoute, portUnreach [2]uint8
}

var worlds = []beyond{
	{
		"v4", guest.Addr4, guest.Gateway4, guest.Far4, guest.Nowhere4,
		[2]uint8{11, 0}, [2]uint8{3, 4}, [2]uint8{3, 0}, [2]uint8{3, 3},
	},
	{
		"v6", guest.Addr6, guest.Gateway6, guest.Far6, guest.Nowhere6,
		[2]uint8{3, 0}, [2]uint8{2, 0}, [2]uint8{1, 0}, [2]uint8{1, 4},
	},
}

func eachWorld(t *testing.T, fn func(t *testing.T, r *rig, far *guest.Far, w beyond)) {
	for _, w := range worlds {
		t.Run(w.name, func(t *testing.T) {
			far := guest.World(t)
			fn(t, newRig(t), far, w)
		})
	}
}

func (w beyond) datagram(to wire.Addr, payload []byte) *guest.Datagram {
	return &guest.Datagram{Src: w.guest, Dst: to, SrcPort: 20090, DstPort: 33434, Payload: payload}
}

func TestRemotePeer(t *testing.T) {
	eachWorld(t, func(t *testing.T, r *rig, far *guest.Far, w beyond) {
		srv := &server{far.ListenUDP(w.far, 33434), t}
		d := w.datagram(w.far, pattern(1, 1000))
		r.out(d)
		from := srv.expect(d.Payload)
		if from.Addr() != w.guest.Netip() || from.Port() != d.SrcPort {
			t.Errorf("seen as %v, want the host's address and the guest's port", from)
		}
		srv.reply(pattern(2, 1200), from)
		o := r.in()
		r.check(&o, back(d, pattern(2, 1200)))
		long := pattern(3, 30000) // fragments on both links
		d.Payload = long
		r.out(d)
		if w.guest == guest.Addr6 { // IPv6 routers do not fragment
			r.checkICMP(r.in(), icmpWant{from: w.router, typ: 2, info: uint32(guest.FarMTU), quote: d})
			r.out(d)
		}
		srv.reply(long, srv.expect(long))
		o = r.in()
		r.check(&o, back(d, long))
	})
}

func TestTraceroute(t *testing.T) {
	eachWorld(t, func(t *testing.T, r *rig, far *guest.Far, w beyond) {
		d := w.datagram(w.far, []byte("how far is it?"))
		d.TTL = 1
		r.out(d)
		r.checkICMP(r.in(), icmpWant{from: w.router, typ: w.exceeded[0], code: w.exceeded[1], quote: d})
		d.TTL = 2
		r.out(d)
		r.checkICMP(r.in(), icmpWant{from: w.far, typ: w.portUnreach[0], code: w.portUnreach[1], quote: d})
	})
}

func TestPathMTU(t *testing.T) {
	eachWorld(t, func(t *testing.T, r *rig, far *guest.Far, w beyond) {
		srv := &server{far.ListenUDP(w.far, 33434), t}
		d := w.datagram(w.far, pattern(4, 1440))
		r.out(d)
		r.checkICMP(r.in(), icmpWant{
			from: w.router, typ: w.tooBig[0], code: w.tooBig[1], info: uint32(guest.FarMTU), quote: d,
		})
		r.out(d) // the host knows the path now, and fragments
		srv.expect(d.Payload)
	})
}

// TestBroadcastIsNotAnswered: no socket sends to its network's broadcast address
// unasked, and the guest is not told (RFC 1122 section 3.2.2).
func TestBroadcastIsNotAnswered(t *testing.T) {
	guest.World(t)
	r := newRig(t)
	d := v4.datagram(137, 137, []byte("anybody?"))
	d.Dst = wire.Addr4([]byte{198, 51, 100, 255})
	f := r.Datagram(d)
	copy(f.Bytes(), wire.Broadcast[:])
	r.u.Input([]*ring.Frame{f})
	r.Env.Out.Flush()
	if n := len(r.Take()); n != 0 || r.Env.Count.Drops[stats.BadDest] != 1 {
		t.Errorf("%d answers, drops %v", n, r.Env.Count.Drops)
	}
}

// TestPathMTUShrinksBelowSegments sends a superpacket whose datagrams the first
// link takes and the second does not.
func TestPathMTUShrinksBelowSegments(t *testing.T) {
	eachWorld(t, func(t *testing.T, r *rig, far *guest.Far, w beyond) {
		srv := &server{far.ListenUDP(w.far, 33434), t}
		d := w.datagram(w.far, pattern(5, 14000))
		d.Segment = 1400
		r.out(d)
		if w.guest == guest.Addr6 { // lost; IPv4 rows go without DF (kernel 6.18)
			r.checkICMP(r.in(), icmpWant{from: w.router, typ: 2, info: uint32(guest.FarMTU), quote: d})
			r.out(d)
		}
		for from := 0; from < 14000; from += 1400 {
			srv.expect(d.Payload[from : from+1400])
		}
	})
}

func TestNoRoute(t *testing.T) {
	eachWorld(t, func(t *testing.T, r *rig, far *guest.Far, w beyond) {
		d := w.datagram(w.nowhere, []byte("nobody"))
		r.out(d) // the router says so
		r.checkICMP(r.in(), icmpWant{from: w.router, typ: w.noRoute[0], code: w.noRoute[1], quote: d})
		far.Cut()
		d.SrcPort++
		r.out(d) // the host itself knows
		r.checkICMP(r.in(), icmpWant{from: w.router, typ: w.noRoute[0], code: w.noRoute[1], quote: d})
		if r.u.Len() != 1 {
			t.Errorf("%d flows, want 1: the second has no socket", r.u.Len())
		}
	})
}

func TestOutboundAddressAndInterface(t *testing.T) {
	far := guest.World(t)
	r, srv := newRig(t), &server{far.ListenUDP(guest.Far4, 33434), t}
	rules := *r.Env.Rules
	rules.V4.Bind = wire.Addr4([]byte{198, 51, 100, 4})
	rules.V4.BindIf = "h0"
	r.Env.Rules = &rules
	d := worlds[0].datagram(guest.Far4, []byte("x"))
	r.out(d)
	if from := srv.expect(d.Payload); from.Addr() != rules.V4.Bind.Netip() {
		t.Errorf("seen as %v, want %v", from, rules.V4.Bind)
	}
	rules.V4.BindIf = "none0"
	d.SrcPort++
	r.out(d)
	r.checkICMP(r.in(), icmpWant{from: guest.Gateway4, typ: 3, code: 0, quote: d})
}

func TestInboundFromRemote(t *testing.T) {
	eachWorld(t, func(t *testing.T, r *rig, far *guest.Far, w beyond) {
		peer := &server{far.ListenUDP(w.far, 0), t}
		fd, port := bound(t, "::") // both families
		r.listen(fd, Listener{GuestPort: 5000})
		peer.reply([]byte("hello"), to(w.guest.String(), port))
		o := r.in()
		d := &guest.Datagram{Src: w.guest, Dst: w.far, SrcPort: 5000, DstPort: peer.port(), Payload: []byte("welcome")}
		r.check(&o, back(d, []byte("hello")))
		r.out(d)
		if from := peer.expect(d.Payload); from != to(w.guest.String(), port) {
			t.Errorf("answer comes from %v", from)
		}
	})
}
