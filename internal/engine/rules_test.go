package engine

import (
	"net/netip"
	"strings"
	"testing"

	"penne/internal/conf"
	"penne/internal/nl"
	"penne/internal/wire"
)

func ip(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

func w(s string) wire.Addr { return wire.AddrFrom(ip(s)) }

func template() *nl.Template {
	t := &nl.Template{}
	t.V4 = nl.Family{On: true, Gateway: ip("192.0.2.1"), Addrs: []nl.Addr{{Prefix: netip.MustParsePrefix("192.0.2.9/24")}}}
	t.V6 = nl.Family{On: true, Index: 7, Gateway: ip("2001:db8::1"), HostLinkLocal: ip("fe80::abcd"),
		Addrs: []nl.Addr{{Prefix: netip.MustParsePrefix("2001:db8::9/64")}}}
	return t
}

func TestRulesByDefault(t *testing.T) {
	r := rules(&conf.Config{}, template(), &resolvConf{})
	if !r.V4.On || r.V4.Guest != w("192.0.2.9") || r.V4.Bits != 24 || r.V4.HostLoopback != w("192.0.2.1") || r.V4.Ours != w("192.0.2.1") {
		t.Errorf("IPv4: %+v", r.V4)
	}
	if r.LinkLocal6 != w("fe80::abcd") || r.ScopeID != 7 || r.V6.HostLoopback != w("2001:db8::1") {
		t.Errorf("IPv6: %+v, link-local %v, scope %d", r.V6, r.LinkLocal6, r.ScopeID)
	}
	if r.MTU != conf.MaxMTU {
		t.Errorf("MTU %d", r.MTU)
	}
}

func TestRulesFollowOptions(t *testing.T) {
	c := &conf.Config{}
	c.Net.MTU = 1500
	c.Net.Addr4, c.Net.Gateway4 = ip("10.0.0.2"), ip("10.0.0.1")
	c.Net.HostLoopback4.Off = true
	c.Net.HostLoopback6.Addr = ip("2001:db8::100")
	c.Net.GuestAddr4 = ip("169.254.1.2")
	c.DNS.Forward4 = ip("169.254.1.1")
	r := rules(c, template(), &resolvConf{Servers: []netip.Addr{ip("2001:db8::53"), ip("127.0.0.53")}})
	if r.V4.Guest != w("10.0.0.2") || r.V4.Gateway != w("10.0.0.1") || !r.V4.HostLoopback.IsZero() || r.V4.GuestMap != w("169.254.1.2") {
		t.Errorf("IPv4: %+v", r.V4)
	}
	if r.V4.DNSHost != w("127.0.0.53") || r.V6.HostLoopback != w("2001:db8::100") || r.MTU != 1500 {
		t.Errorf("resolver %v, IPv6 %+v, MTU %d", r.V4.DNSHost, r.V6, r.MTU)
	}
}

func TestRulesWhereTheGatewayResolves(t *testing.T) {
	for _, c := range []struct {
		dns    conf.DNS
		host   []netip.Addr
		v4, v6 bool
	}{
		{conf.DNS{}, addrs("192.0.2.1"), true, false},
		{conf.DNS{}, addrs("9.9.9.9", "2001:db8::1", "192.0.2.1"), true, true},
		{conf.DNS{}, addrs("9.9.9.9", "2001:db8::53"), false, false},
		{conf.DNS{None: true}, addrs("192.0.2.1"), true, false},
		{conf.DNS{Servers: addrs("9.9.9.9")}, addrs("192.0.2.1"), true, false},
		{conf.DNS{Servers: addrs("2001:db8::1")}, addrs("9.9.9.9"), false, true},
	} {
		r := rules(&conf.Config{DNS: c.dns}, template(), &resolvConf{Servers: c.host})
		if r.V4.GatewayIsResolver != c.v4 || r.V6.GatewayIsResolver != c.v6 {
			t.Errorf("%+v, %v: IPv4 %v, IPv6 %v", c.dns, c.host, r.V4.GatewayIsResolver, r.V6.GatewayIsResolver)
		}
	}
}

func TestRulesWithoutGateway(t *testing.T) {
	tm := template()
	tm.V4.Gateway, tm.V6.Gateway = netip.Addr{}, netip.Addr{}
	r := rules(&conf.Config{}, tm, &resolvConf{})
	if !r.V4.HostLoopback.IsZero() || !r.V6.HostLoopback.IsZero() || r.V6.Ours != r.LinkLocal6 {
		t.Errorf("mapped without a gateway: %+v %+v", r.V4, r.V6)
	}
}

func TestReadResolver(t *testing.T) {
	r := parseResolvConf(strings.NewReader(`# comment
nameserver 127.0.0.53
nameserver fe80::1%eth0
nameserver nonsense
nameserver
search old.example
search example.org. sub.example.org
options edns0
`))
	if len(r.Servers) != 2 || r.first(true) != ip("127.0.0.53") || r.first(false) != ip("fe80::1") {
		t.Errorf("servers %v", r.Servers)
	}
	if strings.Join(r.Search, " ") != "example.org sub.example.org" {
		t.Errorf("search %v", r.Search)
	}
}
