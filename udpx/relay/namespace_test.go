package relay

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/test/guest"
)

// TestFromNamespaceToHost is -U: the test's thread, its peers and listeners are
// in a namespace of their own, the service is on the host, which is another.
func TestFromNamespaceToHost(t *testing.T) {
	guest.Namespace(t)
	onHost := guest.Elsewhere(t)
	outside := Side{Addr: Host.Addr, Socket: func(v4 bool) (fd int) {
		onHost(func() { fd = hostSocket(v4) })
		return fd
	}}
	for _, ip := range loopbacks {
		b := newRig(t, 4)
		var service *conn
		onHost(func() { service = b.listen(ip, servicePort) })
		at := bind(t, ip, 0)
		if _, err := b.r.Serve(Listener{FD: at.fd, Target: service.port(), To: &outside}); err != nil {
			t.Fatal(err)
		}
		peer := b.listen(ip, 0)
		want := netip.AddrPortFrom(parse(ip), peer.port())
		for n := 1; n <= 65507; n = n*3 + 1 {
			if from := b.echo(peer, service, ip, at.port, payload(n, 1)); from != want {
				t.Fatalf("the service sees %v, want the peer's own port, %v", from, want)
			}
		}
		b.drops(stats.NumReasons, 0)
	}
}

// TestFromHostToNamespace is -u: the service is in the namespace of the test's
// thread.
func TestFromHostToNamespace(t *testing.T) {
	guest.Namespace(t)
	onHost := guest.Elsewhere(t)
	for _, ip := range loopbacks {
		b := newRig(t, 4)
		service := b.listen(ip, servicePort)
		var peer *conn
		var at bound
		onHost(func() {
			at = bind(t, ip, 0)
			peer = b.listen(ip, 0)
		})
		b.serve(at, service) // Host makes its sockets on this thread: inside
		want := netip.AddrPortFrom(parse(ip), peer.port())
		if from := b.echo(peer, service, ip, at.port, payload(1400, 1)); from != want {
			t.Fatalf("the service sees %v, want the peer's own port, %v", from, want)
		}
		b.drops(stats.NumReasons, 0)
	}
}

// TestServiceOnAnAddressOfTheNamespace connects the host's local peers to an
// address that is not a loopback one, as -u does by default.
func TestServiceOnAnAddressOfTheNamespace(t *testing.T) {
	guest.Namespace(t)
	onHost := guest.Elsewhere(t)
	const addr = "198.51.100.2"
	addAddress(t, addr)
	b := newRig(t, 4)
	service := b.listen("0.0.0.0", servicePort)
	to := Side{Socket: hostSocket, Addr: func(*wire.Addr) wire.Addr { return addrOf(addr) }}
	var peer *conn
	var at bound
	onHost(func() {
		at = bind(t, "127.0.0.1", 0)
		peer = b.listen("127.0.0.1", 0)
	})
	if _, err := b.r.Serve(Listener{FD: at.fd, Target: service.port(), To: &to}); err != nil {
		t.Fatal(err)
	}
	if from := b.echo(peer, service, "127.0.0.1", at.port, payload(1400, 1)); from != netip.AddrPortFrom(parse(addr), peer.port()) {
		t.Fatalf("the service sees %v", from)
	}
}

// Ports of tests that have a namespace to themselves, out of the kernel's way:
// it chooses from 32768 on.
const (
	listenerPort = 6000
	servicePort  = 7000
	peerPort     = 8000
)

func TestPeerPortThatIsTaken(t *testing.T) {
	guest.Namespace(t)
	b := newRig(t, 4)
	at := bind(t, "127.0.0.1", listenerPort)
	service, peer := b.listen("127.0.0.1", servicePort), b.listen("127.0.0.9", peerPort)
	b.serve(at, service)
	if from := b.echo(peer, service, "127.0.0.1", at.port, payload(10, 1)); from.Port() != peer.port() {
		t.Fatalf("the service sees port %d, want the peer's own, %d", from.Port(), peer.port())
	}
	// The same port number of another peer is taken now.
	second := b.listen("127.0.0.8", peer.port())
	if from := b.echo(second, service, "127.0.0.1", at.port, payload(10, 2)); from.Port() == peer.port() {
		t.Fatal("two peers share a port")
	}
	b.echo(peer, service, "127.0.0.1", at.port, payload(10, 3))
	b.drops(stats.NumReasons, 0)
}

// TestStrayDatagramIsNotThePeers lets somebody write to a flow's socket before
// it is connected.
func TestStrayDatagramIsNotThePeers(t *testing.T) {
	guest.Namespace(t)
	b := newRig(t, 4)
	at := bind(t, "127.0.0.1", listenerPort)
	service, peer, stranger := b.listen("127.0.0.1", servicePort), b.listen("127.0.0.9", peerPort), b.listen("127.0.0.1", 0)
	early := Side{Addr: Host.Addr, Socket: func(v4 bool) int {
		fd := hostSocket(v4)
		sa := sockaddr("127.0.0.1", peer.port())
		if errno := sys.Bind(fd, &sa); errno != 0 {
			t.Fatal(errno)
		}
		stranger.send([]byte("not for you"), "127.0.0.1", peer.port())
		return fd
	}}
	if _, err := b.r.Serve(Listener{FD: at.fd, Target: service.port(), To: &early}); err != nil {
		t.Fatal(err)
	}
	peer.send(payload(10, 1), "127.0.0.1", at.port)
	service.expect(payload(10, 1))
	b.dropped(stats.NoFlow)
	peer.silent()
	b.drops(stats.NoFlow, 1)
	b.echo(peer, service, "127.0.0.1", at.port, payload(10, 1))
}

func sockaddr(ip string, port uint16) (sa sys.Sockaddr) {
	a := addrOf(ip)
	sa.SetInet((*[16]byte)(&a), a.Is4(), port, 0)
	return sa
}

// addAddress gives the namespace's loopback interface one more address.
func addAddress(t *testing.T, ip string) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr(ip + "/32")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(lo, addr); err != nil {
		t.Fatal(err)
	}
}
