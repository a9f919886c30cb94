package ndp

import (
	"encoding/binary"
	"math"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/ndp"

	"penne/csum"
	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/wire"
	"penne/ring"
	"penne/test/responder"
)

var (
	ourMAC   = responder.OurMAC
	guestMAC = responder.GuestMAC
	ourLL    = addr("fe80::9855:9aff:fe55:9a55")
	guestLL  = addr("fe80::ff:fe00:7")
	any6     = wire.Addr{}
)

func addr(s string) wire.Addr { return wire.AddrFrom(netip.MustParseAddr(s)) }

var rules = fwd.Rules{
	OurMAC: ourMAC, MTU: 65520, LinkLocal6: ourLL,
	V6: fwd.Family{On: true, Guest: addr("2001:db8:1::5"), Bits: 64, Gateway: addr("2001:db8:1::1"),
		Ours: addr("2001:db8:1::1"), HostLoopback: addr("2001:db8:1::1"), DNSForward: addr("2001:db8:1::53")},
}

type bench struct{ *responder.Bench }

func newBench(t testing.TB) bench {
	t.Helper()
	return bench{responder.New(t, rules)}
}

// load makes frame the input; false if it is not ours.
func (b *bench) load(frame []byte) bool { return b.Load(frame) == wire.OK && Handles(&b.In.H) }

// input gives frame to r and returns the answer, if any.
func (b *bench) input(r *Responder, frame []byte) []byte {
	b.Got = nil
	if !b.load(frame) {
		return nil
	}
	return b.Of(func() { r.Input(&b.Env, b.In) })
}

// packet wraps an ICMPv6 message as the guest sends it; the checksum is made.
func packet(dstMAC wire.MAC, src, dst wire.Addr, msg []byte) []byte {
	b := make([]byte, ethIP+len(msg))
	wire.PutEth(b, &dstMAC, &guestMAC, wire.EtherIPv6)
	wire.PutIPv6(b[wire.EthLen:], len(msg), wire.ProtoICMPv6, hopLimit, &src, &dst)
	copy(b[ethIP:], msg)
	b[ethIP+2], b[ethIP+3] = 0, 0
	sum := csum.Sum(b[ethIP:], wire.PseudoSum(&src, &dst, wire.ProtoICMPv6, len(msg)))
	binary.BigEndian.PutUint16(b[ethIP+2:], csum.Finish(sum))
	return b
}

// solicited is the solicited-node group of a, and its Ethernet address.
func solicited(a wire.Addr) (wire.Addr, wire.MAC) {
	g := addr("ff02::1:ff00:0")
	copy(g[13:], a[13:])
	return g, wire.MAC{0x33, 0x33, g[12], g[13], g[14], g[15]}
}

func marshal(t testing.TB, m ndp.Message) []byte {
	t.Helper()
	b, err := ndp.MarshalMessage(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ns is a Neighbour Solicitation as the guest's kernel builds it.
func ns(t testing.TB, src, target wire.Addr) []byte {
	m := &ndp.NeighborSolicitation{TargetAddress: target.Netip()}
	if !src.IsUnspecified() {
		m.Options = []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: guestMAC[:]}}
	}
	dst, mac := solicited(target)
	return packet(mac, src, dst, marshal(t, m))
}

func rs(t testing.TB, src wire.Addr) []byte {
	m := &ndp.RouterSolicitation{}
	if !src.IsUnspecified() {
		m.Options = []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: guestMAC[:]}}
	}
	return packet(wire.MAC{0x33, 0x33, 0, 0, 0, 2}, src, addr("ff02::2"), marshal(t, m))
}

// decode checks an answer's envelope and returns its message, read by another
// implementation than ours.
func decode(t *testing.T, frame []byte, dst wire.Addr, mac wire.MAC) (wire.Addr, ndp.Message) {
	t.Helper()
	var h wire.Headers
	if v := wire.Parse(frame, &h); v != wire.OK {
		t.Fatalf("verdict %d of %x", v, frame)
	}
	if h.TTL != hopLimit || h.Dst != dst || wire.MAC(frame) != mac || wire.MAC(frame[6:]) != ourMAC {
		t.Errorf("hop limit %d, to %v at %x, want %v at %x", h.TTL, h.Dst, frame[:6], dst, mac)
	}
	if !h.SumOK(frame) {
		t.Error("wrong checksum")
	}
	m, err := ndp.ParseMessage(frame[ethIP:])
	if err != nil {
		t.Fatal(err)
	}
	return h.Src, m
}

