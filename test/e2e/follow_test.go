package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"penne/test/bed"
	"penne/test/client"
)

// What the host's addresses become, in tests that change them.
const (
	otherIP4 = "198.51.100.9"
	otherIP6 = "2001:db8:1::9"
)

// awaitInside runs ip(8) inside until its output has a text. Nothing tells an outsider of changes there.
func awaitInside(t *testing.T, s *bed.Session, text string, args ...string) {
	t.Helper()
	untilInside(t, s, "", text, args)
}

// awaitInsideNot is awaitInside for a text to go.
func awaitInsideNot(t *testing.T, s *bed.Session, text string, args ...string) {
	t.Helper()
	untilInside(t, s, "! ", text, args)
}

func untilInside(t *testing.T, s *bed.Session, not, text string, args []string) {
	t.Helper()
	script := fmt.Sprintf("until %sip %s | grep -qF '%s'; do :; done", not, strings.Join(args, " "), text)
	res, err := s.Run("timeout", "60", "sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	if res.Status != 0 {
		t.Fatalf("%s: not so in the end:\n%s", script, run(t, s, append([]string{"ip"}, args...)...))
	}
}

// onHost runs ip(8) as root in the host namespace.
func onHost(t *testing.T, b *bed.Bed, args ...string) {
	t.Helper()
	inHost(t, b, append([]string{"ip"}, args...)...)
}

// conversation is a connection whose client, inside, echoes what the server, here, says.
type conversation struct {
	t    *testing.T
	conn net.Conn
}

// converse opens a connection from inside to addr, which leads to a server on ip in namespace n.
func converse(t *testing.T, s *bed.Session, n *bed.NS, ip string, addr func(port int) string) *conversation {
	t.Helper()
	accepted := make(chan net.Conn)
	over := make(chan struct{})
	srv := serve(t, n, ip, func(c *net.TCPConn) {
		accepted <- c
		<-over
	})
	stop, err := s.Background("starting data transfer loop", "socat", "-d", "-d", "-d", "TCP:"+addr(srv.Port()), "EXEC:cat")
	if err != nil {
		t.Fatal(err)
	}
	c := &conversation{t, <-accepted}
	if err := c.conn.SetDeadline(time.Now().Add(client.Patience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop() })
	t.Cleanup(func() { close(over) })
	return c
}

// say sends a text and wants it back.
func (c *conversation) say(text string) {
	c.t.Helper()
	if _, err := c.conn.Write([]byte(text)); err != nil {
		c.t.Fatal(err)
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c.conn, b); err != nil || string(b) != text {
		c.t.Fatalf("said %q, heard %q, %v", text, b, err)
	}
}

func TestAddressesFollowTheHost(t *testing.T) {
	for _, f := range []struct{ name, flag, prefix string }{
		{"v4", "-4", otherIP4 + "/24"}, {"v6", "-6", otherIP6 + "/64"},
	} {
		t.Run(f.name, func(t *testing.T) {
			b, s := connect(t)
			onHost(t, b, "addr", "add", f.prefix, "dev", bed.Link)
			awaitInside(t, s, f.prefix, f.flag, "addr")
			onHost(t, b, "addr", "del", f.prefix, "dev", bed.Link)
			awaitInsideNot(t, s, f.prefix, f.flag, "addr")
		})
	}
}

// TestRoutesFollowTheHost changes routes under a connection that goes on.
func TestRoutesFollowTheHost(t *testing.T) {
	for _, f := range []struct{ name, flag, remote, gateway, other string }{
		{"v4", "-4", bed.RemoteIP4, bed.GatewayIP4, "203.0.113.0/24"},
		{"v6", "-6", bed.RemoteIP6, bed.GatewayIP6, "2001:db8:7::/48"},
	} {
		t.Run(f.name, func(t *testing.T) {
			b, s := connect(t)
			c := converse(t, s, b.Remote, f.remote, func(port int) string { return bracketed(f.remote) + fmt.Sprint(":", port) })
			c.say("before")
			onHost(t, b, f.flag, "route", "add", f.other, "via", f.remote)
			awaitInside(t, s, f.other+" via "+f.remote, f.flag, "route")
			onHost(t, b, f.flag, "route", "change", "default", "via", f.remote)
			awaitInside(t, s, "default via "+f.remote, f.flag, "route")
			onHost(t, b, f.flag, "route", "del", f.other)
			awaitInsideNot(t, s, f.other, f.flag, "route")
			c.say("after")
		})
	}
}

