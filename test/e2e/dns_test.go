package e2e

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"penne/test/bed"
)

// withResolver makes a bed whose host has a resolv.conf of its own, and returns the file to write to.
func withResolver(t *testing.T, text string) (*bed.Bed, string) {
	t.Helper()
	need(t, "dig")
	b := newBed(t)
	file := filepath.Join(b.Dir(), "resolv.conf")
	writeFile(t, file, text)
	if err := b.Host.BindMount(file, "/etc/resolv.conf"); err != nil {
		t.Fatal(err)
	}
	return b, file
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// dnsmasq serves penne.example on addresses of a namespace, as answer.
func dnsmasq(t *testing.T, n *bed.NS, answer string, addrs ...string) {
	t.Helper()
	need(t, "dnsmasq")
	argv := []string{
		"dnsmasq", "-k", "-C", "/dev/null", "--user=root", "--pid-file=", "--no-resolv", "--no-hosts", "--log-facility=-",
		"--bind-interfaces", "--address=/penne.example/" + answer,
	}
	for _, a := range addrs {
		argv = append(argv, "--listen-address="+a)
	}
	p, err := n.Start(bed.Spec{Argv: argv, Root: true, Ready: "started, version"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
}

// dig asks a resolver for penne.example, by UDP and by TCP.
func dig(t *testing.T, s *bed.Session, server, want string) {
	t.Helper()
	for _, proto := range []string{"+notcp", "+tcp"} {
		out := run(t, s, "dig", "@"+server, proto, "+short", "+tries=1", "+time=20", "penne.example", "A")
		if out != want+"\n" {
			t.Errorf("dig %s @%s: %q, want %s", proto, server, out, want)
		}
	}
}

// TestForwardedResolver has the host resolve by a stub on loopback, as systemd-resolved does.
func TestForwardedResolver(t *testing.T) {
	b, _ := withResolver(t, "nameserver 127.0.0.53\nnameserver ::1\n")
	dnsmasq(t, b.Host, "192.0.2.53", "127.0.0.53", "::1")
	for _, c := range []struct {
		name    string
		options []string
		servers []string
	}{
		{"as Podman", []string{"--dns-forward", "169.254.1.1", "--no-map-gw"}, []string{"169.254.1.1"}},
		{"both families", []string{"--dns-forward", "169.254.1.1", "--dns-forward", "fd00::53"}, []string{"169.254.1.1", "fd00::53"}},
		{"by the gateway", nil, []string{bed.GatewayIP4, bed.GatewayIP6}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := attach(t, b, c.options...)
			for _, server := range c.servers {
				dig(t, s, server, "192.0.2.53")
			}
		})
	}
}

// TestResolverElsewhere overrides the host's resolver, and has one that is the gateway.
func TestResolverElsewhere(t *testing.T) {
	b, file := withResolver(t, "nameserver "+bed.GatewayIP4+"\n")
	dnsmasq(t, b.Remote, "192.0.2.54", bed.GatewayIP4, bed.RemoteIP4, bed.RemoteIP6)
	t.Run("dns-host", func(t *testing.T) {
		s := attach(t, b, "--dns-forward", "169.254.1.1", "--dns-host", bed.RemoteIP4,
			"--dns-forward", "fd00::53", "--dns-host", bed.RemoteIP6)
		dig(t, s, "169.254.1.1", "192.0.2.54")
		dig(t, s, "fd00::53", "192.0.2.54")
	})
	t.Run("gateway", func(t *testing.T) {
		s := attach(t, b, "--dns-forward", "169.254.1.1")
		dig(t, s, bed.GatewayIP4, "192.0.2.54")
		dig(t, s, "169.254.1.1", "192.0.2.54")
	})
	for _, announced := range []string{"9.9.9.9", "none"} { // which COMMAND does not see
		t.Run("gateway, -D "+announced, func(t *testing.T) {
			dig(t, attach(t, b, "-D", announced), bed.GatewayIP4, "192.0.2.54")
		})
	}
	t.Run("gateway as the second", func(t *testing.T) {
		writeFile(t, file, "nameserver 192.0.2.99\nnameserver "+bed.GatewayIP4+"\n")
		dig(t, attach(t, b), bed.GatewayIP4, "192.0.2.54")
	})
}

// TestOnlyQueriesAreForwarded wants other ports of the forwarding address to lead nowhere near the resolver.
func TestOnlyQueriesAreForwarded(t *testing.T) {
	b, _ := withResolver(t, "nameserver "+bed.RemoteIP4+"\n")
	s := attach(t, b, "--dns-forward", bed.GatewayIP4, "--no-map-gw")
	srv, err := b.Remote.ServeTCP(at(bed.RemoteIP4, 853), func(c *net.TCPConn) { c.Write([]byte("tls")) })
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	for port, want := range map[int]string{853: "tls", 854: ""} {
		res, err := s.Run("socat", "-u", "TCP4:"+at(bed.GatewayIP4, port), "-")
		if err != nil || res.Stdout != want || (res.Status == 0) != (want != "") {
			t.Errorf("port %d: %q, status %d, %v", port, res.Stdout, res.Status, err)
		}
	}
}

// TestChangedResolverIsFollowed rewrites the host's resolv.conf while pasta runs.
func TestChangedResolverIsFollowed(t *testing.T) {
	b, file := withResolver(t, "nameserver 127.0.0.53\n")
	dnsmasq(t, b.Host, "192.0.2.53", "127.0.0.53")
	dnsmasq(t, b.Remote, "192.0.2.54", bed.RemoteIP4)
	s, err := b.Pasta(append([]string{pastaBinary(t), "--config-net", "-d", "--dns-forward", "169.254.1.1"}, noForward...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	dig(t, s, "169.254.1.1", "192.0.2.53")
	writeFile(t, file, "nameserver "+bed.RemoteIP4+"\n")
	awaitDig(t, s, "192.0.2.54")
	dig(t, s, "169.254.1.1", "192.0.2.54")
	if status := s.Close(); status != 0 {
		t.Errorf("status %d", status)
	}
	wants(t, "standard error", s.Proc.Stderr.String(), "resolvers have changed", "names: 169.254.1.1 leads to "+bed.RemoteIP4)
}
