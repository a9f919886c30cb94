package guest

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"penne/internal/wire"
	"penne/test/links"
)

// Addresses of the world beyond the host: the router is the host's gateway, and
// the far side is one hop behind it, on a link of FarMTU octets.
var (
	Far4   = addr("203.0.113.2")
	Far6   = addr("2001:db8:2::2")
	FarMTU = 1400
	// Nowhere4 and Nowhere6 are addresses that the router has no route to.
	Nowhere4 = addr("192.0.2.9")
	Nowhere6 = addr("2001:db8:ffff::9")
)

// hop is one end of a link, and what is configured on it.
type hop struct {
	ns   netns.NsHandle
	name string
	nets []string
	mtu  int
	via  []string // gateways of default routes
}

// World puts the running test into the namespace of a host (see Namespace) that
// has a router and a far side, and returns the far side.
func World(t testing.TB) *Far {
	t.Helper()
	Namespace(t)
	noDAD(t)
	host, err := netns.Get()
	must(t, err)
	t.Cleanup(func() { host.Close() })
	router, far := space(t), space(t)
	join(t, host, router, "h0", "r0")
	join(t, router, far, "r1", "f0")
	hops := []hop{
		{router, "r0", []string{"198.51.100.1/24", "2001:db8:1::1/64"}, 1500, nil},
		{router, "r1", []string{"203.0.113.1/24", "2001:db8:2::1/64"}, FarMTU, nil},
		{host, "h0", []string{"198.51.100.2/24", "198.51.100.4/24", "2001:db8:1::2/64"}, 1500, []string{"198.51.100.1", "2001:db8:1::1"}},
		{far, "f0", []string{"203.0.113.2/24", "2001:db8:2::2/64"}, FarMTU, []string{"203.0.113.1", "2001:db8:2::1"}},
	}
	for _, step := range []func(*hop, *netlink.Handle) error{(*hop).raise, (*hop).await, (*hop).address} {
		for i := range hops {
			ns, err := netlink.NewHandleAt(hops[i].ns)
			must(t, err)
			must(t, step(&hops[i], ns))
			ns.Close()
		}
	}
	return &Far{t, far}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// space is a new namespace that forwards; it lives as long as the test.
func space(t testing.TB) netns.NsHandle {
	t.Helper()
	type made struct {
		ns  netns.NsHandle
		err error
	}
	done := make(chan made)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
			done <- made{err: err}
			return
		}
		for _, s := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			Sysctl(t, "net/"+s, "1")
		}
		noDAD(t)
		Sysctl(t, "net/ipv4/icmp_ratemask", "0")
		Sysctl(t, "net/ipv6/icmp/ratelimit", "0")
		ns, err := netns.Get()
		done <- made{ns, err}
	}()
	m := <-done
	must(t, m.err)
	t.Cleanup(func() { m.ns.Close() })
	return m.ns
}

// Elsewhere makes another namespace, with loopback up, and returns what runs a
// function on a thread in it. Ports there are nobody else's, unlike those of
// the machine that the tests run on.
func Elsewhere(t testing.TB) (run func(fn func())) {
	t.Helper()
	there := space(t)
	ns, err := netlink.NewHandleAt(there)
	must(t, err)
	defer ns.Close()
	lo, err := ns.LinkByName("lo")
	must(t, err)
	must(t, ns.LinkSetUp(lo))
	return func(fn func()) {
		t.Helper()
		must(t, within(there, func() error { fn(); return nil }))
		if t.Failed() {
			t.FailNow() // fn may have ended its goroutine
		}
	}
}

// within runs fn on a thread in a namespace. Sockets that fn makes stay in it.
func within(ns netns.NsHandle, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := netns.Set(ns); err != nil {
			done <- err
			return
		}
		done <- fn()
	}()
	return <-done
}

// noDAD lets IPv6 addresses be used at once. It takes both: detection is on if
// either says so.
func noDAD(t testing.TB) {
	t.Helper()
	Sysctl(t, "net/ipv6/conf/all/accept_dad", "0")
	Sysctl(t, "net/ipv6/conf/default/accept_dad", "0")
}

// join makes a veth pair from here, named near, into the namespace there.
func join(t testing.TB, here, there netns.NsHandle, near, far string) {
	t.Helper()
	ns, err := netlink.NewHandleAt(here)
	must(t, err)
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = near
	must(t, ns.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: far, PeerNamespace: netlink.NsFd(there)}))
}

// raise brings the link up.
func (h *hop) raise(ns *netlink.Handle) error {
	link, err := ns.LinkByName(h.name)
	if err != nil {
		return fmt.Errorf("find %s: %w", h.name, err)
	}
	if err := ns.LinkSetMTU(link, h.mtu); err != nil {
		return fmt.Errorf("set MTU of %s: %w", h.name, err)
	}
	if err := ns.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring %s up: %w", h.name, err)
	}
	return nil
}

// await waits until the link can be used.
func (h *hop) await(*netlink.Handle) error { return links.AwaitUp(h.ns, h.name) }

// noDetection is IFA_F_NODAD of linux/if_addr.h.
const noDetection = 0x02

// address gives the link its addresses and routes.
func (h *hop) address(ns *netlink.Handle) error {
	link, err := ns.LinkByName(h.name)
	if err != nil {
		return fmt.Errorf("find %s: %w", h.name, err)
	}
	for _, n := range h.nets {
		a, err := netlink.ParseAddr(n)
		if err != nil {
			return err
		}
		// Else even an address without detection is tentative until a worker
		// of the kernel's has seen it.
		a.Flags = noDetection
		if err := ns.AddrAdd(link, a); err != nil {
			return fmt.Errorf("add %s to %s: %w", n, h.name, err)
		}
	}
	for _, gw := range h.via {
		r := netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(gw)}
		if err := ns.RouteAdd(&r); err != nil {
			return fmt.Errorf("add default route by %s: %w", gw, err)
		}
	}
	return nil
}

// Far is the far side of a World.
type Far struct {
	t  testing.TB
	ns netns.NsHandle
}

// ListenUDP makes a UDP socket on the far side.
func (f *Far) ListenUDP(ip wire.Addr, port uint16) *net.UDPConn {
	f.t.Helper()
	var c *net.UDPConn
	must(f.t, within(f.ns, func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip.Netip(), port)))
		return err
	}))
	f.t.Cleanup(func() { c.Close() })
	return c
}

// Cut takes the host's default routes away.
func (f *Far) Cut() {
	f.t.Helper()
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	must(f.t, err)
	for i := range routes {
		if dst := routes[i].Dst; dst == nil || dst.IP.IsUnspecified() {
			must(f.t, netlink.RouteDel(&routes[i]))
		}
	}
}