// TestHostGetsAnotherAddress replaces the only address: what maps to it follows, and a connection between the old
// one inside and the host's loopback goes on.
func TestHostGetsAnotherAddress(t *testing.T) {
	b, s := connect(t, "--map-guest-addr", "169.254.1.2")
	c := converse(t, s, b.Host, "127.0.0.1", func(port int) string { return at(bed.GatewayIP4, port) })
	c.say("before")
	onHost(t, b, "addr", "del", bed.HostIP4+"/24", "dev", bed.Link)
	onHost(t, b, "addr", "add", otherIP4+"/24", "dev", bed.Link)
	onHost(t, b, "route", "add", "default", "via", bed.GatewayIP4)
	awaitInside(t, s, "default via "+bed.GatewayIP4, "-4", "route")
	awaitInside(t, s, otherIP4+"/24", "addr")
	c.say("after")
	host := direct(t, b, b.Host)
	serveIn(t, host, "tcp", "who", at(otherIP4, 7000))
	if a := ask(t, s, "tcp", at("169.254.1.2", 7000)); a.localIP() != otherIP4 {
		t.Errorf("the host's own address leads to %+v, want %s", a, otherIP4)
	}
	remote := direct(t, b, b.Remote)
	serveIn(t, remote, "tcp", "who", at(bed.RemoteIP4, 7001))
	if a := ask(t, s, "tcp", at(bed.RemoteIP4, 7001)); a.remoteIP() != otherIP4 || ipOf(a.From) != otherIP4 {
		t.Errorf("a client is %+v, want %s on both sides", a, otherIP4)
	}
}

// TestLinkGoesAndComes pulls the host's cable, and then has another interface take over for a while, as a VPN does.
func TestLinkGoesAndComes(t *testing.T) {
	b, s := connect(t)
	remote := direct(t, b, b.Remote)
	serveIn(t, remote, "tcp", "who", at(bed.RemoteIP4, 7000))
	reached := func(when string) {
		t.Helper()
		if a := ask(t, s, "tcp", at(bed.RemoteIP4, 7000)); a.remoteIP() != bed.HostIP4 {
			t.Errorf("%s: %+v", when, a)
		}
	}
	onHost(t, b, "link", "set", bed.Link, "down")
	awaitInsideNot(t, s, "default via "+bed.GatewayIP4, "-4", "route")
	onHost(t, b, "link", "set", bed.Link, "up")
	onHost(t, b, "route", "replace", "default", "via", bed.GatewayIP4)
	awaitInside(t, s, "default via "+bed.GatewayIP4, "-4", "route")
	reached("after the link came back")
	onHost(t, b, "link", "add", "vpn", "type", "veth", "peer", "name", "peer")
	onHost(t, b, "link", "set", "peer", "up")
	onHost(t, b, "link", "set", "vpn", "up")
	onHost(t, b, "addr", "add", "192.0.2.7/24", "dev", "vpn")
	onHost(t, b, "route", "replace", "default", "via", "192.0.2.1", "dev", "vpn")
	awaitInside(t, s, "default via 192.0.2.1", "-4", "route")
	awaitInside(t, s, "192.0.2.7/24", "-4", "addr")
	reached("with another interface on top")
	onHost(t, b, "link", "del", "vpn")
	onHost(t, b, "route", "replace", "default", "via", bed.GatewayIP4)
	awaitInside(t, s, "default via "+bed.GatewayIP4, "-4", "route")
	reached("after that interface went")
}

