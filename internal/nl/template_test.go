package nl

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"penne/test/links"
)

func addrStrings(f *Family) (out []string) {
	for _, a := range f.Addrs {
		out = append(out, a.String())
	}
	return out
}

func routeStrings(f *Family) (out []string) {
	for _, r := range f.Routes {
		out = append(out, r.String())
	}
	slices.Sort(out)
	return out
}

func lines(more ...string) []string { return append(slices.Clone(host), more...) }

// TestTemplateKernel reads templates from namespaces set up by ip(8).
func TestTemplateKernel(t *testing.T) {
	tests := []struct {
		name     string
		opts     Options
		setup    []string
		ifname   string
		gw4, gw6 string
		addrs4   []string
		addrs6   []string
		routes4  []string
	}{
		{
			name: "both families", setup: host, ifname: "up0",
			gw4: "198.51.100.1", gw6: "2001:db8:1::1",
			addrs4: []string{"198.51.100.2/24"}, addrs6: []string{"2001:db8:1::2/64"},
			routes4: []string{"198.51.100.0/24 src 198.51.100.2", "default via 198.51.100.1"},
		},
		{
			name: "lowest metric wins", ifname: "up1", gw4: "203.0.113.1", gw6: "2001:db8:1::1",
			setup: lines("route del default", "route add default via 198.51.100.1 metric 100",
				"veth up1", "link set up1 up", "addr add 203.0.113.9/24 dev up1",
				"route add default via 203.0.113.1 metric 50"),
			addrs4: []string{"203.0.113.9/24"}, addrs6: []string{"2001:db8:1::2/64"},
			routes4: []string{"203.0.113.0/24 src 203.0.113.9", "default via 203.0.113.1 metric 50"},
		},
		{
			name: "several defaults on one link", ifname: "up0", gw4: "198.51.100.9", gw6: "2001:db8:1::1",
			setup:  lines("route add default via 198.51.100.8 metric 20", "route del default via 198.51.100.1", "route add default via 198.51.100.9 metric 10"),
			addrs4: []string{"198.51.100.2/24"}, addrs6: []string{"2001:db8:1::2/64"},
			routes4: []string{"198.51.100.0/24 src 198.51.100.2", "default via 198.51.100.8 metric 20", "default via 198.51.100.9 metric 10"},
		},
		{
			name: "blackhole default is none", ifname: "up0", gw4: "198.51.100.1", gw6: "2001:db8:1::1",
			setup: lines("route del default", "route add blackhole default metric 1", "route add default via 198.51.100.1 metric 100",
				"route add unreachable 10.0.0.0/8"),
			addrs4: []string{"198.51.100.2/24"}, addrs6: []string{"2001:db8:1::2/64"},
			routes4: []string{"198.51.100.0/24 src 198.51.100.2", "default via 198.51.100.1 metric 100"},
		},
		{
			name: "multipath default", ifname: "up0", gw4: "198.51.100.7", gw6: "2001:db8:1::1",
			setup: lines("route del default", "route add default nexthop via 198.51.100.6 dev up0 weight 1 nexthop via 198.51.100.7 dev up0 weight 5",
				"veth up1", "link set up1 up", "addr add 203.0.113.9/24 dev up1",
				"route add 10.0.0.0/8 nexthop via 203.0.113.1 dev up1 nexthop via 198.51.100.6 dev up0"),
			addrs4: []string{"198.51.100.2/24"}, addrs6: []string{"2001:db8:1::2/64"},
			routes4: []string{"10.0.0.0/8 via 198.51.100.6", "198.51.100.0/24 src 198.51.100.2",
				"default nexthop via 198.51.100.6 weight 1 nexthop via 198.51.100.7 weight 5"},
		},
		{
			name: "nexthop objects", ifname: "up0", gw4: "198.51.100.7", gw6: "2001:db8:1::1",
			setup: lines("route del default", "nexthop add id 1 via 198.51.100.7 dev up0", "route add default nhid 1",
				"nexthop add id 2 via 198.51.100.6 dev up0", "nexthop add id 3 group 1/2", "route add 10.0.0.0/8 nhid 3"),
			addrs4: []string{"198.51.100.2/24"}, addrs6: []string{"2001:db8:1::2/64"},
			routes4: []string{"10.0.0.0/8 nexthop via 198.51.100.7 weight 1 nexthop via 198.51.100.6 weight 1",
				"198.51.100.0/24 src 198.51.100.2", "default via 198.51.100.7"},
		},
		{
			name: "IPv4 only", ifname: "up0", gw4: "198.51.100.1", gw6: "fe80::1",
			setup:   lines("-6 addr flush dev up0 scope global"),
			addrs4:  []string{"198.51.100.2/24"},
			routes4: []string{"198.51.100.0/24 src 198.51.100.2", "default via 198.51.100.1"},
		},
		{
			name: "IPv6 only", ifname: "up0", gw4: "169.254.2.2", gw6: "2001:db8:1::1",
			setup:  lines("addr flush dev up0 scope global", "-6 addr add 2001:db8:1::2/64 dev up0 nodad"),
			addrs4: []string{"169.254.2.1/16"}, addrs6: []string{"2001:db8:1::2/64"},
			routes4: []string{"default via 169.254.2.2"},
		},
		{
			name: "gateway of the other family", ifname: "up0", gw4: "", gw6: "2001:db8:1::1",
			setup:  lines("route del default", "route add 0.0.0.0/0 via inet6 fe80::9 dev up0"),
			addrs4: []string{"198.51.100.2/24"}, addrs6: []string{"2001:db8:1::2/64"},
			routes4: []string{"198.51.100.0/24 src 198.51.100.2", "default via fe80::9"},
		},
		{
			name: "device route", ifname: "up0", gw4: "", gw6: "2001:db8:1::1",
			setup:  lines("route del default", "route add default dev up0"),
			addrs4: []string{"198.51.100.2/24"}, addrs6: []string{"2001:db8:1::2/64"},
			routes4: []string{"198.51.100.0/24 src 198.51.100.2", "default"},
		},
		{
			name: "no default route", ifname: "up0", gw4: "", gw6: "",
			setup:  lines("route del default", "-6 route del default"),
			addrs4: []string{"198.51.100.2/24"}, addrs6: []string{"2001:db8:1::2/64"},
			routes4: []string{"198.51.100.0/24 src 198.51.100.2"},
		},
		{
			name: "local mode", setup: []string{"link set lo up"}, ifname: "tap0", gw4: "169.254.2.2", gw6: "fe80::1",
			addrs4: []string{"169.254.2.1/16"}, routes4: []string{"default via 169.254.2.2"},
		},
		{
			name: "point to point", ifname: "up0", gw4: "10.9.0.1", gw6: "fe80::1",
			setup: []string{"link set lo up", "veth up0", "link set up0 up", "addr add 10.9.0.2 peer 10.9.0.1/32 dev up0",
				"route add default via 10.9.0.1 dev up0"},
			addrs4: []string{"10.9.0.2 peer 10.9.0.1/32"}, routes4: []string{"10.9.0.1/32 src 10.9.0.2", "default via 10.9.0.1"},
		},
		{
			name: "unnumbered", ifname: "up0", gw4: "10.9.0.1", gw6: "fe80::1",
			setup: []string{"link set lo up", "veth up0", "link set up0 up", "addr add 192.0.2.77/32 dev lo",
				"route add default via 10.9.0.1 dev up0 onlink src 192.0.2.77"},
			addrs4: []string{"192.0.2.77/32"}, routes4: []string{"default via 10.9.0.1 src 192.0.2.77"},
		},
		{
			name: "preferred source first", ifname: "up0", gw4: "198.51.100.1", gw6: "2001:db8:1::1",
			setup:  lines("addr add 198.51.100.3/24 dev up0", "route replace default via 198.51.100.1 dev up0 src 198.51.100.3"),
			addrs4: []string{"198.51.100.3/24", "198.51.100.2/24"}, addrs6: []string{"2001:db8:1::2/64"},
			routes4: []string{"198.51.100.0/24 src 198.51.100.2", "default via 198.51.100.1 src 198.51.100.3"},
		},
		{
			name: "overrides", opts: Options{Addr4: addr("172.20.1.5"), Gateway4: addr("172.20.0.1"), Addr6: addr("2001:db8:9::5"), Gateway6: addr("fe80::77")},
			setup: host, ifname: "up0", gw4: "172.20.0.1", gw6: "fe80::77",
			addrs4: []string{"172.20.1.5/16"}, addrs6: []string{"2001:db8:9::5/64"}, routes4: []string{"default via 172.20.0.1"},
		},
		{
			name: "address on the host keeps its mask", opts: Options{Addr4: addr("198.51.100.2")},
			setup: host, ifname: "up0", gw4: "198.51.100.1", gw6: "2001:db8:1::1",
			addrs4: []string{"198.51.100.2/24"}, addrs6: []string{"2001:db8:1::2/64"},
			routes4: []string{"198.51.100.0/24 src 198.51.100.2", "default via 198.51.100.1"},
		},
		{
			name: "netmask alone, nothing copied", opts: Options{Bits4: 28, NoCopyAddrs: true, NoCopyRoutes: true},
			setup: lines("addr add 198.51.100.3/24 dev up0"), ifname: "up0", gw4: "198.51.100.1", gw6: "2001:db8:1::1",
			addrs4: []string{"198.51.100.2/28"}, addrs6: []string{"2001:db8:1::2/64"}, routes4: []string{"default via 198.51.100.1"},
		},
		{
			name: "named interface", opts: Options{Interface: "up1"}, ifname: "up1", gw4: "", gw6: "fe80::1",
			setup:  lines("veth up1", "link set up1 up", "addr add 203.0.113.9/24 dev up1"),
			addrs4: []string{"203.0.113.9/24"}, routes4: []string{"203.0.113.0/24 src 203.0.113.9"},
		},
		{
			name: "outbound interface of one family", opts: Options{OutboundIf4: "up1"}, ifname: "up1", gw4: "", gw6: "2001:db8:1::1",
			setup:  lines("veth up1", "link set up1 up", "addr add 203.0.113.9/24 dev up1"),
			addrs4: []string{"203.0.113.9/24"}, addrs6: []string{"2001:db8:1::2/64"}, routes4: []string{"203.0.113.0/24 src 203.0.113.9"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tpl := mustTemplate(t, tt.opts, tt.setup...)
			if tpl.Ifname != tt.ifname {
				t.Errorf("Ifname %q, want %q", tpl.Ifname, tt.ifname)
			}
			if tpl.V4.Gateway != addr(tt.gw4) || tpl.V6.Gateway != addr(tt.gw6) {
				t.Errorf("gateways %v %v, want %q %q", tpl.V4.Gateway, tpl.V6.Gateway, tt.gw4, tt.gw6)
			}
			if got := addrStrings(&tpl.V4); !slices.Equal(got, tt.addrs4) {
				t.Errorf("IPv4 addresses %q, want %q", got, tt.addrs4)
			}
			if got := addrStrings(&tpl.V6); !slices.Equal(got, tt.addrs6) {
				t.Errorf("IPv6 addresses %q, want %q", got, tt.addrs6)
			}
			if got := routeStrings(&tpl.V4); !slices.Equal(got, tt.routes4) {
				t.Errorf("IPv4 routes\n%q, want\n%q", got, tt.routes4)
			}
			if local := strings.HasPrefix(tt.gw4, "169.254."); tpl.V4.Local != local {
				t.Errorf("IPv4 local mode %v, want %v", tpl.V4.Local, local)
			}
		})
	}
}

