package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"penne/internal/sys"
	"penne/test/bed"
)

// Ways to a port of the host: from itself by loopback, and from the remote machine by its address.
const (
	lo4  = "127.0.0.1"
	lo6  = "::1"
	net4 = bed.HostIP4
	net6 = bed.HostIP6
)

// clientOf is who can use an address of the host.
func clientOf(host, remote *bed.Session, ip string) *bed.Session {
	if ip == lo4 || ip == lo6 {
		return host
	}
	return remote
}

// everywhere is a port that leads to the same port of the guest from each way.
func everywhere(from, to int) map[string]int {
	m := map[string]int{}
	for _, ip := range []string{lo4, lo6, net4, net6} {
		m[at(ip, from)] = to
	}
	return m
}

// merge joins expectations.
func merge(maps ...map[string]int) map[string]int {
	all := map[string]int{}
	for _, m := range maps {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}

// forms is every form of a forwarding specification, and to which port of the guest each way leads; 0 stands for a
// refusal.
var forms = []struct {
	spec []string
	want map[string]int
}{
	{[]string{"8000"}, merge(everywhere(8000, 8000), everywhere(8001, 0))},
	{[]string{"8000:9001"}, everywhere(8000, 9001)},
	{[]string{"8000,8002"}, merge(everywhere(8000, 8000), everywhere(8001, 0), everywhere(8002, 8002))},
	{[]string{"8000-8002"}, merge(everywhere(8000, 8000), everywhere(8002, 8002), everywhere(8003, 0))},
	{[]string{"8000-8002:9000-9002"}, merge(everywhere(8000, 9000), everywhere(8002, 9002), everywhere(8003, 0))},
	{[]string{"8000:9000,8001-8002:9003-9004"}, merge(everywhere(8000, 9000), everywhere(8001, 9003), everywhere(8002, 9004))},
	{[]string{"8000", "8001:9001"}, merge(everywhere(8000, 8000), everywhere(8001, 9001))},
	{[]string{"8000", "none", "8001"}, merge(everywhere(8000, 0), everywhere(8001, 8001))},
	{[]string{"8000", "none"}, everywhere(8000, 0)},
	{[]string{"8000-8003,~8001-8002"}, merge(everywhere(8000, 8000), everywhere(8001, 0), everywhere(8002, 0), everywhere(8003, 8003))},
	{[]string{net4 + "/8000"}, merge(everywhere(8000, 0), map[string]int{at(net4, 8000): 8000})},
	{[]string{"127.0.0.1/8000"}, merge(everywhere(8000, 0), map[string]int{at(lo4, 8000): 8000})},
	{[]string{"[" + net6 + "]/8000"}, merge(everywhere(8000, 0), map[string]int{at(net6, 8000): 8000})},
	{[]string{"[::1]/8000:9000"}, merge(everywhere(8000, 0), map[string]int{at(lo6, 8000): 9000})},
	{[]string{"::1/8000-8001:9000-9001"}, merge(everywhere(8000, 0), map[string]int{at(lo6, 8000): 9000, at(lo6, 8001): 9001})},
	{[]string{"0.0.0.0/8000"}, merge(everywhere(8000, 0), map[string]int{at(lo4, 8000): 8000, at(net4, 8000): 8000})},
	{[]string{"::/8000"}, merge(everywhere(8000, 0), map[string]int{at(lo6, 8000): 8000, at(net6, 8000): 8000})},
	{[]string{net4 + "/8000-8003,~8001"}, merge(everywhere(8000, 0), map[string]int{
		at(net4, 8000): 8000, at(net4, 8001): 0, at(net4, 8002): 8002,
	})},
	{[]string{"%lo/8000"}, merge(everywhere(8000, 0), map[string]int{at(lo4, 8000): 8000, at(lo6, 8000): 8000})},
	{[]string{"%" + bed.Link + "/8000"}, merge(everywhere(8000, 0), map[string]int{at(net4, 8000): 8000, at(net6, 8000): 8000})},
	{[]string{net4 + "%" + bed.Link + "/8000:9000"}, merge(everywhere(8000, 0), map[string]int{at(net4, 8000): 9000})},
	{[]string{"[" + net6 + "]%" + bed.Link + "/8000"}, merge(everywhere(8000, 0), map[string]int{at(net6, 8000): 8000})},
	{[]string{"127.0.0.1/8000:9000", "[::1]/8000:9001", net4 + "/8000:9002", net6 + "/8000:9003"}, map[string]int{
		at(lo4, 8000): 9000, at(lo6, 8000): 9001, at(net4, 8000): 9002, at(net6, 8000): 9003,
	}},
	{[]string{"%lo/8000:9000", "%" + bed.Link + "/8000:9001"}, map[string]int{
		at(lo4, 8000): 9000, at(lo6, 8000): 9000, at(net4, 8000): 9001, at(net6, 8000): 9001,
	}},
	{[]string{"8000:[" + net6 + "]/9000"}, map[string]int{at(lo6, 8000): 9000, at(net6, 8000): 9000}},
	{[]string{"8000:" + net4 + "/9000"}, map[string]int{at(lo4, 8000): 9000, at(net4, 8000): 9000}},
}

// portsBed is a bed where each refusal of a datagram is reported: the kernel else sends ICMP errors at a bounded
// rate.
func portsBed(t *testing.T) (b *bed.Bed, host, remote *bed.Session) {
	t.Helper()
	b = newBed(t)
	inHost(t, b, "sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0", "net.ipv4.icmp_msgs_per_sec=100000")
	return b, direct(t, b, b.Host), direct(t, b, b.Remote)
}

// TestForwardingFormsTCP tries each form of -t from host and remote, by both families.
func TestForwardingFormsTCP(t *testing.T) { eachForm(t, "tcp", "-t") }

// TestForwardingFormsUDP does so for -u.
func TestForwardingFormsUDP(t *testing.T) { eachForm(t, "udp", "-u") }

func eachForm(t *testing.T, network, option string) {
	b, host, remote := portsBed(t)
	for _, f := range forms {
		t.Run(strings.Join(f.spec, " "), func(t *testing.T) {
			s := forward(t, b, specs(option, f.spec)...)
			serveIn(t, s, network, "who", append(anyPort(8000, 8004), anyPort(9000, 9004)...)...)
			wantPorts(t, host, remote, network, f.want)
		})
	}
}

// specs are the options that forward nothing but specifications of one option.
func specs(option string, list []string) []string {
	options := append([]string{}, noForward...)
	for _, spec := range list {
		options = append(options, option, spec)
	}
	return options
}

// TestForwardingOut tries forms of -T and -U. The host's servers are on loopback.
func TestForwardingOut(t *testing.T) {
	b, host, _ := portsBed(t)
	loopback := func(from, to int) map[string]int {
		return map[string]int{at(lo4, from): to, at(lo6, from): to}
	}
	for _, network := range []struct{ name, option string }{{"tcp", "-T"}, {"udp", "-U"}} {
		var servers []string
		for _, ip := range []string{lo4, lo6, "127.0.0.2"} {
			for _, port := range []int{7000, 7001, 7002, 7003} {
				servers = append(servers, at(ip, port))
			}
		}
		serveIn(t, host, network.name, "who", servers...)
		for _, f := range []struct {
			spec []string
			want map[string]int
		}{
			{[]string{"7000"}, merge(loopback(7000, 7000), loopback(7001, 0))},
			{[]string{"8000-8002:7000-7002,~8001"}, merge(loopback(8000, 7000), loopback(8001, 0), loopback(8002, 7002))},
			{[]string{"127.0.0.1/7000", "[::1]/7000:7001"}, map[string]int{at(lo4, 7000): 7000, at(lo6, 7000): 7001}},
			{[]string{"%lo/7000:7003"}, loopback(7000, 7003)},
			{[]string{"8000:127.0.0.2/7000"}, map[string]int{at(lo4, 8000): 7000, at(lo6, 8000): 7000}},
		} {
			t.Run(network.name+" "+strings.Join(f.spec, " "), func(t *testing.T) {
				s := forward(t, b, specs(network.option, f.spec)...)
				wantPorts(t, s, s, network.name, f.want)
			})
		}
	}
}

// TestAllPorts forwards everything but exclusions; ports that are named go before that, in whatever order.
func TestAllPorts(t *testing.T) {
	b, host, remote := portsBed(t)
	taken := serveIn(t, host, "tcp", "source", ":8004")
	defer taken()
	s := limited(t, b, 20000, specs("-t", []string{"all,~8002-8003", "8000:9000", "9001:8001"})...)
	serveIn(t, s, "tcp", "who", append(anyPort(8000, 8004), anyPort(9000, 9004)...)...)
	wantPorts(t, host, remote, "tcp", merge(
		everywhere(8000, 9000), everywhere(8001, 8001), everywhere(8002, 0), everywhere(8003, 0),
		everywhere(9000, 9000), everywhere(9001, 8001), everywhere(9004, 9004),
	))
}

// TestAllPortsOfSeveralAddresses gives "all" once for each of two places.
func TestAllPortsOfSeveralAddresses(t *testing.T) {
	b, host, remote := portsBed(t)
	const others = ",~1-7999,~8010-65535"
	for _, c := range []struct {
		specs []string
		want  map[string]int
	}{
		{[]string{"127.0.0.1/all" + others, "::1/all" + others, "8001:9001"}, merge(
			everywhere(8000, 0), everywhere(8001, 9001), map[string]int{at(lo4, 8000): 8000, at(lo6, 8000): 8000},
		)},
		{[]string{"%lo/all" + others, "%" + bed.Link + "/all" + others}, everywhere(8000, 8000)},
	} {
		t.Run(strings.Join(c.specs, " "), func(t *testing.T) {
			s := forward(t, b, specs("-t", c.specs)...)
			serveIn(t, s, "tcp", "who", append(anyPort(8000, 8004), anyPort(9000, 9004)...)...)
			wantPorts(t, host, remote, "tcp", c.want)
		})
	}
}

// TestAllLowPortsOfSeveralAddresses does so for ports that only a capability of the caller's opens.
func TestAllLowPortsOfSeveralAddresses(t *testing.T) {
	need(t, "setcap")
	b, host, remote := portsBed(t)
	argv := append([]string{"/usr/bin/env", withCapability(t, b)}, forwarding...)
	s, err := b.Pasta(append(argv, specs("-t", []string{"127.0.0.1/all,~1-79,~82-65535", "::1/all,~1-79,~82-65535"})...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	serveIn(t, s, "tcp", "who", ":80", ":81")
	wantPorts(t, host, remote, "tcp", merge(everywhere(80, 0), map[string]int{at(lo4, 80): 80, at(lo6, 80): 80, at(lo6, 81): 81}))
}

// TestPortsThatLeadToEachOther forwards all ports outwards and some inwards, to the loopback inside, where both would
// meet; a port given to both is refused.
func TestPortsThatLeadToEachOther(t *testing.T) {
	b, host, _ := portsBed(t)
	for _, extra := range []string{"--splice-only", "--host-lo-to-ns-lo"} {
		failing(t, b, []string{extra, "-t", "8080", "-T", "8000-8100"}, "option '-t 8080'", "option '-T 8000-8100'")
		s := forward(t, b, extra, "-t", "8080", "-T", "all,~1-7999,~8100-65535", "-u", "none", "-U", "none")
		serveIn(t, s, "tcp", "who", ":8080")
		stop := serveIn(t, host, "tcp", "who", at(lo4, 8090))
		if a := ask(t, host, "tcp", at(lo4, 8080)); a.localPort() != 8080 {
			t.Errorf("%s: inwards led to %+v", extra, a)
		}
		if a := ask(t, s, "tcp", at(lo4, 8090)); a.localPort() != 8090 {
			t.Errorf("%s: outwards led to %+v", extra, a)
		}
		stop()
		s.Close()
	}
}

// wantPorts tries addresses of the host: want is the guest's port that each leads to, 0 a refusal.
func wantPorts(t *testing.T, host, remote *bed.Session, network string, want map[string]int) {
	t.Helper()
	for _, s := range []*bed.Session{host, remote} {
		var addrs []string
		for addr := range want {
			if clientOf(host, remote, ipOf(addr)) == s {
				addrs = append(addrs, addr)
			}
		}
		for addr, a := range askAll(t, s, network, addrs) {
			if a.localPort() != want[addr] || want[addr] == 0 && !a.refused() {
				t.Errorf("%s led to %+v, want port %d", addr, a, want[addr])
			}
		}
	}
}

// TestUDPInheritsTCP forwards the ports of -t by UDP too, untranslated, unless -u is given.
func TestUDPInheritsTCP(t *testing.T) {
	b, host, remote := portsBed(t)
	for _, c := range []struct {
		options []string
		want    map[string]int
	}{
		{[]string{"-t", "8000-8001:9000-9001"}, merge(everywhere(8000, 8000), everywhere(8001, 8001))},
		{[]string{"-t", "8000", "-u", "none"}, everywhere(8000, 0)},
		{[]string{"-t", "8000", "-u", "8001:9001"}, merge(everywhere(8000, 0), everywhere(8001, 9001))},
	} {
		t.Run(fmt.Sprint(c.options), func(t *testing.T) {
			s := forward(t, b, append([]string{"-T", "none", "-U", "none"}, c.options...)...)
			serveIn(t, s, "udp", "who", append(anyPort(8000, 8004), anyPort(9000, 9004)...)...)
			wantPorts(t, host, remote, "udp", c.want)
		})
	}
}

var _ = bed.Register("noipv6", noIPv6Tool)

// noIPv6Tool runs a command to which no socket of IPv6 is given, as on a kernel without the module.
func noIPv6Tool(args []string) (any, error) {
	err := sys.LoadSeccomp([]sys.SockFilter{
		{Code: 0x20},                                                 // load the call's number
		{Code: 0x15, Jf: 3, K: sys.NrSocket},                         // if it is socket(2),
		{Code: 0x20, K: 16},                                          // load its first argument,
		{Code: 0x15, Jf: 1, K: uint32(sys.AF_INET6)},                 // and if that is the family,
		{Code: 0x06, K: sys.SeccompErrno | uint32(sys.EAFNOSUPPORT)}, // refuse it
		{Code: 0x06, K: sys.SeccompAllow},
	})
	if err != nil {
		return nil, err
	}
	return nil, syscall.Exec(args[0], args, os.Environ())
}

// withoutIPv6 is the start of a command line that runs pasta by noIPv6Tool in a host without IPv6.
func withoutIPv6(t *testing.T, b *bed.Bed) []string {
	t.Helper()
	self, err := os.Executable()
	if err == nil {
		self, err = b.Stage(self)
	}
	if err != nil {
		t.Fatal(err)
	}
	inHost(t, b, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
	return append([]string{"/usr/bin/env", "PENNE_BED_TOOL=noipv6", self, staged(t, b)}, forwarding...)
}

// TestHostWithoutIPv6 forwards ports, low ones too where everybody may bind them, and says what is wrong with those
// that cannot be had.
func TestHostWithoutIPv6(t *testing.T) {
	b, host, remote := portsBed(t)
	argv := withoutIPv6(t, b)
	for spec, want := range map[string]string{
		"80":               "Failed to bind port 80 (Permission denied) for option '-t 80': ports below",
		"8000:[::1]/80":    "option '-t 8000:[::1]/80' names an IPv6 address, and this host has no IPv6",
		"all:[2001:db8::]": "option '-t all:[2001:db8::]' names an IPv6 address, and this host has no IPv6",
	} {
		res, err := b.Host.Run(bed.Spec{Argv: append(append(append([]string{}, argv...), specs("-t", []string{spec})...), "--", "true")})
		if err != nil {
			t.Fatal(err)
		}
		wantOneLine(t, res, []string{spec})
		if !strings.Contains(res.Stderr, want) {
			t.Errorf("-t %s: %q, want %q", spec, res.Stderr, want)
		}
	}
	inHost(t, b, "sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=0")
	s, err := b.Pasta(append(append([]string{}, argv...), specs("-t", []string{"80", "8000"})...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	serveIn(t, s, "tcp", "who", ":80", ":8000")
	wantPorts(t, host, remote, "tcp", map[string]int{at(lo4, 80): 80, at(net4, 80): 80, at(lo4, 8000): 8000, at(net4, 8000): 8000})
}
