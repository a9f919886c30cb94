package nl

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// TestApply leads a namespace from one host's template to another's, and back.
func TestApply(t *testing.T) {
	first := mustTemplate(t, Options{}, lines("addr add 198.51.100.3/24 dev up0", "route add 10.0.0.0/8 via 198.51.100.7 src 198.51.100.3")...)
	hosts := map[string][]string{
		"another network": {"link set lo up", "veth up0", "link set up0 up", "addr add 203.0.113.9/24 dev up0", "-6 addr add 2001:db8:9::9/64 dev up0 nodad",
			"route add default via 203.0.113.1", "-6 route add default via fe80::9 dev up0"},
		"another gateway":      lines("addr add 198.51.100.3/24 dev up0", "route replace default via 198.51.100.254"),
		"first address gone":   {"link set lo up", "veth up0", "link set up0 up", "addr add 198.51.100.3/24 dev up0", "-6 addr add 2001:db8:1::2/64 dev up0 nodad", "route add default via 198.51.100.1", "-6 route add default via 2001:db8:1::1"},
		"address more":         lines("addr add 198.51.100.3/24 dev up0", "addr add 198.51.100.4/24 dev up0", "-6 addr add 2001:db8:1::4/64 dev up0 nodad", "route add 10.0.0.0/8 via 198.51.100.7 src 198.51.100.4"),
		"another prefix":       {"link set lo up", "veth up0", "link set up0 up", "addr add 198.51.100.2/28 dev up0", "-6 addr add 2001:db8:1::2/56 dev up0 nodad", "route add default via 198.51.100.1", "-6 route add default via 2001:db8:1::1"},
		"IPv6 gone":            lines("-6 addr flush dev up0 scope global", "-6 route flush default"),
		"no network":           {"link set lo up"},
		"the same":             lines("addr add 198.51.100.3/24 dev up0", "route add 10.0.0.0/8 via 198.51.100.7 src 198.51.100.3"),
		"the same, other name": {"link set lo up", "veth up9", "link set up9 up", "addr add 198.51.100.2/24 dev up9", "route add default via 198.51.100.1"},
	}
	for name, setup := range hosts {
		for _, linger := range []time.Duration{0, time.Hour} {
			t.Run(fmt.Sprintf("%s, linger %v", name, linger), func(t *testing.T) {
				second := mustTemplate(t, Options{}, setup...)
				guest(t, config(&first), func(c *Conn, rep Report) {
					noProblems(t, rep)
					noProblems(t, c.Apply(rep.Index, &first, &second, linger))
					same(t, c, &second)
					noProblems(t, c.Apply(rep.Index, &second, &first, linger))
					same(t, c, &first)
				})
			})
		}
	}
}

// same compares the namespace with a Template, but for what lingers.
func same(t *testing.T, c *Conn, want *Template) {
	t.Helper()
	s, err := c.Snapshot()
	if err != nil {
		t.Error(err)
		return
	}
	var addrs []Addr
	for _, a := range s.Addrs {
		lingers := a.Prefix.Bits() == a.Prefix.Addr().BitLen() && a.Flags&0x20 != 0
		if a.Prefix.Addr().IsLoopback() || lingers {
			continue
		}
		addrs = append(addrs, a)
	}
	s.Addrs = addrs
	got, err := s.Template(Options{})
	if err != nil {
		t.Error(err)
	}
	// Without a network, a namespace's template is not what was applied.
	d := want.Diff(&got)
	if !want.V4.Local && !d.V4.empty() || !want.V6.Local && !d.V6.empty() {
		t.Errorf("namespace differs from template: %+v", d)
	}
	if v4 := ipShow(t, "-4 addr") + ipShow(t, "-4 route"); want.V4.Local != strings.Contains(v4, "inet 169.254.2.1/16") ||
		want.V4.Local != strings.Contains(v4, "default via 169.254.2.2") {
		t.Errorf("local mode of IPv4 is to be %v:\n%s", want.V4.Local, v4)
	}
	if v6 := ipShow(t, "-6 route"); want.V6.Local != strings.Contains(v6, "default via fe80::1 ") {
		t.Errorf("local mode of IPv6 is to be %v:\n%s", want.V6.Local, v6)
	}
}