// TestTemplateNexthopObjectsAlone has the kernel leave nexthops out of routes.
func TestTemplateNexthopObjectsAlone(t *testing.T) {
	links.Inside(t, func() {
		ipCmds(t, lines("route del default", "nexthop add id 1 via 198.51.100.7 dev up0", "nexthop add id 2 via 198.51.100.6 dev up0",
			"nexthop add id 3 group 1,3/2,9", "route add default nhid 3", "route add 10.0.0.0/8 nhid 1",
			"nexthop add id 4 blackhole", "route add 11.0.0.0/8 nhid 4")...)
		if err := writeFile("/proc/sys/net/ipv4/nexthop_compat_mode", "0"); err != nil {
			t.Error(err)
			return
		}
		tpl, err := readTemplate(Options{})
		if err != nil {
			t.Error(err)
			return
		}
		want := []string{"10.0.0.0/8 via 198.51.100.7", "198.51.100.0/24 src 198.51.100.2",
			"default nexthop via 198.51.100.7 weight 3 nexthop via 198.51.100.6 weight 9"}
		if got := routeStrings(&tpl.V4); !slices.Equal(got, want) {
			t.Errorf("routes %q, want %q", got, want)
		}
		if tpl.V4.Gateway != addr("198.51.100.6") {
			t.Errorf("gateway %v, want the heaviest way's", tpl.V4.Gateway)
		}
	})
}

