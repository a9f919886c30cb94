package engine

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"penne/internal/conf"
	"penne/internal/portscan"
)

// autoPortsOf are the addresses at which a lane inside would bind ports 53 and 80, were both bound on the host.
func autoPortsOf(n *lane) string {
	var want portscan.Ports
	want.Add(portDNS)
	want.Add(80)
	var out []string
	for _, p := range n.autoAddrs {
		for port := range p.missing(&want) {
			out = append(out, netip.AddrPortFrom(p.addr, port).String())
		}
	}
	return strings.Join(out, " ")
}

func TestStubs(t *testing.T) {
	const loopbacks = "127.0.0.1:53 127.0.0.1:80 [::1]:53 [::1]:80"
	for _, c := range []struct {
		spec, servers, want string
	}{
		{"auto", "192.0.2.1", loopbacks},
		{"auto", "127.0.0.1 ::1 2001:db8::1", loopbacks},
		{"auto", "192.0.2.1 127.0.0.53 127.0.0.54", loopbacks + " 127.0.0.53:53 127.0.0.54:53"},
		{"auto,~53", "127.0.0.53", "127.0.0.1:80 [::1]:80"},
		{"127.0.0.1/auto", "127.0.0.53", "127.0.0.1:53 127.0.0.1:80"},
		{"all", "127.0.0.53", ""},
		{"none", "127.0.0.53", ""},
	} {
		spec, none, err := conf.ParsePorts("-U", c.spec)
		if err != nil {
			t.Fatal(err)
		}
		n := &lane{inside: true, v4: true, v6: true}
		if !none {
			n.specs = []conf.PortSpec{spec}
		}
		var servers []netip.Addr
		for _, s := range strings.Fields(c.servers) {
			servers = append(servers, ip(s))
		}
		n.findAutoAddrs()
		n.setStubAddrs(servers)
		before := slices.Clone(n.autoAddrs)
		n.setStubAddrs(servers)
		if got := autoPortsOf(n); got != c.want || !slices.Equal(before, n.autoAddrs) {
			t.Errorf("-U %s with %s: %s, want %s", c.spec, c.servers, got, c.want)
		}
	}
}

func TestStubsOfAFamilyThatIsOff(t *testing.T) {
	n := &lane{inside: true, v6: true, specs: []conf.PortSpec{{Auto: true}}}
	n.findAutoAddrs()
	n.setStubAddrs([]netip.Addr{ip("127.0.0.53")})
	if got := autoPortsOf(n); got != "[::1]:53 [::1]:80" {
		t.Error(got)
	}
	n.v4 = true
	n.setStubAddrs([]netip.Addr{ip("127.0.0.53")})
	n.setStubAddrs([]netip.Addr{ip("127.0.0.54")})
	if got := autoPortsOf(n); got != "[::1]:53 [::1]:80 127.0.0.54:53" {
		t.Error(got)
	}
}
