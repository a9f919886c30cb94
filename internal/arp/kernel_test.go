package arp_test

import (
	"net"
	"net/netip"
	"testing"

	"penne/internal/arp"
	"penne/internal/fwd"
	"penne/internal/wire"
	"penne/ring"
	"penne/tap/tun"
	"penne/tap/tun/tuntest"
)

// TestKernelResolves lets the kernel resolve a neighbour and an address behind a
// route without gateway: what it wanted to send must reach us.
func TestKernelResolves(t *testing.T) {
	tuntest.Enter(t)
	dev, err := tun.Open(tun.Options{Name: "eth0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	guest, mac, our := netip.MustParseAddr("192.0.2.5"), wire.MAC{2, 0, 0, 0, 0, 7}, wire.MAC{0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55}
	tuntest.SetUp(t, "eth0", mac, netip.PrefixFrom(guest, 24), netip.MustParsePrefix("203.0.113.5/32"), netip.MustParsePrefix("10.0.0.1/8"))

	rules := &fwd.Rules{OurMAC: our, V4: fwd.Family{On: true, Guest: wire.AddrFrom(guest), Bits: 24}}
	p := tuntest.NewPump(t, dev.Queue(0), rules)
	var got wire.Headers
	var to wire.MAC
	p.Handle = func(f *ring.Frame, v wire.Verdict) {
		switch {
		case f.H.EtherType == wire.EtherARP:
			arp.Input(&p.Env, f)
		case v == wire.OK && f.H.Proto == wire.ProtoUDP:
			got, to = f.H, wire.MAC(f.Bytes())
		}
	}
	for _, peer := range []string{"192.0.2.1", "192.0.2.77", "10.9.9.9"} {
		conn, err := net.Dial("udp", net.JoinHostPort(peer, "9"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		want := wire.AddrFrom(netip.MustParseAddr(peer))
		p.Until(t, "datagram to "+peer, func() bool { return got.Dst == want })
		if to != our || p.Guest.MAC() != mac || p.Guest.Addr(&want, rules) != got.Src {
			t.Errorf("%s: sent to %x; noted %x, %v", peer, to, p.Guest.MAC(), p.Guest.Addr(&want, rules))
		}
		conn.Close()
	}
}
