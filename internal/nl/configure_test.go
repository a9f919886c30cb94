package nl

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"penne/internal/sys"
	"penne/test/links"
)

// config is that of a guest interface with the Template's name.
func config(tpl *Template) Config {
	return Config{Name: tpl.Ifname, MTU: 65520, TxQueueLen: 12345, MAC: [6]byte{2, 0, 0, 0, 0, 9}, Up: true, Template: tpl}
}

func noProblems(t *testing.T, rep Report) {
	t.Helper()
	for _, p := range rep.Problems {
		t.Errorf("problem: %v", p)
	}
}

// TestConfigureCopies has the namespace read back as its template, for each
// kind of host.
func TestConfigureCopies(t *testing.T) {
	many := slices.Clone(host)
	for i := range 300 {
		many = append(many, fmt.Sprintf("route add 10.%d.%d.0/24 via 198.51.100.%d metric %d", i/256, i%256, 10+i%200, i))
	}
	hosts := map[string][]string{
		"both families":     host,
		"IPv4 only":         lines("-6 addr flush dev up0 scope global", "-6 route flush default"),
		"IPv6 only":         lines("addr flush dev up0 scope global", "-6 addr add 2001:db8:1::2/64 dev up0 nodad"),
		"several defaults":  lines("route add default via 198.51.100.8 metric 20", "-6 route add default via fe80::99 dev up0 metric 3000"),
		"multipath":         lines("route add 10.0.0.0/8 nexthop via 198.51.100.6 dev up0 weight 3 nexthop via 198.51.100.7 dev up0", "-6 route add 2001:db8:7::/48 nexthop via 2001:db8:1::6 dev up0 nexthop via 2001:db8:1::7 dev up0"),
		"off-link gateway":  lines("route del default", "route add default via 203.0.113.1 dev up0 onlink", "-6 route del default", "-6 route add default via 2001:db8:5::1 dev up0 onlink"),
		"IPv6 nexthop":      lines("route add 10.0.0.0/8 via inet6 fe80::9 dev up0"),
		"device route":      lines("route del default", "route add default dev up0 scope link"),
		"point to point":    {"link set lo up", "veth up0", "link set up0 up", "addr add 10.9.0.2 peer 10.9.0.1/32 dev up0", "route add default via 10.9.0.1 dev up0"},
		"metrics":           lines("route add 10.0.0.0/8 via 198.51.100.1 mtu lock 1400 advmss 1300 initcwnd 20", "-6 route add 2001:db8:8::/48 via 2001:db8:1::1 mtu 1400 hoplimit 5"),
		"NetworkManager's":  lines("addr flush dev up0 scope global", "addr add 198.51.100.2/24 dev up0 noprefixroute", "route add 198.51.100.0/24 dev up0 proto kernel scope link src 198.51.100.2 metric 600", "route add default via 198.51.100.1 proto dhcp src 198.51.100.2 metric 600"),
		"several addresses": lines("addr add 198.51.100.3/24 dev up0", "addr add 192.0.2.9/28 dev up0", "-6 addr add 2001:db8:2::2/56 dev up0 nodad", "-6 addr add 2001:db8:1::dead/128 dev up0 nodad preferred_lft 0"),
		"preferred source":  lines("addr add 198.51.100.3/24 dev up0", "route add 10.0.0.0/8 via 198.51.100.1 src 198.51.100.3", "-6 route add 2001:db8:8::/48 via 2001:db8:1::1 src 2001:db8:1::2"),
		"300 routes":        many,
	}
	for name, setup := range hosts {
		t.Run(name, func(t *testing.T) {
			want := mustTemplate(t, Options{}, setup...)
			guest(t, config(&want), func(c *Conn, rep Report) {
				noProblems(t, rep)
				got := readBack(t, c)
				// MTU and Ethernet address are the guest's own.
				if d := want.Diff(&got); !d.V4.empty() || !d.V6.empty() {
					t.Errorf("namespace differs from template: %+v", d)
				}
				for _, f := range [][2]*Family{{&got.V4, &want.V4}, {&got.V6, &want.V6}} {
					if got, want := addrStrings(f[0]), addrStrings(f[1]); !slices.Equal(got, want) {
						t.Errorf("addresses %q, want %q", got, want)
					}
				}
			})
		})
	}
}

