package engine

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"penne/internal/conf"
	"penne/internal/log"
	"penne/internal/nl"
)

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, ip(s))
	}
	return out
}

func TestAnnouncedResolvers(t *testing.T) {
	noGateway := func(c *conf.Config) { c.Net.HostLoopback4.Off = true }
	tm := template() // 192.0.2.9 is the guest's as well
	tm.V4.Addrs = append(tm.V4.Addrs, nl.Addr{Prefix: netip.MustParsePrefix("192.0.2.10/24")})
	for _, c := range []struct {
		name    string
		set     func(*conf.Config)
		host    []netip.Addr
		want    string
		leftOut string
	}{
		{"as on the host", nil, addrs("192.0.2.53", "2001:db8::53"), "[192.0.2.53 2001:db8::53]", "[]"},
		{"switched off", func(c *conf.Config) { c.DNS.Announce = false }, addrs("192.0.2.53"), "[]", "[]"},
		{"none", func(c *conf.Config) { c.DNS.None = true }, addrs("192.0.2.53"), "[]", "[]"},
		{"given", func(c *conf.Config) { c.DNS.Servers = addrs("127.0.0.9", "9.9.9.9") }, addrs("192.0.2.53"), "[127.0.0.9 9.9.9.9]", "[]"},
		{"stub, by the gateway", nil, addrs("127.0.0.53"), "[192.0.2.1]", "[]"},
		{"stub, by its own address", func(c *conf.Config) { c.DNS.Forward4 = ip("169.254.1.1") }, addrs("127.0.0.53"), "[169.254.1.1]", "[]"},
		{"two stubs, one address", nil, addrs("127.0.0.53", "127.0.0.1", "192.0.2.53"), "[192.0.2.1 192.0.2.53]", "[]"},
		{"loopback as the second", nil, addrs("192.0.2.53", "127.0.0.1"), "[192.0.2.53 192.0.2.1]", "[]"},
		{"another stub as the second", nil, addrs("192.0.2.53", "127.0.0.53"), "[192.0.2.53]", "[127.0.0.53]"},
		{"the guest's own address", nil, addrs("192.0.2.9", "192.0.2.53"), "[192.0.2.53]", "[192.0.2.9]"},
		{"another of its own", nil, addrs("192.0.2.10"), "[]", "[192.0.2.10]"},
		{"its own, mapped", func(c *conf.Config) { c.Net.GuestAddr4 = ip("169.254.1.2") }, addrs("192.0.2.9"), "[169.254.1.2]", "[]"},
		{"its own, forwarded", func(c *conf.Config) { c.DNS.Forward4 = ip("169.254.1.1") }, addrs("192.0.2.9"), "[169.254.1.1]", "[]"},
		{"stub, no way", noGateway, addrs("127.0.0.53", "192.0.2.53"), "[192.0.2.53]", "[127.0.0.53]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := &conf.Config{}
			cfg.DNS.Announce = true
			if c.set != nil {
				c.set(cfg)
			}
			host := &resolvConf{Servers: c.host}
			n := announced(&cfg.DNS, rules(cfg, tm, host), host)
			if got := fmt.Sprint(n.servers); got != c.want || fmt.Sprint(n.unreachable) != c.leftOut {
				t.Errorf("%s, left out %v; want %s, %s", got, n.unreachable, c.want, c.leftOut)
			}
		})
	}
}

func TestAnnouncedSearch(t *testing.T) {
	host := &resolvConf{Search: []string{"host.example"}}
	for _, c := range []struct {
		dns  conf.DNS
		want string
	}{
		{conf.DNS{}, "[]"},
		{conf.DNS{AnnounceSearch: true}, "[host.example]"},
		{conf.DNS{AnnounceSearch: true, Search: []string{"a.example", "b.example"}}, "[a.example b.example]"},
		{conf.DNS{AnnounceSearch: true, SearchNone: true}, "[]"},
	} {
		n := announced(&c.dns, rules(&conf.Config{}, template(), host), host)
		if got := fmt.Sprint(n.search); got != c.want {
			t.Errorf("%+v: %s, want %s", c.dns, got, c.want)
		}
	}
}