// TestApplyLingers keeps the old address for those who use it, and for nobody
// else, even where the new default route names no gateway.
func TestApplyLingers(t *testing.T) {
	first := mustTemplate(t, Options{}, host...)
	second := mustTemplate(t, Options{}, "link set lo up", "veth up0", "link set up0 up", "addr add 203.0.113.9/24 dev up0", "-6 addr add 2001:db8:9::9/64 dev up0 nodad",
		"route add default dev up0 scope link", "-6 route add default via fe80::9 dev up0")
	guest(t, config(&first), func(c *Conn, rep Report) {
		noProblems(t, rep)
		old, err := net.ListenPacket("udp4", "198.51.100.2:0")
		if err != nil {
			t.Error(err)
			return
		}
		defer old.Close()
		noProblems(t, c.Apply(rep.Index, &first, &second, 2*time.Hour))
		if _, err := old.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(192, 0, 2, 99), Port: 9}); err != nil {
			t.Errorf("the old address does not send any more: %v", err)
		}
		for to, want := range map[string]string{"192.0.2.99:9": "203.0.113.9", "[2001:db8:77::1]:9": "2001:db8:9::9"} {
			n, err := net.Dial("udp", to)
			if err != nil {
				t.Error(err)
				continue
			}
			if from, _, _ := net.SplitHostPort(n.LocalAddr().String()); from != want {
				t.Errorf("source to %s is %s, want %s", to, from, want)
			}
			n.Close()
		}
		show := ipShow(t, "addr show dev up0")
		if !strings.Contains(show, "inet 198.51.100.2/32") || !strings.Contains(show, "inet6 2001:db8:1::2/128") || strings.Count(show, "preferred_lft 0sec") != 2 {
			t.Errorf("old addresses do not linger:\n%s", show)
		}
	})
}

// TestApplyLingersBehind changes the address twice, without a gateway whose subnet would tell which one to use.
func TestApplyLingersBehind(t *testing.T) {
	point := func(ip string) Template {
		return mustTemplate(t, Options{}, "link set lo up", "veth up0", "link set up0 up", "addr add "+ip+"/24 dev up0", "route add default dev up0")
	}
	first, second, third := point("198.51.100.2"), point("203.0.113.9"), point("192.0.2.7")
	guest(t, config(&first), func(c *Conn, rep Report) {
		noProblems(t, rep)
		noProblems(t, c.Apply(rep.Index, &first, &second, time.Hour))
		noProblems(t, c.Apply(rep.Index, &second, &third, time.Hour))
		s, err := c.Snapshot()
		if err != nil {
			t.Error(err)
			return
		}
		got := ""
		for _, a := range s.Addrs {
			if a.Prefix.Addr().Is4() && !a.Prefix.Addr().IsLoopback() {
				got += a.String() + " "
			}
		}
		if want := "192.0.2.7/24 198.51.100.2/32 203.0.113.9/32 "; got != want {
			t.Errorf("addresses %q, want %q", got, want)
		}
		noProblems(t, c.Apply(rep.Index, &third, &first, time.Hour))
		same(t, c, &first)
	})
}

// TestApplyBesideAnAdvertisedRoute wants IPv6's default route next to one of the
// same metric that the kernel made of a router advertisement.
func TestApplyBesideAnAdvertisedRoute(t *testing.T) {
	first := mustTemplate(t, Options{}, lines()...)
	second := mustTemplate(t, Options{}, lines("-6 route change default via 2001:db8:1::9")...)
	guest(t, config(&first), func(c *Conn, rep Report) {
		ipCmds(t, "-6 route append default via fe80::99 dev up0 proto ra metric 1024")
		noProblems(t, c.Apply(rep.Index, &first, &second, 0))
		show := ipShow(t, "-6 route show default")
		for _, want := range []string{"via 2001:db8:1::9", "via fe80::99"} {
			if !strings.Contains(show, want) {
				t.Errorf("no default route %s:\n%s", want, show)
			}
		}
	})
}
