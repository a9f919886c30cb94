package e2e

import (
	"net/netip"
	"strings"
	"testing"

	"penne/test/bed"
)

// TestMappingOfTheHost reaches the host by the addresses that stand for it inside. "" is a refusal by whoever has
// the address for real: the remote machine has the gateway's, nobody has the others.
func TestMappingOfTheHost(t *testing.T) {
	const (
		port = 9100
		map4 = "192.0.2.9"
		map6 = "2001:db8:9::9"
	)
	b, host, _ := portsBed(t)
	for _, network := range []string{"tcp", "udp"} {
		serveIn(t, host, network, "who", at(lo4, port), at(lo6, port), at(net4, port), at(net6, port))
	}
	for _, c := range []struct {
		options []string
		want    map[string]string // the host's address that is reached, by address inside
	}{
		{nil, map[string]string{bed.GatewayIP4: lo4, bed.GatewayIP6: lo6}},
		{[]string{"--map-host-loopback", map4}, map[string]string{map4: lo4, bed.GatewayIP4: "", bed.GatewayIP6: lo6}},
		{
			[]string{"--map-host-loopback", map4, "--map-host-loopback", map6},
			map[string]string{map4: lo4, map6: lo6, bed.GatewayIP4: "", bed.GatewayIP6: ""},
		},
		{[]string{"--map-host-loopback", "none"}, map[string]string{bed.GatewayIP4: "", bed.GatewayIP6: ""}},
		{[]string{"--no-map-gw"}, map[string]string{bed.GatewayIP4: "", bed.GatewayIP6: ""}},
		{
			[]string{"--no-map-gw", "--map-guest-addr", map4, "--map-guest-addr", map6},
			map[string]string{map4: net4, map6: net6, bed.GatewayIP4: ""},
		},
		{
			[]string{"--map-guest-addr", map4, "--map-guest-addr", "none"},
			map[string]string{bed.GatewayIP4: lo4, bed.GatewayIP6: lo6},
		},
	} {
		t.Run(strings.Join(c.options, " "), func(t *testing.T) {
			s := forward(t, b, append(append([]string{}, noForward...), c.options...)...)
			for addr, want := range c.want {
				for _, network := range []string{"tcp", "udp"} {
					a := ask(t, s, network, at(addr, port))
					if a.localIP() != want || want == "" && !a.refused() || want != "" && a.remoteIP() != want {
						t.Errorf("%s by %s reached %+v, want %q", addr, network, a, want)
					}
				}
			}
		})
	}
}

// TestSecondAddressOfTheHost forwards ports of an address that is not the first, and answers from it.
func TestSecondAddressOfTheHost(t *testing.T) {
	b, _, remote := portsBed(t)
	second := map[string]string{"v4": "198.51.100.77", "v6": "2001:db8:1::77"}
	inHost(t, b, "ip", "addr", "add", second["v4"]+"/24", "dev", bed.Link)
	inHost(t, b, "ip", "addr", "add", second["v6"]+"/64", "dev", bed.Link, "nodad")
	s := forward(t, b, "-t", "8000", "-u", "8000", "-T", "none", "-U", "none")
	got := addresses(t, s)[bed.Link].globals()
	for _, network := range []string{"tcp", "udp"} {
		serveIn(t, s, network, "who", ":8000")
		for _, ip := range second {
			if !strings.Contains(got, ip) {
				t.Errorf("the namespace has %s, without %s", got, ip)
			}
			// A connected UDP client takes answers from the address it wrote to, and from no other.
			if a := ask(t, remote, network, at(ip, 8000)); a.remoteIP() != ipOf(a.From) || a.Text != "" {
				t.Errorf("%s by %s: %+v", ip, network, a)
			}
		}
	}
}