func TestNeighbourAdvertisement(t *testing.T) {
	for _, c := range []struct {
		name           string
		src, target    wire.Addr
		dst            wire.Addr
		mac            wire.MAC
		router, solict bool
	}{
		{"gateway", guestLL, rules.V6.Gateway, guestLL, guestMAC, true, true},
		{"our link-local", guestLL, ourLL, guestLL, guestMAC, true, true},
		{"neighbour", rules.V6.Guest, addr("2001:db8:1::77"), rules.V6.Guest, guestMAC, false, true},
		{"off-link", rules.V6.Guest, addr("2001:db8:99::1"), rules.V6.Guest, guestMAC, false, true},
		{"detection of a duplicate of ours", any6, rules.V6.DNSForward, allNodes.addr, allNodes.mac, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			reply := b.input(New(Config{}), ns(t, c.src, c.target))
			if reply == nil {
				t.Fatal("no answer")
			}
			src, m := decode(t, reply, c.dst, c.mac)
			want := &ndp.NeighborAdvertisement{Router: c.router, Solicited: c.solict, Override: true,
				TargetAddress: c.target.Netip(),
				Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: net.HardwareAddr(ourMAC[:])}}}
			if src != c.target || !reflect.DeepEqual(m, want) {
				t.Errorf("from %v: %+v", src, m)
			}
		})
	}
}

func TestNotAnswered(t *testing.T) {
	other := ns(t, guestLL, rules.V6.Gateway)
	copy(other, []byte{2, 9, 9, 9, 9, 9})
	for _, c := range []struct {
		name  string
		frame []byte
	}{
		{"the guest's own", ns(t, guestLL, rules.V6.Guest)},
		{"detection of the guest's own", ns(t, any6, rules.V6.Guest)},
		{"detection of an address of its choice", ns(t, any6, addr("2001:db8:1::ff:fe00:7"))},
		{"detection of its link-local address", ns(t, any6, guestLL)},
		{"to another station", other},
		{"advertisement", packet(allNodes.mac, guestLL, allNodes.addr,
			marshal(t, &ndp.NeighborAdvertisement{TargetAddress: guestLL.Netip()}))},
		{"router advertisement", packet(allNodes.mac, guestLL, allNodes.addr, marshal(t, &ndp.RouterAdvertisement{}))},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			if b.input(New(Config{}), c.frame) != nil {
				t.Error("answered")
			}
			if b.Count.Drops != [stats.NumReasons]uint64{} {
				t.Errorf("drops %v", b.Count.Drops)
			}
		})
	}
}

// TestSeenAddress: an address that the guest took by itself is its own as well.
func TestSeenAddress(t *testing.T) {
	b, r := newBench(t), New(Config{})
	own := addr("2001:db8:1::ff:fe00:7")
	b.input(r, ns(t, own, rules.V6.Gateway))
	b.input(r, ns(t, guestLL, rules.V6.Gateway))
	if b.Guest.MAC() != guestMAC || b.Guest.Addr(&own, &rules) != own || b.Guest.Addr(&guestLL, &rules) != guestLL {
		t.Errorf("noted %x, %v, %v", b.Guest.MAC(), b.Guest.Addr(&own, &rules), b.Guest.Addr(&guestLL, &rules))
	}
	for _, a := range []wire.Addr{own, guestLL} {
		if b.input(r, ns(t, addr("2001:db8:1::98"), a)) != nil {
			t.Errorf("answered for %v, which the guest uses", a)
		}
		b.input(r, ns(t, own, rules.V6.Gateway))
	}
}

func TestRouterAdvertisement(t *testing.T) {
	b := newBench(t)
	r := New(Config{DNS: []wire.Addr{wire.Addr4([]byte{192, 0, 2, 53}), addr("2001:db8:1::53"), addr("2001:db8::54")},
		Search: []string{"example.com", "a.test."}, Other: true, MTU: 65520})
	reply := b.input(r, rs(t, guestLL))
	if reply == nil {
		t.Fatal("no answer")
	}
	src, m := decode(t, reply, guestLL, guestMAC)
	infinite := math.MaxUint32 * time.Second
	want := &ndp.RouterAdvertisement{CurrentHopLimit: 64, OtherConfiguration: true, RouterLifetime: RouterLifetime,
		Options: []ndp.Option{
			&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: ourMAC[:]},
			ndp.NewMTU(65520),
			&ndp.PrefixInformation{PrefixLength: 64, OnLink: true, AutonomousAddressConfiguration: true,
				ValidLifetime: infinite, PreferredLifetime: infinite, Prefix: netip.MustParseAddr("2001:db8:1::")},
			&ndp.RecursiveDNSServer{Lifetime: infinite,
				Servers: []netip.Addr{netip.MustParseAddr("2001:db8:1::53"), netip.MustParseAddr("2001:db8::54")}},
			&ndp.DNSSearchList{Lifetime: infinite, DomainNames: []string{"example.com", "a.test"}},
		}}
	if src != ourLL || !reflect.DeepEqual(m, want) {
		t.Errorf("from %v:\ngot  %+v\nwant %+v", src, m, want)
	}
}

