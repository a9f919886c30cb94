package conf

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// mustParse parses a line that has to be right.
func mustParse(t *testing.T, argv ...string) *Config {
	t.Helper()
	c, err := Parse(argv)
	if err != nil {
		t.Fatalf("Parse(%q): %v", argv, err)
	}
	return c
}

func TestPersonality(t *testing.T) {
	tests := []struct {
		argv    []string
		program string
		mode    Mode
		command []string
	}{
		{nil, "penne", ModePasta, nil},
		{[]string{""}, "penne", ModePasta, nil},
		{[]string{"/"}, "penne", ModePasta, nil},
		{[]string{"pasta"}, "pasta", ModePasta, nil},
		{[]string{"/usr/bin/pasta"}, "pasta", ModePasta, nil},
		{[]string{"./pasta.avx2"}, "pasta.avx2", ModePasta, nil},
		{[]string{"/usr/bin/passt"}, "passt", ModePasst, nil},
		{[]string{"passt.avx2"}, "passt.avx2", ModePasst, nil},
		{[]string{"penne"}, "penne", ModePasta, nil},
		{[]string{"penne", "pasta"}, "pasta", ModePasta, nil},
		{[]string{"penne", "passt"}, "passt", ModePasst, nil},
		{[]string{"penne", "-f", "passt"}, "penne", ModePasta, []string{"passt"}},
		{[]string{"pasta", "passt"}, "pasta", ModePasta, []string{"passt"}},
	}
	for _, tt := range tests {
		c := mustParse(t, tt.argv...)
		if c.Program != tt.program || c.Mode != tt.mode || !slices.Equal(c.Pasta.Command, tt.command) {
			t.Errorf("Parse(%q) = %q, %v, %q", tt.argv, c.Program, c.Mode, c.Pasta.Command)
		}
	}
}