// TestConfigureLink checks the link itself, at once after Configure returns.
func TestConfigureLink(t *testing.T) {
	tpl := mustTemplate(t, Options{}, host...)
	guest(t, config(&tpl), func(c *Conn, rep Report) {
		noProblems(t, rep)
		l, err := c.lookup(tpl.Ifname)
		if err != nil {
			t.Error(err)
			return
		}
		if l.MAC != [6]byte{2, 0, 0, 0, 0, 9} || l.MAC != rep.MAC || l.MTU != 65520-20 && l.MTU != 65520 || !l.Up() {
			t.Errorf("link %+v, report %+v", l, rep)
		}
		show := ipShow(t, "link show dev "+tpl.Ifname)
		if !strings.Contains(show, "qlen 12345") {
			t.Errorf("txqueuelen is not 12345: %s", show)
		}
		if want := addr("fe80::ff:fe00:9"); rep.LinkLocal != want {
			t.Errorf("link-local address %v, want %v", rep.LinkLocal, want)
		}
		out := ipShow(t, "-6 addr show dev "+tpl.Ifname)
		if strings.Contains(out, "tentative") || !strings.Contains(out, "fe80::ff:fe00:9/64") || strings.Count(out, "inet6") != 2 {
			t.Errorf("IPv6 addresses are not ready:\n%s", out)
		}
		if lo := ipShow(t, "link show dev lo"); !strings.Contains(lo, "LOWER_UP") {
			t.Errorf("lo is not up: %s", lo)
		}
	})
}

// TestConfigureLinkLocalComesBack takes the guest's link down and up: the
// kernel has to make the link-local address again.
func TestConfigureLinkLocalComesBack(t *testing.T) {
	tpl := mustTemplate(t, Options{}, host...)
	guest(t, config(&tpl), func(_ *Conn, rep Report) {
		ipCmds(t, "link set "+tpl.Ifname+" down", "link set "+tpl.Ifname+" up")
		if out := ipShow(t, "-6 addr show dev "+tpl.Ifname); !strings.Contains(out, rep.LinkLocal.String()+"/64") {
			t.Errorf("no link-local address after down and up:\n%s", out)
		}
	})
}

// TestConfigureBindsAtOnce binds to the IPv6 addresses, which the kernel
// refuses for tentative ones.
func TestConfigureBindsAtOnce(t *testing.T) {
	tpl := mustTemplate(t, Options{}, host...)
	guest(t, config(&tpl), func(_ *Conn, rep Report) {
		for _, ip := range []string{"2001:db8:1::2", rep.LinkLocal.String() + "%" + tpl.Ifname} {
			l, err := net.ListenUDP("udp6", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr(ip), 0)))
			if err != nil {
				t.Errorf("bind: %v", err)
				continue
			}
			l.Close()
		}
	})
}

// TestConfigureRefused leaves out what the kernel refuses, and sets the rest.
func TestConfigureRefused(t *testing.T) {
	tpl := mustTemplate(t, Options{}, host...)
	bad := Route{Dst: netip.MustParsePrefix("10.1.0.0/16"), Gateway: addr("224.0.0.1"), Type: sys.RtnUnicast}
	encap := Route{Dst: netip.MustParsePrefix("10.2.0.0/16"), Encap: true, Type: sys.RtnUnicast}
	tpl.V4.Routes = append([]Route{bad, encap}, tpl.V4.Routes...)
	tpl.V4.Addrs = append(tpl.V4.Addrs, Addr{Prefix: netip.MustParsePrefix("224.0.0.5/24")})
	guest(t, config(&tpl), func(c *Conn, rep Report) {
		var text []string
		for _, p := range rep.Problems {
			text = append(text, p.String())
		}
		got := strings.Join(text, "\n")
		if !strings.Contains(got, "IPv4 route 10.1.0.0/16 via 224.0.0.1: invalid argument") ||
			!strings.Contains(got, "IPv4 route 10.2.0.0/16: routes that encapsulate are not copied") || len(text) > 3 {
			t.Errorf("problems:\n%s", got)
		}
		if back := readBack(t, c); back.V4.Gateway != addr("198.51.100.1") {
			t.Errorf("default route is missing: %q", routeStrings(&back.V4))
		}
	})
}