// TestRAVariants looks at what depends on the rules.
func TestRAVariants(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*fwd.Rules)
		check  func(*ndp.RouterAdvertisement) bool
	}{
		{"usual", func(*fwd.Rules) {}, func(m *ndp.RouterAdvertisement) bool { return len(m.Options) == 2 }},
		{"no gateway", func(r *fwd.Rules) { r.V6.Gateway = any6 },
			func(m *ndp.RouterAdvertisement) bool { return m.RouterLifetime == 0 && prefixOf(m) != nil }},
		{"no address", func(r *fwd.Rules) { r.V6.Guest = any6 },
			func(m *ndp.RouterAdvertisement) bool { return prefixOf(m) == nil && m.RouterLifetime != 0 }},
		{"single address", func(r *fwd.Rules) { r.V6.Bits = 128 },
			func(m *ndp.RouterAdvertisement) bool { return prefixOf(m) == nil }},
		{"prefix of 60", func(r *fwd.Rules) { r.V6.Guest, r.V6.Bits = addr("2001:db8:1:ab::5"), 60 },
			func(m *ndp.RouterAdvertisement) bool {
				p := prefixOf(m)
				return p != nil && p.OnLink && !p.AutonomousAddressConfiguration && p.PrefixLength == 60 &&
					p.Prefix == netip.MustParseAddr("2001:db8:1:a0::")
			}},
		{"prefix of 121", func(r *fwd.Rules) { r.V6.Guest, r.V6.Bits = addr("2001:db8::ff"), 121 },
			func(m *ndp.RouterAdvertisement) bool {
				p := prefixOf(m)
				return p != nil && p.PrefixLength == 121 && p.Prefix == netip.MustParseAddr("2001:db8::80")
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			c.change(b.Rules)
			_, m := decode(t, b.input(New(Config{}), rs(t, any6)), allNodes.addr, allNodes.mac)
			if !c.check(m.(*ndp.RouterAdvertisement)) {
				t.Errorf("%+v", m)
			}
		})
	}
}

// TestMTU wants it announced if it is given and IPv6 can have it, whatever the rules' is.
func TestMTU(t *testing.T) {
	for mtu, want := range map[int]bool{0: false, 1279: false, 1280: true, 65520: true} {
		b := newBench(t)
		_, m := decode(t, b.input(New(Config{MTU: mtu}), rs(t, any6)), allNodes.addr, allNodes.mac)
		has := slices.ContainsFunc(m.(*ndp.RouterAdvertisement).Options, func(o ndp.Option) bool {
			v, ok := o.(*ndp.MTU)
			return ok && int(v.MTU) == mtu
		})
		if has != want {
			t.Errorf("%d: %+v", mtu, m)
		}
	}
}

// TestConfiguredGuest is one that must not take an address or a route from an advertisement.
func TestConfiguredGuest(t *testing.T) {
	b := newBench(t)
	r := New(Config{Configured: true, Other: true, MTU: 65520, DNS: []wire.Addr{addr("2001:db8:1::53")}})
	_, m := decode(t, b.input(r, rs(t, guestLL)), guestLL, guestMAC)
	want := &ndp.RouterAdvertisement{CurrentHopLimit: 64, OtherConfiguration: true, Options: []ndp.Option{
		&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: ourMAC[:]},
		ndp.NewMTU(65520),
		&ndp.RecursiveDNSServer{Lifetime: math.MaxUint32 * time.Second, Servers: []netip.Addr{netip.MustParseAddr("2001:db8:1::53")}},
	}}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("got  %+v\nwant %+v", m, want)
	}
}

func prefixOf(m *ndp.RouterAdvertisement) *ndp.PrefixInformation {
	for _, o := range m.Options {
		if p, ok := o.(*ndp.PrefixInformation); ok {
			return p
		}
	}
	return nil
}

func TestAdvertise(t *testing.T) {
	b := newBench(t)
	b.Rules.LinkLocal6 = any6
	New(Config{Managed: true}).Advertise(&b.Env)
	b.Out.Flush()
	if len(b.Got) != 1 {
		t.Fatalf("%d frames", len(b.Got))
	}
	src, m := decode(t, b.Got[0], allNodes.addr, allNodes.mac)
	if src != ourLL || !m.(*ndp.RouterAdvertisement).ManagedConfiguration {
		t.Errorf("from %v, want the address that belongs to our MAC: %+v", src, m)
	}
}

