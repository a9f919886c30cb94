package e2e

import (
	"net/netip"
	"strconv"
	"testing"

	"penne/test/bed"
)

// TestOutboundWaysThatAreNotThere says so, once for each, and goes on.
func TestOutboundWaysThatAreNotThere(t *testing.T) {
	b := newBed(t)
	for _, c := range []struct {
		options []string
		want    string
	}{
		{[]string{"-o", "192.0.2.99", "-o", bed.HostIP6}, "outbound address 192.0.2.99 is none of this host's: nothing gets out until it is\n"},
		{[]string{"-i", bed.Link, "--outbound-if4", bed.Link, "--outbound-if6", "none0"}, "outbound interface none0 does not exist: nothing gets out until it does\n"},
		{[]string{"-i", bed.Link, "--outbound-if4", "none0", "--outbound-if6", "none0"}, "outbound interface none0 does not exist: nothing gets out until it does\n"},
	} {
		argv := append(append([]string{"--config-net", "-f", "-q"}, noForward...), c.options...)
		if res := pasta(t, b, append(argv, "--", "true")...); res.Status != 0 || res.Stderr != c.want {
			t.Errorf("%v: status %d, %q, want %q", c.options, res.Status, res.Stderr, c.want)
		}
	}
}

// TestOutboundSource binds sockets to another address of the host, and to its interface.
func TestOutboundSource(t *testing.T) {
	need(t, "ping")
	b := newBed(t)
	onHost(t, b, "addr", "add", otherIP4+"/24", "dev", bed.Link)
	onHost(t, b, "-6", "addr", "add", otherIP6+"/64", "dev", bed.Link, "nodad", "preferred_lft", "0")
	s := attach(t, b, "-o", otherIP4, "-o", otherIP6, "--outbound-if4", bed.Link, "--outbound-if6", bed.Link)
	remote, host := direct(t, b, b.Remote), direct(t, b, b.Host)
	for _, network := range []string{"tcp", "udp"} {
		serveIn(t, remote, network, "who", at(bed.RemoteIP4, 7000), at(bed.RemoteIP6, 7000))
		for ip, want := range map[string]string{bed.RemoteIP4: otherIP4, bed.RemoteIP6: otherIP6} {
			if a := ask(t, s, network, at(ip, 7000)); a.remoteIP() != want {
				t.Errorf("%s to %s: comes as %+v, want %s", network, ip, a, want)
			}
		}
		serveIn(t, host, network, "who", "127.0.0.1:7001")
		if a := ask(t, s, network, at(bed.GatewayIP4, 7001)); a.localIP() != "127.0.0.1" {
			t.Errorf("%s to the host's loopback: %+v", network, a)
		}
	}
	// Of echo replies only those that go to the other address arrive.
	asRoot(t, b.Remote, "ip", "route", "add", "blackhole", bed.HostIP4)
	asRoot(t, b.Remote, "ip", "-6", "route", "add", "blackhole", bed.HostIP6)
	for _, ip := range []string{bed.RemoteIP4, bed.RemoteIP6} {
		wants(t, "ping", run(t, s, "ping", "-n", "-c", "1", "-w", "30", ip), " 1 received")
	}
}

// Addresses of both ends of a detour.
const detour4, detour6, far4, far6 = "203.0.113.2", "2001:db8:2::2", "203.0.113.3", "2001:db8:2::3"

// addDetour adds a second link between host and remote machine. Routing prefers the first, where nobody has the remote's
// addresses of the second.
func addDetour(t *testing.T, b *bed.Bed, remote *bed.Session) {
	t.Helper()
	onHost(t, b, "link", "add", "detour", "type", "veth", "peer", "name", "detour", "netns", strconv.Itoa(remote.Proc.PID()))
	for _, end := range []struct {
		ns *bed.NS
		ip []string
	}{{b.Host, []string{detour4 + "/24", detour6 + "/64"}}, {b.Remote, []string{far4 + "/24", far6 + "/64"}}} {
		asRoot(t, end.ns, "ip", "link", "set", "detour", "up")
		for _, ip := range end.ip {
			asRoot(t, end.ns, "ip", "addr", "add", ip, "dev", "detour", "noprefixroute", "nodad")
			asRoot(t, end.ns, "ip", "route", "add", netip.MustParsePrefix(ip).Masked().String(), "dev", "detour", "metric", "1000")
		}
	}
	onHost(t, b, "route", "add", "203.0.113.0/24", "via", "198.51.100.77")
	onHost(t, b, "-6", "route", "add", "2001:db8:2::/64", "via", "2001:db8:1::77", "metric", "10")
}

// TestOutboundInterface reaches the remote machine by the detour only.
func TestOutboundInterface(t *testing.T) {
	need(t, "ping")
	b := newBed(t)
	remote := direct(t, b, b.Remote)
	addDetour(t, b, remote)
	s := attach(t, b, "-i", bed.Link, "--outbound-if4", "detour", "--outbound-if6", "detour")
	for far, want := range map[string]string{far4: detour4, far6: detour6} {
		for _, network := range []string{"tcp", "udp"} {
			serveIn(t, remote, network, "who", at(far, 7000))
			if a := ask(t, s, network, at(far, 7000)); a.remoteIP() != want {
				t.Errorf("%s: comes as %+v, want %s", network, a, want)
			}
		}
		wants(t, "ping", run(t, s, "ping", "-n", "-c", "1", "-w", "30", far), " 1 received")
	}
}

// TestOutboundInterfaceOfForwardedPorts is about what -T and -U lead out: to the host's loopback whatever the interface
// is, and from the interface else.
func TestOutboundInterfaceOfForwardedPorts(t *testing.T) {
	b := newBed(t)
	host, remote := direct(t, b, b.Host), direct(t, b, b.Remote)
	addDetour(t, b, remote)
	targets := []struct {
		rule     string // what the port is forwarded to, behind its number
		at       string // where that is
		from     string // how the server sees the client
		listener string // where the client connects
		server   *bed.Session
	}{
		{"", lo4, lo4, lo4, host},
		{"", lo6, lo6, lo6, host},
		{":127.0.0.9/", "127.0.0.9", lo4, lo4, host},
		{":[::1]/", lo6, lo6, lo6, host},
		{":" + detour4 + "/", detour4, detour4, lo4, host},
		{":[" + detour6 + "]/", detour6, detour6, lo6, host},
		{":" + far4 + "/", far4, detour4, lo4, remote},
		{":[" + far6 + "]/", far6, detour6, lo6, remote},
	}
	options := []string{"-i", bed.Link, "--outbound-if4", "detour", "--outbound-if6", "detour", "-t", "none", "-u", "none"}
	for i, c := range targets {
		port := strconv.Itoa(7000 + i)
		rule := port
		if c.rule != "" {
			rule += c.rule + port
		}
		options = append(options, "-T", c.listener+"/"+rule, "-U", c.listener+"/"+rule)
	}
	s := forward(t, b, options...)
	for _, network := range []string{"tcp", "udp"} {
		for i, c := range targets {
			serveIn(t, c.server, network, "who", at(c.at, 7000+i))
			if a := ask(t, s, network, at(c.listener, 7000+i)); a.localIP() != c.at || a.remoteIP() != c.from {
				t.Errorf("%s to %s: %+v, want it to come from %s", network, c.at, a, c.from)
			}
		}
	}
}