// TestConfigureUncopied names what is not even tried.
func TestConfigureUncopied(t *testing.T) {
	tpl := mustTemplate(t, Options{}, lines("-6 route add 2001:db8:7::/48 from 2001:db8:1::/64 via 2001:db8:1::9")...)
	if got := routeStrings(&tpl.V6); slices.ContainsFunc(got, func(r string) bool { return strings.Contains(r, "2001:db8:7::") }) {
		t.Errorf("copied: %q", got)
	}
	tpl.V4.Omitted = 3
	guest(t, config(&tpl), func(_ *Conn, rep Report) {
		want := []string{
			"IPv6 route 2001:db8:7::/48 via 2001:db8:1::9 metric 1024: routes for some sources only are not copied",
			"3 routes: no more than 10000 are copied",
		}
		var got []string
		for _, p := range rep.Problems {
			got = append(got, p.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("problems %q, want %q", got, want)
		}
	})
	tpl = mustTemplate(t, Options{Gateway6: addr("2001:db8:1::9")},
		lines("-6 route add 2001:db8:7::/48 from 2001:db8:1::/64 via 2001:db8:1::9")...)
	guest(t, config(&tpl), func(_ *Conn, rep Report) { noProblems(t, rep) })
}

// TestConfigureOrder sets routes that need each other, given backwards.
func TestConfigureOrder(t *testing.T) {
	tpl := Template{Ifname: "eth0", V4: Family{On: true, Addrs: []Addr{{Prefix: netip.MustParsePrefix("198.51.100.2/24")}}}}
	for _, r := range [][2]string{{"0.0.0.0/0", "10.3.0.1"}, {"10.3.0.0/16", "10.2.0.1"}, {"10.2.0.0/16", "198.51.100.9"}, {"198.51.100.0/24", ""}} {
		route := Route{Dst: netip.MustParsePrefix(r[0]), Gateway: addr(r[1]), Type: sys.RtnUnicast}
		if r[1] == "" {
			route.Scope = sys.RtScopeLink
		}
		tpl.V4.Routes = append(tpl.V4.Routes, route)
	}
	// A gateway of scope global is refused by fib_check_nh, so onlink has to come in.
	guest(t, config(&tpl), func(c *Conn, rep Report) {
		noProblems(t, rep)
		back := readBack(t, c)
		want := []string{"10.2.0.0/16 via 198.51.100.9", "10.3.0.0/16 via 10.2.0.1", "198.51.100.0/24", "default via 10.3.0.1"}
		if got := routeStrings(&back.V4); !slices.Equal(got, want) {
			t.Errorf("routes %q, want %q", got, want)
		}
	})
}

// TestConfigureForeignSource copies routes but not the address they prefer.
func TestConfigureForeignSource(t *testing.T) {
	tpl := mustTemplate(t, Options{Addr4: addr("198.51.100.77"), Addr6: addr("2001:db8:1::77")}, host...)
	guest(t, config(&tpl), func(c *Conn, rep Report) {
		noProblems(t, rep)
		back := readBack(t, c)
		if back.V4.Addr() != addr("198.51.100.77") || back.V4.Gateway != addr("198.51.100.1") || back.V6.Gateway != addr("2001:db8:1::1") {
			t.Errorf("namespace has %q %q %q", addrStrings(&back.V4), routeStrings(&back.V4), routeStrings(&back.V6))
		}
	})
}

// TestConfigureBesideOthers has a namespace with a network already: what it has stays, and what cannot be had beside
// that is named.
func TestConfigureBesideOthers(t *testing.T) {
	tpl := mustTemplate(t, Options{}, host...)
	links.Inside(t, func() {
		ipCmds(t, "veth tap0", "veth other", "link set other up", "addr add 192.0.2.2/24 dev other", "route add default via 192.0.2.1 dev other")
		c, err := Dial()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		cfg := config(&tpl)
		cfg.Name = "tap0"
		rep, err := c.Configure(cfg)
		if len(rep.Problems) != 1 || err != nil {
			t.Errorf("%v, %v", rep.Problems, err)
			return
		}
		if p := fmt.Sprint(rep.Problems[0]); p != "IPv4 route default via 198.51.100.1: the namespace has another one" {
			t.Error(p)
		}
		if out := ipShow(t, "route show default"); !strings.HasPrefix(out, "default via 192.0.2.1 dev other") {
			t.Errorf("default route: %s", out)
		}
	})
}

// TestConfigureLocal brings local mode into a namespace.
func TestConfigureLocal(t *testing.T) {
	tpl := mustTemplate(t, Options{}, "link set lo up")
	guest(t, config(&tpl), func(_ *Conn, rep Report) {
		noProblems(t, rep)
		v4, v6 := ipShow(t, "route show"), ipShow(t, "-6 route show default")
		if !strings.Contains(v4, "default via 169.254.2.2 dev tap0") || !strings.Contains(v6, "default via fe80::1 dev tap0") {
			t.Errorf("routes:\n%s%s", v4, v6)
		}
		if out := ipShow(t, "addr show dev tap0"); !strings.Contains(out, "inet 169.254.2.1/16 brd 169.254.255.255 scope global tap0") {
			t.Errorf("addresses:\n%s", out)
		}
	})
}

// TestConfigureWithoutIPv6 has a namespace whose new links get no IPv6.
func TestConfigureWithoutIPv6(t *testing.T) {
	tpl := mustTemplate(t, Options{}, host...)
	links.Inside(t, func() {
		if err := writeFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"); err != nil {
			t.Error(err)
			return
		}
		ipCmds(t, "veth up0")
		c, err := Dial()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		rep, err := c.Configure(config(&tpl))
		if err != nil || len(rep.Problems) == 0 || rep.LinkLocal.IsValid() {
			t.Errorf("error %v, report %+v; want IPv4 set up and problems with IPv6", err, rep)
		}
		if out := ipShow(t, "route show default"); !strings.Contains(out, "via 198.51.100.1") {
			t.Errorf("IPv4 default route is missing: %s", out)
		}
	})
}

