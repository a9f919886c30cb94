package ndp_test

import (
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"penne/internal/fwd"
	"penne/internal/ndp"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/tap/tun"
	"penne/tap/tun/tuntest"
)

// TestKernelConfiguresItself lets the kernel be the guest: it makes itself an
// address from our advertisement, finds no duplicate of it, and reaches a
// neighbour and, through us as its router, everything else.
func TestKernelConfiguresItself(t *testing.T) {
	if !sys.HasIPv6() {
		t.Skip("this kernel has no IPv6")
	}
	tuntest.Enter(t)
	tuntest.Sysctl(t, "net/ipv6/conf/default/router_solicitation_delay", "0")
	dev, err := tun.Open(tun.Options{Name: "eth0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	our := wire.MAC{0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55}
	addr := func(s string) wire.Addr { return wire.AddrFrom(netip.MustParseAddr(s)) }
	rules := &fwd.Rules{OurMAC: our, MTU: 9000, LinkLocal6: addr("fe80::1"),
		V6: fwd.Family{On: true, Guest: addr("2001:db8:1::5"), Bits: 64, Gateway: addr("fe80::1")}}
	p := tuntest.NewPump(t, dev.Queue(0), rules)
	r := ndp.New(ndp.Config{DNS: []wire.Addr{addr("2001:db8:1::53")}})
	var got wire.Headers
	var to wire.MAC
	p.Handle = func(f *ring.Frame, v wire.Verdict) {
		switch {
		case v == wire.OK && ndp.Handles(&f.H):
			r.Input(&p.Env, f)
		case v == wire.OK && f.H.Proto == wire.ProtoUDP:
			got, to = f.H, wire.MAC(f.Bytes())
		}
	}

	made := watchAddresses(t, p)
	link := tuntest.SetUp(t, "eth0", wire.MAC{2, 0, 0, 0, 0, 7})
	prefix := netip.MustParsePrefix("2001:db8:1::/64")
	var own netip.Addr
	p.Until(t, "address without a duplicate", func() bool {
		for {
			select {
			case u := <-made:
				a, _ := netip.AddrFromSlice(u.LinkAddress.IP)
				if prefix.Contains(a) && u.Flags&(syscall.IFA_F_TENTATIVE|syscall.IFA_F_DADFAILED) == 0 {
					own = a
				}
			default:
				return own.IsValid()
			}
		}
	})
	t.Logf("the kernel made itself %v", own)
	if l, err := netlink.LinkByIndex(link.Attrs().Index); err != nil || l.Attrs().MTU != 1500 {
		t.Errorf("link: %v, %v", l, err) // the option limits IPv6 only, and below the link's MTU
	}
	for _, peer := range []string{"2001:db8:1::77", "2001:db8:99::1", "fe80::1"} {
		zone := ""
		if peer == "fe80::1" {
			zone = "eth0"
		}
		conn, err := net.DialUDP("udp6", nil, &net.UDPAddr{IP: net.ParseIP(peer), Port: 9, Zone: zone})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		want := addr(peer)
		p.Until(t, "datagram to "+peer, func() bool { return got.Dst == want })
		if to != our || zone == "" && got.Src.Netip() != own {
			t.Errorf("%s: from %v, to %x", peer, got.Src, to)
		}
		conn.Close()
	}
}

// watchAddresses passes on the changes of addresses in the namespace, and wakes
// p for each.
func watchAddresses(t *testing.T, p *tuntest.Pump) <-chan netlink.AddrUpdate {
	t.Helper()
	raw, made, stop := make(chan netlink.AddrUpdate), make(chan netlink.AddrUpdate, 64), make(chan struct{})
	if err := netlink.AddrSubscribe(raw, stop); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case u, ok := <-raw:
				if !ok {
					return
				}
				made <- u
				p.Wake()
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-ended
	})
	return made
}