// localWays are the addresses of a namespace whose host has no network, and of the router that leads to the host.
var localWays = []struct{ flag, guest, gateway, zone, loopback string }{
	{"-4", "169.254.2.1", "169.254.2.2", "", lo4},
	{"-6", "fe80::", "fe80::1", "%tap0", lo6},
}

// TestLocalMode has nothing but the host and what is inside to talk to each other. Ports are published past the bypass,
// which has nothing to do with addresses.
func TestLocalMode(t *testing.T) {
	b, host, _ := portsBed(t)
	onHost(t, b, "addr", "flush", "dev", bed.Link)
	s := forward(t, b, "-t", "8000", "-u", "8000", "-T", "none", "-U", "none", "--no-splice")
	for _, network := range []string{"tcp", "udp"} {
		serveIn(t, host, network, "who", at(lo4, 7000), at(lo6, 7000))
		serveIn(t, s, network, "who", ":8000")
	}
	for _, w := range localWays {
		if out := run(t, s, "ip", w.flag, "route"); !strings.Contains(out, "default via "+w.gateway+" dev tap0") {
			t.Errorf("routes: %s", out)
		}
		for _, network := range []string{"tcp", "udp"} {
			if a := ask(t, s, network, at(w.gateway+w.zone, 7000)); a.localIP() != w.loopback || !strings.HasPrefix(ipOf(a.From), w.guest) {
				t.Errorf("%s to the host: %+v", network, a)
			}
			if a := ask(t, host, network, at(w.loopback, 8000)); a.remoteIP() != w.gateway || !strings.HasPrefix(a.localIP(), w.guest) {
				t.Errorf("%s from the host: %+v", network, a)
			}
		}
	}
}

// TestLocalModeBeyondTheLink goes to the host by addresses that are not on the link, and to where nobody is.
func TestLocalModeBeyondTheLink(t *testing.T) {
	b, host, _ := portsBed(t)
	onHost(t, b, "addr", "flush", "dev", bed.Link)
	s := attach(t, b, "--map-host-loopback", "192.0.2.1", "--map-host-loopback", "2001:db8:2::1")
	for _, network := range []string{"tcp", "udp"} {
		serveIn(t, host, network, "who", at(lo4, 7000), at(lo6, 7000))
		for ip, guest := range map[string]string{"192.0.2.1": "169.254.2.1", "2001:db8:2::1": "fe80::"} {
			if a := ask(t, s, network, at(ip, 7000)); !strings.HasPrefix(ipOf(a.From), guest) {
				t.Errorf("%s to %s: %+v", network, ip, a)
			}
		}
	}
	if a := ask(t, s, "tcp", at(bed.RemoteIP4, 7000)); syscall.Errno(a.Errno) != syscall.ENETUNREACH {
		t.Errorf("tcp to the remote: %+v", a)
	}
}

// TestHostBootsWithoutNetwork starts before there is any.
func TestHostBootsWithoutNetwork(t *testing.T) {
	b := newBed(t)
	onHost(t, b, "addr", "flush", "dev", bed.Link)
	s := attach(t, b)
	if tap, ok := addresses(t, s)["tap0"]; !ok || tap.globals() != "169.254.2.1/16" {
		t.Errorf("tap0 without a network: %+v", tap)
	}
	for _, f := range []struct{ flag, prefix, gateway string }{
		{"-4", bed.HostIP4 + "/24", bed.GatewayIP4}, {"-6", bed.HostIP6 + "/64", bed.GatewayIP6},
	} {
		onHost(t, b, f.flag, "addr", "add", f.prefix, "dev", bed.Link)
		onHost(t, b, f.flag, "route", "replace", "default", "via", f.gateway, "dev", bed.Link)
		awaitInside(t, s, f.prefix, f.flag, "addr")
		awaitInside(t, s, "default via "+f.gateway, f.flag, "route")
	}
	remote := direct(t, b, b.Remote)
	serveIn(t, remote, "tcp", "who", at(bed.RemoteIP4, 7000))
	if a := ask(t, s, "tcp", at(bed.RemoteIP4, 7000)); a.remoteIP() != bed.HostIP4 {
		t.Errorf("remote server: %+v", a)
	}
}