func TestOff(t *testing.T) {
	for _, c := range []struct {
		name             string
		cfg              Config
		v6, nsOK, raOK   bool
		familyOffCounted uint64
	}{
		{"all on", Config{}, true, true, true, 0},
		{"--no-ra", Config{NoRA: true}, true, true, false, 0},
		{"--no-ndp", Config{Off: true}, true, false, false, 0},
		{"-4", Config{}, false, false, false, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, r := newBench(t), New(c.cfg)
			b.Rules.V6.On = c.v6
			if got := b.input(r, ns(t, guestLL, rules.V6.Gateway)) != nil; got != c.nsOK {
				t.Errorf("solicitation of a neighbour answered: %v", got)
			}
			if got := b.input(r, rs(t, guestLL)) != nil; got != c.raOK {
				t.Errorf("solicitation of a router answered: %v", got)
			}
			b.Got = nil
			r.Advertise(&b.Env)
			b.Out.Flush()
			if got := len(b.Got) == 1; got != c.raOK {
				t.Errorf("advertised: %v", got)
			}
			if b.Count.Drops[stats.FamilyOff] != c.familyOffCounted {
				t.Errorf("drops %v", b.Count.Drops)
			}
		})
	}
}

// TestSearchList feeds what a resolv.conf may hold.
func TestSearchList(t *testing.T) {
	long := strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + "." + strings.Repeat("c", 60) + ".example"
	bad := []string{"", ".", "a..b", strings.Repeat("x", 64) + ".com", strings.Repeat("abcd.", 60)}
	if r := New(Config{Search: bad}); !slices.Equal(r.LeftOut(), bad) || len(r.options) != 0 {
		t.Errorf("left out %q, %d octets", r.LeftOut(), len(r.options))
	}
	many := slices.Repeat([]string{long}, 6)
	many = append(many, "short.test")
	dns := slices.Repeat([]wire.Addr{addr("2001:db8::1")}, 20)
	r := New(Config{Search: many, DNS: dns})
	if len(r.LeftOut()) != 2 || r.LeftOut()[0] != long {
		t.Errorf("left out %q", r.LeftOut())
	}
	b := newBench(t)
	reply := b.input(r, rs(t, guestLL))
	if n := len(reply) - wire.EthLen; n > minMTU {
		t.Errorf("advertisement of %d octets", n)
	}
	// By hand: ndp.ParseMessage v1.1.0 reads no option of 256 octets or more.
	opts := reply[ethIP+lenRA:]
	if _, ok := options(opts, optDNSSL); !ok {
		t.Fatalf("options %x", opts)
	}
	for ; opts[0] != optDNSSL; opts = opts[8*int(opts[1]):] {
		if opts[0] == optRDNSS && opts[1] != 1+2*maxDNS {
			t.Errorf("%d octets of resolvers", 8*int(opts[1]))
		}
	}
	if names := namesOf(opts[8:]); len(opts) != 8*int(opts[1]) || len(names) != 5 || names[0] != long || names[4] != "short.test" {
		t.Errorf("search list %q", names)
	}
}

// namesOf reads domain names up to the padding (RFC 1035 section 3.1).
func namesOf(b []byte) (names []string) {
	for len(b) > 0 && b[0] != 0 {
		var labels []string
		for ; b[0] != 0; b = b[1+int(b[0]):] {
			labels = append(labels, string(b[1:1+int(b[0])]))
		}
		names, b = append(names, strings.Join(labels, ".")), b[1:]
	}
	return names
}

// TestPartialChecksum: a peer that leaves the sum to us has not computed it.
func TestPartialChecksum(t *testing.T) {
	b := newBench(t)
	frame := ns(t, guestLL, rules.V6.Gateway)
	frame[ethIP+2] ^= 1
	b.load(frame)
	b.In.Offload = ring.Offload{NeedsCsum: true, CsumStart: ethIP, CsumOffset: 2}
	New(Config{}).Input(&b.Env, b.In)
	b.Out.Flush()
	if len(b.Got) != 1 {
		t.Errorf("%d answers, drops %v", len(b.Got), b.Count.Drops)
	}
}

func TestHandles(t *testing.T) {
	for typ := range 256 {
		h := wire.Headers{V6: true, Proto: wire.ProtoICMPv6, DstPort: uint16(typ) << 8}
		if got, want := Handles(&h), typ >= 133 && typ <= 137; got != want {
			t.Errorf("type %d: %v", typ, got)
		}
	}
	if h := (wire.Headers{Proto: wire.ProtoUDP, V6: true, DstPort: 135 << 8}); Handles(&h) {
		t.Error("UDP")
	}
}

func TestInputNoAlloc(t *testing.T) {
	r := New(Config{DNS: []wire.Addr{addr("2001:db8::53")}})
	for _, frame := range [][]byte{ns(t, guestLL, rules.V6.Gateway), rs(t, guestLL)} {
		b := newBench(t)
		b.load(frame)
		b.NoAlloc(t, func() { r.Input(&b.Env, b.In) })
	}
}