// TestOptions has one row per option, in each spelling.
func TestOptions(t *testing.T) {
	addr := netip.MustParseAddr
	a4, a6 := addr("192.0.2.7"), addr("2001:db8::7")
	tests := []struct {
		line string
		got  func(c *Config) any
		want any
	}{
		{"pasta", func(c *Config) any { return c.Logging }, Logging{Size: 1 << 20}},
		{"pasta -d", func(c *Config) any { return c.Logging.Verbosity }, Debug},
		{"pasta --debug", func(c *Config) any { return c.Logging.Verbosity }, Debug},
		{"pasta --trace", func(c *Config) any { return c.Logging.Verbosity }, Trace},
		{"pasta -d --trace", func(c *Config) any { return c.Logging.Verbosity }, Trace},
		{"pasta -q", func(c *Config) any { return c.Logging.Verbosity }, Quiet},
		{"pasta --quiet", func(c *Config) any { return c.Logging.Verbosity }, Quiet},
		{"pasta -f --stats 5", func(c *Config) any { return c.Logging.Stats }, 5 * time.Second},
		{"pasta -f", func(c *Config) any { return c.Process.Foreground }, true},
		{"pasta --foreground", func(c *Config) any { return c.Process.Foreground }, true},
		{"pasta -e", func(c *Config) any { return c.Logging.Stderr }, true},
		{"pasta --stderr", func(c *Config) any { return c.Logging.Stderr }, true},
		{"pasta -l /tmp/x", func(c *Config) any { return c.Logging.File }, "/tmp/x"},
		{"pasta --log-file=x", func(c *Config) any { return c.Logging.File }, "x"},
		{"pasta --log-size 4096", func(c *Config) any { return c.Logging.Size }, int64(4096)},
		{"pasta --log-json", func(c *Config) any { return c.Logging.JSON }, true},
		{"pasta --runas 1000", func(c *Config) any { return *c.Process.RunAs }, RunAs{UID: 1000, HasUID: true}},
		{"pasta --runas 1000:100", func(c *Config) any { return *c.Process.RunAs }, RunAs{UID: 1000, HasUID: true, GID: 100, HasGID: true}},
		{"pasta --runas nobody", func(c *Config) any { return *c.Process.RunAs }, RunAs{Login: "nobody"}},
		{"pasta --runas qemu:kvm", func(c *Config) any { return *c.Process.RunAs }, RunAs{Login: "qemu", Group: "kvm"}},
		{"pasta --runas qemu:36", func(c *Config) any { return *c.Process.RunAs }, RunAs{Login: "qemu", GID: 36, HasGID: true}},
		{"pasta -c /run/x", func(c *Config) any { return c.Process.ControlPath }, "/run/x"},
		{"pasta --conf-path /run/x", func(c *Config) any { return c.Process.ControlPath }, "/run/x"},
		{"pasta --chroot-fallback", func(c *Config) any { return c.Process.ChrootFallback }, true},
		{"pasta --queues 4", func(c *Config) any { return c.Process.Queues }, 4},
		{"pasta --pin", func(c *Config) any { return c.Process.Pin }, true},
		{"pasta -p x.pcap", func(c *Config) any { return c.Logging.Pcap }, "x.pcap"},
		{"pasta --pcap x.pcap", func(c *Config) any { return c.Logging.Pcap }, "x.pcap"},
		{"pasta -P x.pid", func(c *Config) any { return c.Process.PIDFile }, "x.pid"},
		{"pasta --pid x.pid", func(c *Config) any { return c.Process.PIDFile }, "x.pid"},

		{"pasta", func(c *Config) any { return c.Net }, Net{MTU: 65520, MAC: DefaultMAC}},
		{"pasta -m 1500", func(c *Config) any { return c.Net.MTU }, 1500},
		{"pasta -m1280", func(c *Config) any { return c.Net.MTU }, 1280},
		{"pasta --mtu=0", func(c *Config) any { return c.Net.MTU }, 0},
		{"pasta --mtu 65520", func(c *Config) any { return c.Net.MTU }, 65520},
		{"pasta -a 192.0.2.7", func(c *Config) any { return c.Net.Addr4 }, a4},
		{"pasta -a 192.0.2.6 -a 192.0.2.7", func(c *Config) any { return c.Net.Addr4 }, a4},
		{"pasta --address 2001:db8::7", func(c *Config) any { return c.Net.Addr6 }, a6},
		{"pasta -a 192.0.2.7/25", func(c *Config) any { return c.Net.Bits4 }, 25},
		{"pasta -a 2001:db8::7/56", func(c *Config) any { return c.Net.Bits6 }, 56},
		{"pasta -a ::ffff:192.0.2.7", func(c *Config) any { return c.Net.Addr4 }, a4},
		{"pasta -n 24", func(c *Config) any { return c.Net.Bits4 }, 24},
		{"pasta --netmask 255.255.254.0", func(c *Config) any { return c.Net.Bits4 }, 23},
		{"pasta -n 255.255.255.255", func(c *Config) any { return c.Net.Bits4 }, 32},
		{"pasta -n 128.0.0.0", func(c *Config) any { return c.Net.Bits4 }, 1},
		{"pasta -M 02:00:00:00:00:01", func(c *Config) any { return c.Net.MAC }, [6]byte{2, 0, 0, 0, 0, 1}},
		{"pasta --mac-addr 02-00-00-00-00-Af", func(c *Config) any { return c.Net.MAC }, [6]byte{2, 0, 0, 0, 0, 0xaf}},
		{"pasta -g 192.0.2.7", func(c *Config) any { return c.Net.Gateway4 }, a4},
		{"pasta --gateway 2001:db8::7", func(c *Config) any { return c.Net.Gateway6 }, a6},
		{"pasta -i eth0", func(c *Config) any { return c.Net.Interface }, "eth0"},
		{"pasta --interface eth0 --outbound-if4 eth1", func(c *Config) any { return c.Net.Interface + c.Net.OutboundIf4 }, "eth0eth1"},
		{"pasta --outbound-if4 eth1 --outbound-if6 eth2", func(c *Config) any { return c.Net.OutboundIf4 + c.Net.OutboundIf6 }, "eth1eth2"},
		{"pasta -o 192.0.2.7", func(c *Config) any { return c.Net.Outbound4 }, a4},
		{"pasta --outbound 2001:db8::7", func(c *Config) any { return c.Net.Outbound6 }, a6},
		{"pasta -4", func(c *Config) any { return c.Net.IPv4Only }, true},
		{"pasta --ipv6-only", func(c *Config) any { return c.Net.IPv6Only }, true},
		{"pasta --map-host-loopback 192.0.2.7 --map-host-loopback 2001:db8::7", func(c *Config) any { return []Mapping{c.Net.HostLoopback4, c.Net.HostLoopback6} }, []Mapping{{Addr: a4}, {Addr: a6}}},
		{"pasta --map-host-loopback none", func(c *Config) any { return []Mapping{c.Net.HostLoopback4, c.Net.HostLoopback6} }, []Mapping{{Off: true}, {Off: true}}},
		{"pasta --map-host-loopback none --map-host-loopback 192.0.2.7", func(c *Config) any { return []Mapping{c.Net.HostLoopback4, c.Net.HostLoopback6} }, []Mapping{{Addr: a4}, {Off: true}}},
		{"pasta --no-map-gw", func(c *Config) any { return []Mapping{c.Net.HostLoopback4, c.Net.HostLoopback6} }, []Mapping{{Off: true}, {Off: true}}},
		{"pasta --no-map-gw --map-host-loopback 192.0.2.7", func(c *Config) any { return []Mapping{c.Net.HostLoopback4, c.Net.HostLoopback6} }, []Mapping{{Addr: a4}, {Off: true}}},
		{"pasta --map-guest-addr 192.0.2.7", func(c *Config) any { return c.Net.GuestAddr4 }, a4},
		{"pasta --map-guest-addr 2001:db8::7 --map-guest-addr none", func(c *Config) any { return c.Net.GuestAddr6 }, netip.Addr{}},
		{"pasta -H box", func(c *Config) any { return c.Net.Hostname }, "box"},
		{"pasta --hostname box", func(c *Config) any { return c.Net.Hostname }, "box"},
		{"pasta --fqdn box.example.org.", func(c *Config) any { return c.Net.FQDN }, "box.example.org."},

		{"pasta", func(c *Config) any { return c.DNS }, DNS{}},
		{"passt", func(c *Config) any { return c.DNS }, DNS{Announce: true, AnnounceSearch: true}},
		{"pasta -D 192.0.2.7 --dns 2001:db8::7", func(c *Config) any { return c.DNS.Servers }, []netip.Addr{a4, a6}},
		{"pasta -D 192.0.2.7 -D none", func(c *Config) any { return c.DNS }, DNS{None: true}},
		{"pasta -D none -D 192.0.2.7", func(c *Config) any { return c.DNS }, DNS{Servers: []netip.Addr{a4}}},
		{"pasta --dns-forward 192.0.2.7 --dns-forward 2001:db8::7", func(c *Config) any { return []netip.Addr{c.DNS.Forward4, c.DNS.Forward6} }, []netip.Addr{a4, a6}},
		{"pasta --dns-host 127.0.0.53 --dns-host ::1", func(c *Config) any { return []netip.Addr{c.DNS.Host4, c.DNS.Host6} }, []netip.Addr{addr("127.0.0.53"), addr("::1")}},
		{"pasta -S example.org --search=example.com", func(c *Config) any { return c.DNS.Search }, []string{"example.org", "example.com"}},
		{"pasta -S none.", func(c *Config) any { return c.DNS.Search }, []string{"none."}},
		{"pasta -S example.org -S none", func(c *Config) any { return c.DNS }, DNS{SearchNone: true}},
		{"pasta --dhcp-dns --dhcp-search", func(c *Config) any { return c.DNS }, DNS{Announce: true, AnnounceSearch: true}},
		{"passt --no-dhcp-dns --no-dhcp-search", func(c *Config) any { return c.DNS }, DNS{}},

		{"pasta --no-tcp --no-udp --no-dhcp --no-dhcpv6", func(c *Config) any { return c.Protocols }, Protocols{NoTCP: true, NoUDP: true, NoDHCP: true, NoDHCPv6: true}},
		{"pasta --no-icmp", func(c *Config) any { return c.Protocols }, Protocols{NoICMP: true, NoNDP: true, NoRA: true}},
		{"pasta --no-ndp", func(c *Config) any { return c.Protocols }, Protocols{NoNDP: true, NoRA: true}},
		{"pasta --no-ra", func(c *Config) any { return c.Protocols }, Protocols{NoRA: true}},
		{"pasta --freebind", func(c *Config) any { return c.Forward.Freebind }, true},

		{"pasta -I tap1", func(c *Config) any { return c.Pasta.Ifname }, "tap1"},
		{"pasta --ns-ifname tap1", func(c *Config) any { return c.Pasta.Ifname }, "tap1"},
		{"pasta 1234", func(c *Config) any { return c.Pasta }, Pasta{PID: 1234}},
		{"pasta 1234 -f", func(c *Config) any { return c.Pasta.Command }, []string{"1234", "-f"}},
		{"pasta --config-net -- true -x", func(c *Config) any { return c.Pasta }, Pasta{ConfigNet: true, Command: []string{"true", "-x"}}},
		{"pasta --config-net true --config-net", func(c *Config) any { return c.Pasta }, Pasta{ConfigNet: true, Command: []string{"true", "--config-net"}}},
		{"pasta -- -x", func(c *Config) any { return c.Pasta.Command }, []string{"-x"}},
		{"pasta -", func(c *Config) any { return c.Pasta.Command }, []string{"-"}},
		{"pasta --netns box", func(c *Config) any { return c.Pasta }, Pasta{Netns: "/run/netns/box", NetnsOnly: true}},
		{"pasta --netns /proc/1/ns/net", func(c *Config) any { return c.Pasta }, Pasta{Netns: "/proc/1/ns/net", NetnsOnly: true}},
		{"pasta --userns /u --netns /n", func(c *Config) any { return c.Pasta }, Pasta{Netns: "/n", Userns: "/u"}},
		{"pasta --userns /u", func(c *Config) any { return c.Pasta }, Pasta{Userns: "/u"}},
		{"pasta --userns /u true", func(c *Config) any { return c.Pasta }, Pasta{Userns: "/u", Command: []string{"true"}}},
		{"pasta --userns /u 12", func(c *Config) any { return c.Pasta }, Pasta{PID: 12, Userns: "/u"}},
		{"pasta --netns-only 12", func(c *Config) any { return c.Pasta }, Pasta{PID: 12, NetnsOnly: true}},
		{"pasta --no-netns-quit", func(c *Config) any { return c.Pasta.NoNetnsQuit }, true},
		{"pasta --no-copy-routes --no-copy-addrs", func(c *Config) any { return c.Pasta }, Pasta{NoCopyAddrs: true, NoCopyRoutes: true}},
		{"pasta --ns-mac-addr 02:00:00:00:00:01 --ns-mac-addr 02:00:00:00:00:02", func(c *Config) any { return c.Pasta.NSMAC }, [6]byte{2, 0, 0, 0, 0, 2}},
		{"pasta --host-lo-to-ns-lo", func(c *Config) any { return c.Pasta.HostLoToNSLo }, true},
		{"pasta --no-splice", func(c *Config) any { return c.Pasta.NoSplice }, true},
		{"pasta --splice-only", func(c *Config) any { return c.Pasta.SpliceOnly }, true},
		{"pasta -F 5", func(c *Config) any { return c.Pasta.FD }, 5},

		{"passt -s /tmp/s", func(c *Config) any { return c.Passt }, Passt{Socket: "/tmp/s"}},
		{"passt --socket /tmp/s", func(c *Config) any { return c.Passt }, Passt{Socket: "/tmp/s"}},
		{"passt --soc /tmp/s", func(c *Config) any { return c.Passt }, Passt{Socket: "/tmp/s"}},
		{"passt --socket- /tmp/s", func(c *Config) any { return c.Passt }, Passt{Socket: "/tmp/s"}},
		{"passt --socket-path /tmp/s", func(c *Config) any { return c.Passt }, Passt{Socket: "/tmp/s"}},
		{"passt --fd 5", func(c *Config) any { return c.Passt }, Passt{FD: 5, OneOff: true}},
		{"passt -1", func(c *Config) any { return c.Passt }, Passt{OneOff: true}},
		{"passt --one-off", func(c *Config) any { return c.Passt }, Passt{OneOff: true}},
		{"passt --vhost-user --repair-path /tmp/r", func(c *Config) any { return c.Passt }, Passt{VhostUser: true, RepairPath: "/tmp/r"}},
		{"passt --vhost-user --repair-path none", func(c *Config) any { return c.Passt }, Passt{VhostUser: true, NoRepair: true}},
		{"passt --migrate-exit --migrate-no-linger", func(c *Config) any { return c.Passt }, Passt{MigrateExit: true, MigrateNoLinger: true}},

		{"pasta -fdm1500", func(c *Config) any { return []any{c.Process.Foreground, c.Logging.Verbosity, c.Net.MTU} }, []any{true, Debug, 1500}},
		{"pasta -4fm 1500 -q", func(c *Config) any {
			return []any{c.Net.IPv4Only, c.Process.Foreground, c.Net.MTU, c.Logging.Verbosity}
		}, []any{true, true, 1500, Quiet}},
		{"pasta --fore --ipv4 --conf 1 --map-g 192.0.2.7", nil, "pasta: option '--conf' is ambiguous; possibilities: '--conf-path' '--config-net'"},
		{"pasta --fore --ipv4 --config --map-g 192.0.2.7", func(c *Config) any {
			return []any{c.Process.Foreground, c.Net.IPv4Only, c.Pasta.ConfigNet, c.Net.GuestAddr4}
		}, []any{true, true, true, a4}},
	}
	seen := map[string]bool{}
	for _, tt := range tests {
		argv := strings.Fields(tt.line)
		c, err := Parse(argv)
		if tt.got == nil {
			if err == nil || err.Error() != tt.want {
				t.Errorf("%s: error %v, want %v", tt.line, err, tt.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.line, err)
			continue
		}
		if got := tt.got(c); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", tt.line, got, tt.want)
		}
		for _, a := range argv {
			name, _, _ := strings.Cut(a, "=")
			seen[name] = true
		}
	}
	for _, o := range newParser("pasta", ModePasta).options() {
		if o.action == Run && !seen["--"+o.long] && !seen["-"+o.short] && o.group != forwarding {
			t.Errorf("no row for --%s", o.long)
		}
	}
}

