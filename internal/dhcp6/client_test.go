package dhcp6_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"penne/internal/dhcp/dhcptest"
	"penne/internal/dhcp6"
	"penne/internal/fwd"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/env"
)

func addr(s string) wire.Addr { return wire.AddrFrom(netip.MustParseAddr(s)) }

// clientConfig is announced to real clients.
var clientConfig = dhcp6.Config{
	DNS: []wire.Addr{addr("2001:db8::53"), addr("2001:db8::54")}, Search: []string{"example.org", "sub.example.net"},
	FQDN: "box.example.org",
}

func newGuest(t *testing.T) *dhcptest.Guest {
	t.Helper()
	r := &fwd.Rules{OurMAC: wire.MAC{0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55}, LinkLocal6: addr("fe80::1"),
		V6: fwd.Family{On: true, Guest: addr("2001:db8::5"), Bits: 64}}
	return dhcptest.New(t, r, func(e *env.Env, f *ring.Frame) {
		if dhcp6.Handles(&f.H) {
			dhcp6.Input(e, &clientConfig, f)
		}
	})
}

// run runs dhclient until the script's reason and checks what it was told, and
// the types of the messages it sent.
func run(t *testing.T, g *dhcptest.Guest, reason, conf string, want map[string]string, sent []byte, args ...string) {
	t.Helper()
	argv := []string{"dhclient", "-6", "-d", "-v", "-1", "-cf", g.Write("dhclient.conf", conf), "-sf", g.Script(),
		"-lf", g.Path("leases"), "-pf", g.Path("pid")}
	got, messages := g.Run(dhcptest.Client{Reason: reason, Messages: len(sent), Argv: append(append(argv, args...), dhcptest.Interface)})
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s is %q, want %q", k, got[k], v)
		}
	}
	// On a busy machine the client may repeat a message.
	if messages = slices.Compact(messages); !bytes.Equal(messages, sent) {
		t.Errorf("sent %v, want %v", messages, sent)
	}
	if t.Failed() {
		t.Fatalf("%v", got)
	}
}

const (
	plain = "request dhcp6.name-servers, dhcp6.domain-search, dhcp6.fqdn;\n"
	rapid = plain + "send dhcp6.rapid-commit;\n"
)

var (
	told = map[string]string{
		"new_dhcp6_name_servers": "2001:db8::53 2001:db8::54", "new_dhcp6_domain_search": "example.org. sub.example.net.",
		"new_dhcp6_server_id": "0:3:0:1:9a:55:9a:55:9a:55", "new_fqdn_fqdn": "box.example.org",
	}
	lease = map[string]string{"new_ip6_address": "2001:db8::5", "new_preferred_life": "4294967295", "new_max_life": "4294967295"}
)

// oldLease is what dhclient has kept of an earlier run, in its own words; times
// are in seconds.
func oldLease(address string, renew, rebind uint32) string {
	return fmt.Sprintf(`default-duid "\000\003\000\001\002\000\000\000\000\007";
lease6 {
  interface "eth0";
  ia-na 00:00:00:07 {
    starts 1000000000;
    renew %d;
    rebind %d;
    iaaddr %s {
      starts 1000000000;
      preferred-life 4294967295;
      max-life 4294967295;
    }
  }
  option dhcp6.client-id 0:3:0:1:2:0:0:0:0:7;
  option dhcp6.server-id 0:3:0:1:9a:55:9a:55:9a:55;
}
`, renew, rebind, address)
}

const never = 0xffffffff

// TestDhclient has a real client go through each exchange.
func TestDhclient(t *testing.T) {
	for _, c := range []struct {
		name, reason, conf, lease string
		sent                      []byte // types of the client's messages
		want                      map[string]string
		args                      []string
	}{
		{"four messages", "BOUND6", plain, "", []byte{1, 3}, lease, nil},
		{"options", "BOUND6", plain, "", []byte{1, 3}, told, nil},
		{"rapid commit", "BOUND6", rapid, "", []byte{1}, lease, nil},
		{"information", "RENEW6", plain, "", []byte{11}, told, []string{"-S"}},
		{"confirm", "BOUND6", plain, oldLease("2001:db8::5", never, never), []byte{4}, lease, nil},
		{"confirm another address", "BOUND6", plain, oldLease("2001:db8::77", never, never), []byte{4, 1, 3}, lease, nil},
		{"renew", "RENEW6", plain, oldLease("2001:db8::5", 1, never), []byte{4, 5}, lease, nil},
		{"rebind", "REBIND6", plain, oldLease("2001:db8::5", 1, 2), []byte{4, 6}, lease, nil},
		{"release", "RELEASE6", plain, oldLease("2001:db8::5", never, never), []byte{8}, nil, []string{"-r"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGuest(t)
			g.Write("leases", c.lease)
			run(t, g, c.reason, c.conf, c.want, c.sent, c.args...)
		})
	}
}