// TestGuestHearsOfAChange is for a guest that configures itself: it gets an address of the new prefix by a router
// advertisement that it has not asked for, and the old one is deprecated by another.
func TestGuestHearsOfAChange(t *testing.T) {
	b := newBed(t)
	s := start(t, b, append([]string{"-f", "-q", "-6"}, noForward...)...)
	run(t, s, "ip", "link", "set", bed.Link, "up")
	awaitInside(t, s, "inet6 2001:db8:1:", "-6", "addr")
	onHost(t, b, "addr", "add", "2001:db8:7::2/64", "dev", bed.Link, "nodad")
	onHost(t, b, "addr", "del", bed.HostIP6+"/64", "dev", bed.Link)
	awaitInside(t, s, "inet6 2001:db8:7:", "-6", "addr")
	awaitInside(t, s, "deprecated", "-6", "addr", "show", "to", "2001:db8:1::/64")
}

// start starts pasta with just these options.
func start(t *testing.T, b *bed.Bed, options ...string) *bed.Session {
	t.Helper()
	s, err := b.Pasta(append([]string{pastaBinary(t)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if status := s.Close(); status != 0 {
			t.Errorf("pasta ended with status %d: %s", status, s.Proc.Stderr)
		}
	})
	return s
}

// TestResolverBehindALink has resolv.conf as systemd-resolved makes it: a link to a file that is replaced. Then the
// link leads to another file, and in the end a file takes its place.
func TestResolverBehindALink(t *testing.T) {
	need(t, "dig")
	b := newBed(t)
	dnsmasq(t, b.Host, "192.0.2.53", "127.0.0.53")
	dnsmasq(t, b.Remote, "192.0.2.54", bed.RemoteIP4)
	etc, stub := filepath.Join(b.Dir(), "etc"), filepath.Join(b.Dir(), "stub")
	for _, dir := range []string{etc, stub} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const ours, remotes = "nameserver 127.0.0.53\n", "nameserver " + bed.RemoteIP4 + "\n"
	writeFile(t, filepath.Join(stub, "resolv.conf"), ours)
	link(t, filepath.Join(stub, "resolv.conf"), filepath.Join(etc, "resolv.conf"))
	if err := b.Host.BindMount(etc, "/etc"); err != nil {
		t.Fatal(err)
	}
	s := attach(t, b, "--dns-forward", "169.254.1.1")
	dig(t, s, "169.254.1.1", "192.0.2.53")
	replace(t, filepath.Join(stub, "resolv.conf"), remotes)
	awaitDig(t, s, "192.0.2.54")
	writeFile(t, filepath.Join(stub, "stub.conf"), ours)
	link(t, filepath.Join(stub, "stub.conf"), filepath.Join(etc, "resolv.conf"))
	awaitDig(t, s, "192.0.2.53")
	replace(t, filepath.Join(etc, "resolv.conf"), remotes)
	awaitDig(t, s, "192.0.2.54")
	replace(t, filepath.Join(etc, "resolv.conf"), ours)
	awaitDig(t, s, "192.0.2.53")
}

// link puts a symbolic link in the place of a file.
func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path+".next"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".next", path); err != nil {
		t.Fatal(err)
	}
}

// replace puts a new file in the place of an old one.
func replace(t *testing.T, path, text string) {
	t.Helper()
	writeFile(t, path+".next", text)
	if err := os.Rename(path+".next", path); err != nil {
		t.Fatal(err)
	}
}

// awaitDig asks the forwarded resolver until it has an answer of the resolver that was changed to.
func awaitDig(t *testing.T, s *bed.Session, want string) {
	t.Helper()
	run(t, s, "timeout", "60", "sh", "-c",
		`until [ "$(dig @169.254.1.1 +short +tries=1 +time=5 penne.example A)" = `+want+` ]; do :; done`)
}