func TestTemplateFamilies(t *testing.T) {
	tpl := mustTemplate(t, Options{NoIPv6: true}, host...)
	if tpl.V6.On || !tpl.V4.On {
		t.Errorf("with NoIPv6: V4.On %v, V6.On %v", tpl.V4.On, tpl.V6.On)
	}
	tpl = mustTemplate(t, Options{NoIPv4: true}, host...)
	if tpl.V4.On || !tpl.V6.On || tpl.Ifname != "up0" {
		t.Errorf("with NoIPv4: V4.On %v, V6.On %v, Ifname %s", tpl.V4.On, tpl.V6.On, tpl.Ifname)
	}
	if !tpl.V6.HostLinkLocal.IsLinkLocalUnicast() || tpl.MAC == [6]byte{} || tpl.V6.MTU != 1500 {
		t.Errorf("link-local %v, MAC %x, MTU %d", tpl.V6.HostLinkLocal, tpl.MAC, tpl.V6.MTU)
	}
}

// TestTemplateIPv6Disabled has a host without IPv6 addresses, lo included.
func TestTemplateIPv6Disabled(t *testing.T) {
	links.Inside(t, func() {
		for _, conf := range []string{"all", "default"} {
			if err := writeFile(fmt.Sprintf("/proc/sys/net/ipv6/conf/%s/disable_ipv6", conf), "1"); err != nil {
				t.Error(err)
				return
			}
		}
		ipCmds(t, "link set lo up", "veth up0", "link set up0 up", "addr add 198.51.100.2/24 dev up0", "route add default via 198.51.100.1")
		tpl, err := readTemplate(Options{})
		if err != nil {
			t.Error(err)
			return
		}
		if tpl.V6.On || !tpl.V4.On || tpl.V4.Local {
			t.Errorf("V6.On %v, V4.On %v, V4.Local %v; want IPv4 alone", tpl.V6.On, tpl.V4.On, tpl.V4.Local)
		}
	})
}