// TestClientHasSecondAddress connects from an address of the host that the guest has as well, be it the first or not.
func TestClientHasSecondAddress(t *testing.T) {
	b, host, _ := portsBed(t)
	second := map[string]string{"v4": "198.51.100.77", "v6": "2001:db8:1::77"}
	onHost(t, b, "addr", "add", second["v4"]+"/24", "dev", bed.Link)
	onHost(t, b, "addr", "add", second["v6"]+"/64", "dev", bed.Link, "nodad")
	s := forward(t, b, "-t", "8000", "-u", "8000", "-T", "none", "-U", "none")
	later := map[string]string{"v4": "198.51.100.78", "v6": "2001:db8:1::78"}
	onHost(t, b, "addr", "add", later["v4"]+"/24", "dev", bed.Link)
	onHost(t, b, "addr", "add", later["v6"]+"/64", "dev", bed.Link, "nodad")
	awaitInside(t, s, later["v4"], "addr")
	awaitInside(t, s, later["v6"], "addr")
	// Each asks from a port of its own: the guest sees all of them at the gateway's address.
	port := 20200
	for _, network := range []string{"tcp", "udp"} {
		serveIn(t, s, network, "who", ":8000")
		eachFamily(t, func(t *testing.T, f family) {
			for _, from := range []string{f.host, second[f.name], later[f.name]} {
				for _, to := range []string{f.host, second[f.name], later[f.name]} {
					port++
					if a := ask(t, host, network, at(to, 8000), at(from, port)); a.remoteIP() != f.gateway || a.Text != "" {
						t.Errorf("%s from %s to %s: %+v", network, from, to, a)
					}
				}
			}
		})
	}
}

// TestClientIsTheGateway connects from the router itself, whose address inside stands for the host's loopback.
func TestClientIsTheGateway(t *testing.T) {
	b, _, remote := portsBed(t)
	s := forward(t, b, "-t", "8000", "-u", "8000", "-T", "none", "-U", "none")
	for _, network := range []string{"tcp", "udp"} {
		serveIn(t, s, network, "who", ":8000")
		eachFamily(t, func(t *testing.T, f family) {
			a := ask(t, remote, network, at(f.host, 8000), at(f.gateway, 0))
			if a.remoteIP() != f.gateway || a.Text != "" {
				t.Errorf("by %s: %+v", network, a)
			}
		})
	}
}

// addLinkLocal gives a namespace a link-local address that can be used at once.
func addLinkLocal(t *testing.T, n *bed.NS, ip, dev string) {
	t.Helper()
	asRoot(t, n, "ip", "addr", "add", ip+"/64", "dev", dev, "nodad")
}

// TestLinkLocal connects by link-local addresses: in through the template interface and another one, and out.
func TestLinkLocal(t *testing.T) {
	const hostAddr, remoteAddr = "fe80::a:2", "fe80::a:3"
	b, _, remote := portsBed(t)
	addDetour(t, b, remote)
	links := []string{bed.Link, "detour"}
	for _, link := range links {
		addLinkLocal(t, b.Host, hostAddr, link)
		addLinkLocal(t, b.Remote, remoteAddr, link)
	}
	s := forward(t, b, "-t", "8000", "-u", "8000", "-T", "none", "-U", "none")
	for _, network := range []string{"tcp", "udp"} {
		serveIn(t, s, network, "who", ":8000")
		for _, link := range links {
			in := ask(t, remote, network, at(hostAddr+"%"+link, 8000), at(remoteAddr+"%"+link, 0))
			if from, err := netip.ParseAddr(in.remoteIP()); err != nil || from.WithZone("").String() != remoteAddr {
				t.Errorf("in by %s through %s: %+v", network, link, in)
			}
		}
		zone := "%" + bed.Link
		serveIn(t, remote, network, "who", at(remoteAddr+zone, 8001))
		out := ask(t, s, network, at(remoteAddr+zone, 8001))
		if from, err := netip.ParseAddr(out.remoteIP()); err != nil || !from.IsLinkLocalUnicast() {
			t.Errorf("out by %s: %+v", network, out)
		}
	}
}

// TestLinkLocalSource has -o name a link-local address, which no socket is bound to without its interface.
func TestLinkLocalSource(t *testing.T) {
	const hostAddr, remoteAddr = "fe80::a:2", "fe80::a:3"
	b := newBed(t)
	addLinkLocal(t, b.Host, hostAddr, bed.Link)
	addLinkLocal(t, b.Remote, remoteAddr, bed.Link)
	s, remote := attach(t, b, "-o", hostAddr), direct(t, b, b.Remote)
	zone := "%" + bed.Link
	for _, network := range []string{"tcp", "udp"} {
		serveIn(t, remote, network, "who", at(remoteAddr+zone, 8001))
		if a := ask(t, s, network, at(remoteAddr+zone, 8001)); a.remoteIP() != hostAddr {
			t.Errorf("by %s: %+v, want %s", network, a, hostAddr)
		}
	}
	run(t, s, "ping", "-c1", "-W20", remoteAddr+zone)
}