// TestErrors holds the exact text of every complaint.
func TestErrors(t *testing.T) {
	long := strings.Repeat("x", 108)
	tests := []struct {
		line  string
		want  string
		usage bool
	}{
		{"pasta --x", "unrecognized option '--x'", true},
		{"pasta --x=1", "unrecognized option '--x=1'", true},
		{"pasta --map-gw", "unrecognized option '--map-gw'", true},
		{"pasta -x", "invalid option -- 'x'", true},
		{"pasta -fx", "invalid option -- 'x'", true},
		{"pasta --mtu", "option '--mtu' requires an argument", true},
		{"pasta --mt", "option '--mtu' requires an argument", true},
		{"pasta -m", "option requires an argument -- 'm'", true},
		{"pasta -fm", "option requires an argument -- 'm'", true},
		{"pasta --no-tcp=1", "option '--no-tcp' doesn't allow an argument", true},
		{"pasta --no-t=1", "option '--no-tcp' doesn't allow an argument", true},
		{"pasta --no-tcp=", "option '--no-tcp' doesn't allow an argument", true},
		{"pasta --dns- 1", "option '--dns-' is ambiguous; possibilities: '--dns-forward' '--dns-host'", true},
		{"passt x", "unexpected argument 'x'", true},
		{"passt -f -- -x", "unexpected argument '-x'", true},

		{"passt --config-net", "--config-net is for pasta mode only", false},
		{"passt -T 22", "-T is for pasta mode only", false},
		{"passt --dhcp-dns", "--dhcp-dns is for pasta mode only", false},
		{"passt --netns x", "--netns is for pasta mode only", false},
		{"pasta -s /tmp/s", "-s is for passt mode only", false},
		{"pasta --vhost-user", "--vhost-user is for passt mode only", false},
		{"pasta --no-dhcp-dns", "--no-dhcp-dns is for passt mode only", false},

		{"pasta -m 67", "invalid value '67' for option '-m': give 0, or bytes between 68 and 65520", false},
		{"pasta --mtu 65521", "invalid value '65521' for option '--mtu': give 0, or bytes between 68 and 65520", false},
		{"pasta --mtu=-1", "invalid value '-1' for option '--mtu': give 0, or bytes between 68 and 65520", false},
		{"pasta --mtu=", "invalid value '' for option '--mtu': give 0, or bytes between 68 and 65520", false},
		{"pasta --mtu 0x5dc", "invalid value '0x5dc' for option '--mtu': give 0, or bytes between 68 and 65520", false},
		{"pasta --mtu 99999999999999999999", "invalid value '99999999999999999999' for option '--mtu': give 0, or bytes between 68 and 65520", false},
		{"pasta -a x", "invalid value 'x' for option '-a': give a host's address such as 192.0.2.2, 192.0.2.2/24 or 2001:db8::2", false},
		{"pasta -a 127.0.0.1", "invalid value '127.0.0.1' for option '-a': give a host's address such as 192.0.2.2, 192.0.2.2/24 or 2001:db8::2", false},
		{"pasta -a 0.0.0.0", "invalid value '0.0.0.0' for option '-a': give a host's address such as 192.0.2.2, 192.0.2.2/24 or 2001:db8::2", false},
		{"pasta -a 255.255.255.255", "invalid value '255.255.255.255' for option '-a': give a host's address such as 192.0.2.2, 192.0.2.2/24 or 2001:db8::2", false},
		{"pasta -a ff02::1", "invalid value 'ff02::1' for option '-a': give a host's address such as 192.0.2.2, 192.0.2.2/24 or 2001:db8::2", false},
		{"pasta -a fe80::1%eth0", "invalid value 'fe80::1%eth0' for option '-a': give a host's address such as 192.0.2.2, 192.0.2.2/24 or 2001:db8::2", false},
		{"pasta -a 192.0.2.7/33", "invalid value '192.0.2.7/33' for option '-a': prefix length is not between 1 and 32", false},
		{"pasta -a 192.0.2.7/0", "invalid value '192.0.2.7/0' for option '-a': prefix length is not between 1 and 32", false},
		{"pasta -a 2001:db8::1/129", "invalid value '2001:db8::1/129' for option '-a': prefix length is not between 1 and 128", false},
		{"pasta -a 192.0.2.7/24 -n 24", "--netmask and the prefix length of --address 192.0.2.7/24 exclude each other", false},
		{"pasta -n 0", "invalid value '0' for option '-n': give a contiguous mask such as 255.255.255.0, or bits between 1 and 32", false},
		{"pasta -n 33", "invalid value '33' for option '-n': give a contiguous mask such as 255.255.255.0, or bits between 1 and 32", false},
		{"pasta -n 255.0.255.0", "invalid value '255.0.255.0' for option '-n': give a contiguous mask such as 255.255.255.0, or bits between 1 and 32", false},
		{"pasta -n 0.0.0.0", "invalid value '0.0.0.0' for option '-n': give a contiguous mask such as 255.255.255.0, or bits between 1 and 32", false},
		{"pasta -M 01:00:00:00:00:00", "invalid value '01:00:00:00:00:00' for option '-M': give a unicast address such as 9a:55:9a:55:9a:55", false},
		{"pasta -M 00:00:00:00:00:00", "invalid value '00:00:00:00:00:00' for option '-M': give a unicast address such as 9a:55:9a:55:9a:55", false},
		{"pasta -M ff:ff:ff:ff:ff:ff", "invalid value 'ff:ff:ff:ff:ff:ff' for option '-M': give a unicast address such as 9a:55:9a:55:9a:55", false},
		{"pasta -M 02:00:00:00:00", "invalid value '02:00:00:00:00' for option '-M': give a unicast address such as 9a:55:9a:55:9a:55", false},
		{"pasta -M 02:00-00:00:00:00", "invalid value '02:00-00:00:00:00' for option '-M': give a unicast address such as 9a:55:9a:55:9a:55", false},
		{"pasta -M 0g:00:00:00:00:00", "invalid value '0g:00:00:00:00:00' for option '-M': give a unicast address such as 9a:55:9a:55:9a:55", false},
		{"pasta --ns-mac-addr x", "invalid value 'x' for option '--ns-mac-addr': give a unicast address such as 9a:55:9a:55:9a:55", false},
		{"pasta -g ::", "invalid value '::' for option '-g': this address cannot serve here, give one such as 192.0.2.1 or 2001:db8::1", false},
		{"pasta -g x", "invalid value 'x' for option '-g': give an address such as 192.0.2.1 or 2001:db8::1", false},
		{"pasta -o 224.0.0.1", "invalid value '224.0.0.1' for option '-o': this address cannot serve here, give one such as 192.0.2.1 or 2001:db8::1", false},
		{"pasta -i 0123456789abcdef", "invalid value '0123456789abcdef' for option '-i': give the name of an interface, as ip-link(8) shows it", false},
		{"pasta -i a/b", "invalid value 'a/b' for option '-i': give the name of an interface, as ip-link(8) shows it", false},
		{"pasta -i ..", "invalid value '..' for option '-i': give the name of an interface, as ip-link(8) shows it", false},
		{"pasta -I tap%d", "invalid value 'tap%d' for option '-I': give a name of 1 to 15 characters, without blanks, '/', ':' and '%'", false},
		{"pasta --outbound-if4 a:b", "invalid value 'a:b' for option '--outbound-if4': give the name of an interface, as ip-link(8) shows it", false},
		{"pasta --map-host-loopback ::1", "invalid value '::1' for option '--map-host-loopback': this address cannot serve here, give one such as 192.0.2.1 or 2001:db8::1", false},
		{"pasta --map-host-loopback x", "invalid value 'x' for option '--map-host-loopback': give an address such as 192.0.2.1 or 2001:db8::1", false},
		{"pasta --map-guest-addr 127.0.0.1", "invalid value '127.0.0.1' for option '--map-guest-addr': this address cannot serve here, give one such as 192.0.2.1 or 2001:db8::1", false},
		{"pasta -46", "--ipv4-only and --ipv6-only exclude each other", false},
		{"pasta -D 0.0.0.0", "invalid value '0.0.0.0' for option '-D': this address cannot serve here, give one such as 192.0.2.1 or 2001:db8::1", false},
		{"pasta -D x", "invalid value 'x' for option '-D': give an address such as 192.0.2.1 or 2001:db8::1", false},
		{"pasta --dns-forward x", "invalid value 'x' for option '--dns-forward': give an address such as 192.0.2.1 or 2001:db8::1", false},
		{"pasta -S -x", "invalid value '-x' for option '-S': '-x' is no domain name", false},
		{"pasta -S a..b", "invalid value 'a..b' for option '-S': 'a..b' is no domain name", false},
		{"pasta --search=", "invalid value '' for option '--search': give domains apart by spaces, or 'none'", false},
		{"pasta -H a_b.-c", "invalid value 'a_b.-c' for option '-H': give letters, digits, '-' and '_', in parts of up to 63 with dots between", false},
		{"pasta --fqdn " + strings.Repeat("a.", 127) + "a", "invalid value '" + strings.Repeat("a.", 127) + "a' for option '--fqdn': give letters, digits, '-' and '_', in parts of up to 63 with dots between", false},
		{"pasta -q -d", "--quiet and --debug exclude each other", false},
		{"pasta -q --trace", "--quiet and --trace exclude each other", false},
		{"pasta --stats 1", "--stats needs --foreground", false},
		{"pasta -f --stats 0", "invalid value '0' for option '--stats': give seconds between 1 and 86400", false},
		{"pasta --log-size 4095", "invalid value '4095' for option '--log-size': give bytes between 4096 and 1099511627776", false},
		{"pasta --log-file=", "invalid value '' for option '--log-file': give a path", false},
		{"pasta --runas :", "invalid value ':' for option '--runas': give UID, UID:GID, LOGIN or LOGIN:GROUP", false},
		{"pasta --runas a:b:c", "invalid value 'a:b:c' for option '--runas': give UID, UID:GID, LOGIN or LOGIN:GROUP", false},
		{"pasta --runas 4294967295", "invalid value '4294967295' for option '--runas': give UID, UID:GID, LOGIN or LOGIN:GROUP", false},
		{"pasta --queues 17", "invalid value '17' for option '--queues': give a number between 0 (one per CPU) and 16", false},
		{"pasta -c " + long, "invalid value '" + long + "' for option '-c': a socket's path has 1 to 107 bytes", false},
		{"passt -s " + long, "invalid value '" + long + "' for option '-s': a socket's path has 1 to 107 bytes", false},
		{"passt -F 2", "invalid value '2' for option '-F': give the number of an open descriptor, 3 or above", false},
		{"passt -F 5 -s /tmp/s", "--socket and --fd exclude each other", false},
		{"passt --repair-path /tmp/r", "--repair-path needs --vhost-user", false},
		{"pasta --netns=", "invalid value '' for option '--netns': give the path or the name of a network namespace", false},
		{"pasta --netns ..", "invalid value '..' for option '--netns': give the path or the name of a network namespace", false},
		{"pasta --netns x 12", "--netns and PID 12 exclude each other", false},
		{"pasta --netns x true", "--netns and the command 'true' exclude each other", false},
		{"pasta 0", "'0' is no process ID", false},
		{"pasta 99999999999", "'99999999999' is no process ID", false},
		{"pasta --userns /u --netns-only", "--userns and --netns-only exclude each other", false},
		{"pasta --userns /u --netns-only true", "--userns and --netns-only exclude each other", false},
		{"pasta --userns /u --netns x --netns-only", "--userns and --netns-only exclude each other", false},
		{"pasta --splice-only --no-splice", "--splice-only and --no-splice exclude each other", false},
		{"pasta --splice-only -F 5", "--splice-only and --fd exclude each other", false},
	}
	for _, tt := range tests {
		argv := strings.Fields(tt.line)
		_, err := Parse(argv)
		var own *Error
		if !errors.As(err, &own) {
			t.Errorf("%s: error %v, want an *Error", tt.line, err)
			continue
		}
		if want := argv[0] + ": " + tt.want; own.Text != want || own.Usage != tt.usage {
			t.Errorf("%s:\n got %q, %v\nwant %q, %v", tt.line, own.Text, own.Usage, want, tt.usage)
		}
	}
}

