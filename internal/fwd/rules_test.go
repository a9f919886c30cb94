package fwd

import (
	"net/netip"
	"testing"

	"penne/internal/wire"
)

func a(s string) wire.Addr {
	if s == "" {
		return wire.Addr{}
	}
	return wire.AddrFrom(netip.MustParseAddr(s))
}

func rules() *Rules {
	r := &Rules{LinkLocal6: a("fe80::1")}
	r.V4 = Family{On: true, Guest: a("192.0.2.2"), Gateway: a("192.0.2.1"), Ours: a("192.0.2.1"),
		HostLoopback: a("192.0.2.1"), GuestMap: a("169.254.1.2"), DNSForward: a("169.254.1.1"), DNSHost: a("127.0.0.53")}
	r.V6 = Family{On: true, Guest: a("2001:db8::2"), Ours: a("fe80::1"), HostLoopback: a("2001:db8::9")}
	return r
}

func TestToHost(t *testing.T) {
	for _, c := range []struct {
		dst  string
		port uint16
		want string
	}{
		{"203.0.113.9", 80, "203.0.113.9"},
		{"192.0.2.1", 80, "127.0.0.1"},
		{"2001:db8::9", 80, "::1"},
		{"169.254.1.2", 80, "192.0.2.2"},
		{"169.254.1.1", 53, "127.0.0.53"},
		{"169.254.1.1", 853, "127.0.0.53"},
		{"169.254.1.1", 80, "169.254.1.1"},
		{"fe80::2", 80, "fe80::2"},
		{"127.0.0.1", 80, ""},
		{"::1", 80, ""},
		{"0.0.0.0", 80, ""},
		{"::", 80, ""},
		{"224.0.0.1", 80, ""},
		{"ff02::1", 80, ""},
		{"255.255.255.255", 80, ""},
	} {
		dst := a(c.dst)
		got, ok := rules().ToHost(&dst, c.port)
		if got != a(c.want) || ok != (c.want != "") {
			t.Errorf("%s port %d leads to %v (%v), want %q", c.dst, c.port, got, ok, c.want)
		}
	}
	r := rules()
	r.V4.GatewayIsResolver = true
	for port, want := range map[uint16]string{53: "192.0.2.1", 853: "192.0.2.1", 80: "127.0.0.1"} {
		dst := a("192.0.2.1")
		if got, _ := r.ToHost(&dst, port); got != a(want) {
			t.Errorf("a gateway that resolves: port %d leads to %v, want %s", port, got, want)
		}
	}
	r.V6.On = false
	if dst := a("2001:db8::7"); func() bool { _, ok := r.ToHost(&dst, 1); return ok }() {
		t.Error("a family that is off is served")
	}
}

func TestToGuest(t *testing.T) {
	for _, c := range []struct{ src, seen, want string }{
		{"203.0.113.9", "", "203.0.113.9"},
		{"127.0.0.1", "", "192.0.2.1"},
		{"::1", "", "2001:db8::9"},
		{"192.0.2.2", "", "169.254.1.2"},
		{"192.0.2.77", "192.0.2.77", "169.254.1.2"},
		{"2001:db8::2", "", "fe80::1"},
		{"fe80::7", "", "fe80::7"},
		{"0.0.0.0", "", ""},
		{"ff02::1", "", ""},
	} {
		var g Guest
		if seen := a(c.seen); c.seen != "" {
			g.SawAddr(&seen)
		}
		src := a(c.src)
		got, ok := rules().ToGuest(&src, &g)
		if got != a(c.want) || ok != (c.want != "") {
			t.Errorf("%s (seen %q) comes from %v (%v), want %q", c.src, c.seen, got, ok, c.want)
		}
	}
}