// TestMulticastGoesNowhere sends to groups, which no socket of ours may stand for, and to broadcast addresses;
// forwarding goes on.
func TestMulticastGoesNowhere(t *testing.T) {
	need(t, "socat")
	b, s := connect(t)
	remote := direct(t, b, b.Remote)
	for _, to := range []string{
		"UDP4-DATAGRAM:224.0.0.251:5353", "UDP4-DATAGRAM:239.1.2.3:5353", "UDP4-DATAGRAM:255.255.255.255:5353,broadcast",
		"UDP4-DATAGRAM:198.51.100.255:5353,broadcast", "UDP6-DATAGRAM:[ff02::fb%" + bed.Link + "]:5353",
		"UDP6-DATAGRAM:[ff05::1]:5353",
	} {
		if res, err := s.RunInput([]byte("anybody?"), "socat", "-u", "-", to); err != nil || res.Status != 0 {
			t.Errorf("%s: %v %s", to, err, res.Stderr)
		}
	}
	serveIn(t, remote, "udp", "who", ":5353")
	eachFamily(t, func(t *testing.T, f family) {
		if a := ask(t, s, "udp", at(f.remote, 5353)); a.Text != "" {
			t.Errorf("after multicast: %+v", a)
		}
	})
}

// TestOutboundAddressOfForwardedPorts has -o hold for targets of -T and -U that are not on loopback.
func TestOutboundAddressOfForwardedPorts(t *testing.T) {
	b, host, remote := portsBed(t)
	second := map[string]string{"v4": "198.51.100.77", "v6": "2001:db8:1::77"}
	onHost(t, b, "addr", "add", second["v4"]+"/24", "dev", bed.Link)
	onHost(t, b, "addr", "add", second["v6"]+"/64", "dev", bed.Link, "nodad")
	for network, option := range map[string]string{"tcp": "-T", "udp": "-U"} {
		serveIn(t, remote, network, "who", at(bed.RemoteIP4, 9000), at(bed.RemoteIP6, 9000))
		serveIn(t, host, network, "who", at(lo4, 9000), at(lo6, 9000))
		s := forward(t, b, append([]string{"-o", second["v4"], "-o", second["v6"]}, specs(option, []string{
			"8004:" + bed.RemoteIP4 + "/9000", "8006:[" + bed.RemoteIP6 + "]/9000", "9000",
		})...)...)
		for to, want := range map[string]string{
			at(lo4, 8004): second["v4"], at(lo6, 8006): second["v6"], at(lo4, 9000): lo4, at(lo6, 9000): lo6,
		} {
			if a := ask(t, s, network, to); a.remoteIP() != want {
				t.Errorf("%s to %s: %+v, want from %s", network, to, a, want)
			}
		}
	}
}

// TestLinkLocalTargetInside leads ports of the host's loopback to a link-local address inside, on an interface whose
// number there is another than that of the host's.
func TestLinkLocalTargetInside(t *testing.T) {
	b, host, _ := portsBed(t)
	onHost(t, b, "link", "add", "second", "type", "veth", "peer", "name", "other")
	for _, link := range []string{"second", "other"} {
		onHost(t, b, "link", "set", link, "up")
	}
	onHost(t, b, "-6", "addr", "add", "2001:db8:7::5/64", "dev", "second", "nodad")
	s := forward(t, b, append(noForward, "-i", "second", "-t", "8000:[fe80::5]/9000", "-u", "8000:[fe80::5]/9000")...)
	run(t, s, "ip", "addr", "add", "fe80::5/64", "dev", "second", "nodad")
	for _, network := range []string{"tcp", "udp"} {
		serveIn(t, s, network, "who", at("fe80::5%second", 9000))
		if a := ask(t, host, network, at(lo6, 8000)); a.localPort() != 9000 {
			t.Errorf("%s: %+v", network, a)
		}
	}
}