func TestEmptyCommand(t *testing.T) {
	_, err := Parse([]string{"pasta", ""})
	if err == nil || err.Error() != "pasta: the command's name is empty" {
		t.Errorf("error %v", err)
	}
}

func TestWarnings(t *testing.T) {
	tests := []struct{ line, want string }{
		{"pasta -m 576", "an MTU of 576 is too small for IPv6, which needs 1280"},
		{"pasta -m 576 -4", ""},
		{"pasta -m 0", ""},
		{"pasta -e", ""},
		{"pasta -c /a -c /b", "--conf-path /b has no effect: forwarded ports cannot be changed at run time yet"},
		{"pasta --no-copy-routes", "--no-copy-routes is deprecated"},
		{"pasta --no-copy-addrs", "--no-copy-addrs is deprecated"},
		{"passt --migrate-exit", "--migrate-exit is deprecated"},
		{"passt --migrate-no-linger", "--migrate-no-linger is deprecated"},
		{"passt --queues 2", "--queues 2 has no effect: a stream of frames has one queue"},
		{"passt --queues 2 --vhost-user", ""},
		{"pasta -4 -a 2001:db8::1", "--address 2001:db8::1 has no effect with --ipv4-only"},
		{"pasta -6 -g 192.0.2.1", "--gateway 192.0.2.1 has no effect with --ipv6-only"},
		{"pasta -6 --dns-forward 169.254.1.1 --map-guest-addr 169.254.1.2", ""},
		{"pasta -D 192.0.2.1 -D 192.0.2.2 -D 192.0.2.3 -D 192.0.2.4 -D 2001:db8::1", "resolver 192.0.2.4 ignored: at most 3 can be given per family"},
	}
	for _, tt := range tests {
		c := mustParse(t, strings.Fields(tt.line)...)
		if got := strings.Join(c.Warnings, "\n"); got != tt.want {
			t.Errorf("%s: warnings %q, want %q", tt.line, got, tt.want)
		}
	}
}