// TestConfigureBare touches nothing but link properties without Up.
func TestConfigureBare(t *testing.T) {
	guest(t, Config{Name: "tap7", MAC: [6]byte{2, 0, 0, 0, 0, 7}, MTU: 9000, TxQueueLen: 10000}, func(c *Conn, rep Report) {
		l, err := c.lookup("tap7")
		if err != nil || l.Up() || l.MTU != 1500 || l.MAC != rep.MAC || rep.MAC[5] != 7 {
			t.Errorf("link %+v, report %+v, error %v", l, rep, err)
		}
	})
}

func TestConfigureMissing(t *testing.T) {
	links.Inside(t, func() {
		c, err := Dial()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if _, err := c.Configure(Config{Name: "nope0"}); err == nil || !strings.Contains(err.Error(), "nope0") {
			t.Errorf("error %v, want one that names the interface", err)
		}
	})
}

// TestConfigureTap has a multi-queue tap come up without a discipline for each
// of its 256 possible queues.
func TestConfigureTap(t *testing.T) {
	links.Inside(t, func() {
		if _, err := os.Stat("/dev/net/tun"); err != nil {
			t.Skip("this machine gives us no /dev/net/tun")
		}
		ipCmds(t, "tuntap add dev tap0 mode tap multi_queue")
		c, err := Dial()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		rep, err := c.Configure(Config{Name: "tap0", MTU: 65520, TxQueueLen: 10000, Up: true})
		noProblems(t, rep)
		if show := ipShow(t, "link show dev tap0"); err != nil || !strings.Contains(show, "qdisc noqueue") ||
			!strings.Contains(show, "qlen 10000") || !strings.Contains(show, "mtu 65520") {
			t.Errorf("error %v, link: %s", err, show)
		}
		if show := ipShow(t, "-6 addr show dev tap0"); strings.Contains(show, "tentative") || !strings.Contains(show, rep.LinkLocal.String()) {
			t.Errorf("link-local address is not ready: %s", show)
		}
	})
}