func TestResolverOfTheHost(t *testing.T) {
	host := &resolvConf{Servers: addrs("2001:db8::53", "127.0.0.53", "192.0.2.53")}
	for _, c := range []struct {
		dns    conf.DNS
		v4, v6 string
	}{
		{conf.DNS{}, "127.0.0.53", "2001:db8::53"},
		{conf.DNS{Servers: addrs("9.9.9.9")}, "9.9.9.9", "2001:db8::53"},
		{conf.DNS{None: true}, "", ""},
	} {
		if a, b := resolverOf(&c.dns, host, true), resolverOf(&c.dns, host, false); a != ip(c.v4) || b != ip(c.v6) {
			t.Errorf("%+v: %v and %v, want %q and %q", c.dns, a, b, c.v4, c.v6)
		}
	}
}

func TestStubResolverIsReachedByTheMapping(t *testing.T) {
	host := &resolvConf{Servers: addrs("127.0.0.53")}
	c := &conf.Config{}
	if r := rules(c, template(), host); r.V4.DNSForward != w("192.0.2.1") || r.V4.DNSHost != w("127.0.0.53") {
		t.Errorf("%v leads to %v", r.V4.DNSForward, r.V4.DNSHost)
	}
	c.DNS.Host4 = ip("127.0.0.9")
	if r := rules(c, template(), host); !r.V4.DNSForward.IsZero() {
		t.Errorf("--dns-host alone: %v leads there", r.V4.DNSForward)
	}
	if r := rules(&conf.Config{}, template(), &resolvConf{Servers: addrs("192.0.2.53")}); !r.V4.DNSForward.IsZero() {
		t.Errorf("no stub: %v leads there", r.V4.DNSForward)
	}
}

// TestServices makes rules and services of one command line, as the engine does.
func TestServices(t *testing.T) {
	for _, mtu := range []int{0, 1500} {
		e := &engine{conf: &conf.Config{}, log: log.Discard()}
		e.conf.Net.MTU = mtu
		e.rules = rules(e.conf, template(), &e.dns)
		if v := e.services(); v.NDP.MTU != mtu || v.DHCP.MTU != mtu {
			t.Errorf("-m %d: %d by router advertisements, %d by DHCP", mtu, v.NDP.MTU, v.DHCP.MTU)
		}
	}
}

// TestLeftOutIsSaidOnce changes the host's resolvers, and wants each warning when it becomes true.
func TestLeftOutIsSaidOnce(t *testing.T) {
	var out strings.Builder
	e := &engine{conf: &conf.Config{}, log: log.New(log.Options{Stderr: &out})}
	e.conf.DNS.Announce, e.conf.DNS.AnnounceSearch = true, true
	const a, b = "resolver 127.0.0.53", "search domain 'a..b'"
	for i, c := range []struct {
		host resolvConf
		want []string
	}{
		{resolvConf{Servers: addrs("192.0.2.53", "127.0.0.53"), Search: []string{"a..b"}}, []string{a, b}},
		{resolvConf{Servers: addrs("192.0.2.54", "127.0.0.53"), Search: []string{"a..b"}}, nil},
		{resolvConf{Servers: addrs("192.0.2.54"), Search: []string{"a..b"}}, nil},
		{resolvConf{Servers: addrs("192.0.2.54", "127.0.0.53"), Search: []string{"a..b"}}, []string{a}},
	} {
		out.Reset()
		e.dns = c.host
		e.rules = rules(e.conf, template(), &e.dns)
		e.services()
		for _, want := range c.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%d: no %q in %q", i, want, out.String())
			}
		}
		if n := strings.Count(out.String(), "\n"); n != len(c.want) {
			t.Errorf("%d: %d lines, want %d: %q", i, n, len(c.want), out.String())
		}
	}
}
