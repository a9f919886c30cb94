package dhcp_test

import (
	"net/netip"
	"testing"

	"penne/internal/arp"
	"penne/internal/dhcp"
	"penne/internal/dhcp/dhcptest"
	"penne/internal/fwd"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/env"
)

func addr(s string) wire.Addr { return wire.AddrFrom(netip.MustParseAddr(s)) }

// clientConfig is announced to real clients.
var clientConfig = dhcp.Config{
	MTU: 1400, DNS: []wire.Addr{addr("198.51.100.53"), addr("198.51.100.54")},
	Search: []string{"example.org", "sub.example.net"}, Hostname: "box", FQDN: "box.example.org",
}

func newGuest(t *testing.T) *dhcptest.Guest {
	t.Helper()
	r := &fwd.Rules{OurMAC: wire.MAC{0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55}, V4: fwd.Family{
		On: true, Guest: addr("192.0.2.5"), Bits: 24, Gateway: addr("192.0.2.1"), Ours: addr("192.0.2.1")}}
	return dhcptest.New(t, r, func(e *env.Env, f *ring.Frame) {
		switch {
		case f.H.EtherType == wire.EtherARP:
			arp.Input(e, f)
		case dhcp.Handles(&f.H):
			dhcp.Input(e, &clientConfig, f)
		}
	})
}

// check compares some of a client's variables.
func check(t *testing.T, got, want map[string]string) {
	t.Helper()
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s is %q, want %q", k, got[k], v)
		}
	}
	if t.Failed() {
		t.Logf("%v", got)
	}
}

// dhclient runs the client until it has sent so many messages.
func dhclient(g *dhcptest.Guest, reason string, messages int) map[string]string {
	conf := g.Write("dhclient.conf", `
		option classless code 121 = array of unsigned integer 8;
		request subnet-mask, routers, domain-name-servers, domain-search, host-name, interface-mtu, classless, fqdn.fqdn;
		send fqdn.fqdn "old."; send fqdn.encoded on; send fqdn.server-update on;
		timeout 15; initial-interval 1;
	`)
	vars, _ := g.Run(dhcptest.Client{Reason: reason, Done: "bound to", Messages: messages, Argv: []string{
		"dhclient", "-4", "-d", "-v", "-1", "-cf", conf, "-sf", g.Script(),
		"-lf", g.Path("leases"), "-pf", g.Path("pid"), dhcptest.Interface}})
	return vars
}

var lease = map[string]string{
	"new_ip_address": "192.0.2.5", "new_subnet_mask": "255.255.255.0", "new_routers": "192.0.2.1",
	"new_domain_name_servers": "198.51.100.53 198.51.100.54", "new_domain_search": "example.org. sub.example.net.",
	"new_host_name": "box", "new_interface_mtu": "1400", "new_dhcp_lease_time": "4294967295",
	"new_dhcp_server_identifier": "192.0.2.1", "new_fqdn_fqdn": "box.example.org",
	"new_classless": "",
}

// TestDhclient: a lease, the same after a restart (INIT-REBOOT), and another
// when the host has become another one (NAK).
func TestDhclient(t *testing.T) {
	g := newGuest(t)
	check(t, dhclient(g, "BOUND", 2), lease)
	check(t, dhclient(g, "REBOOT", 1), lease)
	g.Change(func(r *fwd.Rules) { r.V4.Guest, r.V4.Bits = addr("192.0.2.6"), 32 })
	check(t, dhclient(g, "BOUND", 3), map[string]string{
		"new_ip_address": "192.0.2.6", "new_subnet_mask": "255.255.255.255", "new_routers": "192.0.2.1",
		"new_classless": "32 192 0 2 1 0 0 0 0 0 192 0 2 1",
	})
}

func udhcpc(g *dhcptest.Guest, args ...string) map[string]string {
	argv := []string{"udhcpc", "-f", "-n", "-t", "5", "-T", "2", "-i", dhcptest.Interface, "-s", g.Script(),
		"-O", "search", "-O", "staticroutes", "-O", "mtu", "-O", "hostname"}
	vars, _ := g.Run(dhcptest.Client{Reason: "bound", Messages: 2, Argv: append(argv, args...)})
	return vars
}

func TestUdhcpc(t *testing.T) {
	g := newGuest(t)
	want := map[string]string{
		"ip": "192.0.2.5", "subnet": "255.255.255.0", "mask": "24", "router": "192.0.2.1", "dns": "198.51.100.53 198.51.100.54",
		"search": "example.org sub.example.net", "hostname": "box", "mtu": "1400", "serverid": "192.0.2.1", "lease": "4294967295",
		"staticroutes": "",
	}
	check(t, udhcpc(g), want)
	check(t, udhcpc(g, "-B"), want)               // wants broadcast replies
	check(t, udhcpc(g, "-r", "192.0.2.77"), want) // would like another address
	g.Change(func(r *fwd.Rules) { r.V4.Bits = 32 })
	check(t, udhcpc(g), map[string]string{"staticroutes": "192.0.2.1/32 0.0.0.0 0.0.0.0/0 192.0.2.1"})
}