func TestActions(t *testing.T) {
	tests := []struct {
		line string
		want Action
	}{
		{"pasta --version", PrintVersion},
		{"pasta --config-net --version", PrintVersion},
		{"pasta --host-lo-to-ns-lo --version", PrintVersion},
		{"pasta --map-guest-addr --version", PrintVersion},
		{"pasta -t --version", PrintVersion},
		{"pasta --version --bogus", PrintVersion},
		{"pasta --vers", PrintVersion},
		{"pasta -h", PrintHelp},
		{"pasta -fh", PrintHelp},
		{"pasta -hx", PrintHelp},
		{"pasta --help --version", PrintHelp},
		{"passt --vhost-user --print-capabilities", PrintCapabilities},
		{"passt -h", PrintHelp},
		{"pasta -- --version", Run},
		{"pasta true --version", Run},
	}
	for _, tt := range tests {
		if c := mustParse(t, strings.Fields(tt.line)...); c.Action != tt.want {
			t.Errorf("%s: action %v, want %v", tt.line, c.Action, tt.want)
		}
	}
}

// TestUsage checks that callers who look for an option in the help text find
// it, and that each mode lists its own.
func TestUsage(t *testing.T) {
	for _, mode := range []Mode{ModePasta, ModePasst} {
		text := Usage(mode.String(), mode)
		for _, o := range newParser(mode.String(), mode).options() {
			listed := strings.Contains(text, " --"+o.long+" ") || strings.Contains(text, " --"+o.long+"\n")
			if listed != o.scope.covers(mode) {
				t.Errorf("%v: --%s listed: %v", mode, o.long, listed)
			}
		}
		for l := range strings.Lines(text) {
			if len([]rune(l)) > 101 {
				t.Errorf("%v: line of %d columns: %s", mode, len(l), l)
			}
		}
	}
}

func TestVersionText(t *testing.T) {
	text := VersionText("pasta")
	if first, _, _ := strings.Cut(text, "\n"); first != "pasta "+Version+" (penne)" {
		t.Errorf("first line %q", first)
	}
	if !strings.Contains(text, "Apache License 2.0") {
		t.Error("no licence")
	}
}

// BenchmarkParse is part of each start, twice.
func BenchmarkParse(b *testing.B) {
	argv := strings.Fields("pasta --config-net -t 80-82:60-62 --dns-forward 169.254.1.1 -u none -T none -U none --no-map-gw --quiet --netns /n --map-guest-addr 169.254.1.2")
	for b.Loop() {
		if _, err := Parse(argv); err != nil {
			b.Fatal(err)
		}
	}
}