// TestToGuestFromOtherAddresses has a host with several addresses, which the guest has too.
func TestToGuestFromOtherAddresses(t *testing.T) {
	r := rules()
	r.V4.Others = []wire.Addr{a("192.0.2.3"), a("198.51.100.3")}
	r.V6.Others = []wire.Addr{a("2001:db8::3")}
	for src, want := range map[string]string{
		"192.0.2.3": "169.254.1.2", "198.51.100.3": "169.254.1.2", "192.0.2.4": "192.0.2.4",
		"2001:db8::3": "fe80::1", "2001:db8::4": "2001:db8::4",
	} {
		x := a(src)
		if got, ok := r.ToGuest(&x, &Guest{}); !ok || got != a(want) {
			t.Errorf("%s comes from %v (%v), want %s", src, got, ok, want)
		}
	}
}

func TestToGuestWithoutMapping(t *testing.T) {
	r := rules()
	r.V4.HostLoopback, r.V4.GuestMap, r.V4.Ours = wire.Addr{}, wire.Addr{}, wire.Addr{}
	var g Guest
	for _, s := range []string{"127.0.0.1", "192.0.2.2"} {
		src := a(s)
		if from, ok := r.ToGuest(&src, &g); ok {
			t.Errorf("%s comes from %v with mapping off", s, from)
		}
	}
}

func TestGuestRemembersWhatItMay(t *testing.T) {
	var g Guest
	r := rules()
	if g.MAC() != wire.Broadcast {
		t.Error("unknown MAC is not broadcast")
	}
	m := wire.MAC{2, 1, 2, 3, 4, 5}
	g.SawMAC(&m)
	g.SawMAC(&wire.MAC{1})
	if g.MAC() != m {
		t.Errorf("MAC %v", g.MAC())
	}
	peer4, ll := a("203.0.113.1"), a("fe80::99")
	if g.Addr(&peer4, r) != a("192.0.2.2") {
		t.Error("not the configured address at first")
	}
	for _, s := range []string{"127.0.0.1", "0.0.0.0", "224.0.0.1", "192.0.2.50", "2001:db8::50"} {
		x := a(s)
		g.SawAddr(&x)
	}
	if g.Addr(&peer4, r) != a("192.0.2.50") || g.Addr(&ll, r) != a("2001:db8::50") {
		t.Error("not the observed address")
	}
	own := a("fe80::5")
	g.SawAddr(&own)
	if g.Addr(&ll, r) != own {
		t.Error("not the observed link-local address for a link-local peer")
	}
}

// TestGuestOnLink has guests whose only address of IPv6 is a link-local one, which they may not have used yet.
func TestGuestOnLink(t *testing.T) {
	r := rules()
	own, peer4, peer6 := a("fe80::5"), a("127.0.0.1"), a("::1")
	for _, c := range []struct{ guest4, guest6, seen, want4, want6 string }{
		{"192.0.2.2", "2001:db8::2", "", "192.0.2.2", "2001:db8::2"},
		{"192.0.2.2", "2001:db8::2", "fe80::5", "192.0.2.2", "2001:db8::2"},
		{"", "", "", "", ""},
		{"", "", "fe80::5", "", "fe80::5"},
	} {
		var g Guest
		if c.seen != "" {
			g.SawAddr(&own)
		}
		r.V4.Guest, r.V6.Guest = a(c.guest4), a(c.guest6)
		if to4, to6 := g.OnLink(&peer4, r), g.OnLink(&peer6, r); to4 != a(c.want4) || to6 != a(c.want6) {
			t.Errorf("%+v: %v and %v", c, to4, to6)
		}
	}
}

// TestGuestTurnsNoAlloc: a guest that uses a few addresses by turns makes no garbage.
func TestGuestTurnsNoAlloc(t *testing.T) {
	var g Guest
	r, peer := rules(), a("2001:db8:9::1")
	addrs := []wire.Addr{a("2001:db8::50"), a("2001:db8::51"), a("2001:db8::52")}
	turn := func() {
		for i := range addrs {
			if g.SawAddr(&addrs[i]); g.Addr(&peer, r) != addrs[i] {
				t.Error("not the last one")
			}
		}
	}
	turn()
	if n := testing.AllocsPerRun(100, turn); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for i := range 100 { // more than are kept
		x := a("2001:db8::1")
		x[14] = byte(i)
		if g.SawAddr(&x); g.Addr(&peer, r) != x {
			t.Error("not the last one of many")
		}
	}
}
