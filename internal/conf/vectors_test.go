package conf

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// TestCallers parses the lines of container engines and libvirt as they
// write them.
func TestCallers(t *testing.T) {
	const podman = "pasta --config-net --dns-forward 169.254.1.1 -t none -u none -T none -U none --no-map-gw --quiet --netns /run/user/1000/netns/netns-0c5d --map-guest-addr 169.254.1.2"
	tests := []struct {
		line  string
		check func(c *Config) bool
	}{
		{podman, func(c *Config) bool {
			f := &c.Forward
			return c.Pasta.ConfigNet && c.DNS.Forward4 == netip.MustParseAddr("169.254.1.1") &&
				len(f.TCPIn)+len(f.UDPIn)+len(f.TCPOut)+len(f.UDPOut) == 0 &&
				c.Net.HostLoopback4.Off && c.Net.HostLoopback6.Off && c.Logging.Verbosity == Quiet &&
				c.Pasta.Netns == "/run/user/1000/netns/netns-0c5d" && c.Pasta.NetnsOnly && c.Pasta.Userns == "" &&
				c.Net.GuestAddr4 == netip.MustParseAddr("169.254.1.2") && !c.Process.Foreground
		}},
		{podman + " --map-host-loopback 169.254.1.2", func(c *Config) bool { // since 2026: one address for both
			return c.Net.HostLoopback4.Addr == netip.MustParseAddr("169.254.1.2") && !c.Net.HostLoopback4.Off &&
				c.Net.HostLoopback6.Off && c.Net.GuestAddr4 == c.Net.HostLoopback4.Addr
		}},
		{"pasta --config-net -t 80-80:60-60 -u 100-100:100-100 --dns-forward 169.254.1.1 -T none -U none --no-map-gw --quiet --netns netns123", func(c *Config) bool {
			return texts(c.Forward.TCPIn) == "80:60" && texts(c.Forward.UDPIn) == "100" && c.Pasta.Netns == "/run/netns/netns123"
		}},
		{"pasta --config-net -t 127.0.0.1/5910-5910:5910-5910 -t ::1/5406-5408:5406-5408 -u 2001:db8:2::2/5658-5660:5659-5661 --dns-forward 169.254.1.1 -T none -U none --no-map-gw --quiet --netns /n", func(c *Config) bool {
			return texts(c.Forward.TCPIn) == "127.0.0.1/5910 [::1]/5406-5408" && texts(c.Forward.UDPIn) == "[2001:db8:2::2]/5658-5660:5659-5661"
		}},
		{"pasta --config-net --tcp-ports 198.51.100.2%eth0/5822:5822 --udp-ports ::1%lo/5823:5824 --quiet --netns /n", func(c *Config) bool {
			return texts(c.Forward.TCPIn) == "198.51.100.2%eth0/5822" && texts(c.Forward.UDPIn) == "[::1]%lo/5823:5824"
		}},
		{"pasta --config-net -4 -6x", nil},
		{"pasta --config-net -4 -m 1280 -I eth9 -a 192.0.2.7 -g 192.0.2.1 -n 24 --pid /tmp/p --ns-mac-addr 02:00:00:00:00:01 --ns-mac-addr 02:00:00:00:00:02 --netns /n", func(c *Config) bool {
			return c.Net.IPv4Only && c.Net.MTU == 1280 && c.Pasta.Ifname == "eth9" && c.Net.Bits4 == 24 &&
				c.Net.Gateway4.IsValid() && c.Process.PIDFile == "/tmp/p" && c.Pasta.NSMAC[5] == 2
		}},
		{"pasta --config-net -6 --dns-forward 169.254.1.1 --no-map-gw --quiet --netns /n --map-guest-addr 169.254.1.2", func(c *Config) bool {
			return c.Net.IPv6Only && len(c.Warnings) == 0
		}},
		{"pasta --stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 --no-map-gw --ipv4-only --tcp-ports=auto --udp-ports=auto 4321", func(c *Config) bool {
			return c.Pasta.PID == 4321 && c.Pasta.Ifname == "tap0" && c.Net.MTU == 65520 &&
				c.Net.Bits4 == 24 && texts(c.Forward.TCPIn) == "auto" && texts(c.Forward.UDPIn) == "auto"
		}},
		{"pasta --stderr --ns-ifname=tap0 --mtu=1500 --config-net --address=10.0.2.100 --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 --tcp-ports=none --udp-ports=none --userns=/proc/4321/ns/user --netns=/run/user/1000/x/netns", func(c *Config) bool {
			return c.Pasta.Userns == "/proc/4321/ns/user" && c.Pasta.Netns == "/run/user/1000/x/netns" && !c.Pasta.NetnsOnly &&
				texts(c.Forward.TCPIn) == "" && texts(c.Forward.TCPOut) == "auto"
		}},
		{"pasta -t 10001,10002,10011,10012 -T 10003,10013 -u 10001,10002,10011,10012 -U 10003,10013 --map-host-loopback 192.0.2.1 --map-host-loopback 2001:db8:9a55::1 --config-net sleep 10", func(c *Config) bool {
			return len(c.Forward.TCPIn[0].Rules) == 4 && c.Net.HostLoopback6.Addr.IsValid() && len(c.Pasta.Command) == 2
		}},
		{"passt --one-off --socket /run/q/1-vm-net0.socket --pid /run/q/1-vm-net0-passt.pid --interface eth0 --log-file /tmp/l --address 192.0.2.7 --netmask 24 --address 2001:db8::7 --tcp-ports 2222:22,2223:23 --udp-ports 3333:33", func(c *Config) bool {
			return c.Passt.OneOff && c.Passt.Socket == "/run/q/1-vm-net0.socket" && !c.Process.Foreground && c.Net.Addr6.IsValid() &&
				texts(c.Forward.TCPIn) == "2222:22,2223:23" && texts(c.Forward.UDPIn) == "3333:33"
		}},
		{"passt --vhost-user --one-off --socket /s --pid /p --tcp-ports 127.0.0.1/2222:22,4000-4010:5000-5010,~4005-4006 --udp-ports 198.51.100.2%if0/3333:33", func(c *Config) bool {
			return c.Passt.VhostUser && len(c.Forward.TCPIn[0].Rules) == 3
		}},
		{"passt -f -t 2222:22", func(c *Config) bool { return c.Process.Foreground && texts(c.Forward.TCPIn) == "2222:22" }},
		{"pasta --foreground --quiet --log-file /l --pid /p --ipv4-only --host-lo-to-ns-lo --tcp-ports 127.0.0.1/8000:5000 --udp-ports none --tcp-ns none --udp-ns none -- server --store x", func(c *Config) bool {
			return c.Pasta.HostLoToNSLo && len(c.Pasta.Command) == 3
		}},
	}
	for _, tt := range tests {
		c, err := Parse(strings.Fields(tt.line))
		switch {
		case tt.check == nil:
			if err == nil {
				t.Errorf("%s: no error", tt.line)
			}
		case err != nil:
			t.Errorf("%s: %v", tt.line, err)
		case !tt.check(c):
			t.Errorf("%s: got %+v", tt.line, c)
		}
	}
}

// TestRetryText checks the text on which Podman retries.
func TestRetryText(t *testing.T) {
	_, err := Parse([]string{"/usr/bin/pasta", "--map-guest-addrs", "169.254.1.2"})
	if err == nil || !strings.Contains(err.Error(), "unrecognized option '--map-guest-addr") {
		t.Errorf("error %v", err)
	}
}

// TestJSON checks that a Config survives encoding, as handing it to another
// process needs.
func TestJSON(t *testing.T) {
	c := mustParse(t, "pasta", "--runas", "1:2", "-a", "192.0.2.7/24", "-t", "[::1]/22:[::2]/23,~80", "-D", "192.0.2.1", "-m", "1500", "-M", "02:00:00:00:00:01", "--", "true")
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var got Config
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&got, c) {
		t.Errorf("got %+v\nwant %+v", got, *c)
	}
}