func TestTemplateMissingInterface(t *testing.T) {
	s := &Snapshot{Links: []Link{{Index: 1, Name: "lo"}}}
	_, err := s.Template(Options{Interface: "nope0"})
	if err == nil || !strings.Contains(err.Error(), "nope0 does not exist") {
		t.Errorf("error %v, want one that names the interface", err)
	}
}

func TestRouterPreference(t *testing.T) {
	def := netip.MustParsePrefix("::/0")
	low, medium, high := Route{Dst: def, Pref: 3}, Route{Dst: def}, Route{Dst: def, Pref: 1}
	if !high.betterThan(&medium) || !medium.betterThan(&low) || low.betterThan(&high) || medium.betterThan(&medium) {
		t.Error("router preferences are not ordered high, medium, low")
	}
	dead := Route{Dst: def, Pref: 1, Flags: 1}
	if dead.betterThan(&low) || !low.betterThan(&dead) {
		t.Error("a dead route comes before a living one")
	}
}

func TestPrefixByClass(t *testing.T) {
	for ip, want := range map[string]int{"10.1.2.3": 8, "127.9.9.9": 8, "172.16.0.1": 16, "192.0.2.1": 24, "223.1.1.1": 24, "240.0.0.1": 32} {
		if got := (&Snapshot{}).bitsFor(familyOptions{v4: true, addr: addr(ip)}, 0); got != want {
			t.Errorf("%s: /%d, want /%d", ip, got, want)
		}
	}
}
