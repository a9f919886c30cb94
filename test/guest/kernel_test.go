package guest_test

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/env"
	"penne/shard/flow"
	"penne/tap/tun"
	"penne/tap/tun/tuntest"
	"penne/tcpx"
	"penne/test/guest"
)

// machine is a Linux kernel as guest, in a namespace of its own in which the
// test's goroutine lives, and the TCP translator between it and a second
// namespace, the host.
type machine struct {
	t    *testing.T
	port *tun.Queue
	env  *env.Env
	tcp  *tcpx.TCP
	wake int
	do   chan func()
	stop atomic.Bool
	done chan struct{}
}

const tapToken = 1<<63 + 1

func newMachine(t *testing.T, mtu int) *machine {
	t.Helper()
	return newMachineOf(t, mtu, 2048, tcpx.Config{})
}

// newMachineOf makes a machine whose shard has an arena of slots frames, and a
// translator by cfg.
func newMachineOf(t *testing.T, mtu, slots int, cfg tcpx.Config) *machine {
	t.Helper()
	tuntest.Enter(t)
	d, err := tun.Open(tun.Options{Name: "eth0"})
	must(t, err)
	link := tuntest.SetUp(t, "eth0", guest.MAC, netip.PrefixFrom(guest.Addr4.Netip(), 24))
	// Without duplicate address detection: the address is good at once.
	must(t, netlink.AddrAdd(link, &netlink.Addr{Flags: syscall.IFA_F_NODAD,
		IPNet: &net.IPNet{IP: guest.Addr6.Netip().AsSlice(), Mask: net.CIDRMask(64, 128)}}))
	must(t, netlink.LinkSetMTU(link, mtu))
	for _, gw := range []wire.Addr{guest.Gateway4, guest.Gateway6} {
		ip := net.IP(gw.Netip().AsSlice())
		must(t, netlink.NeighAdd(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: ip,
			HardwareAddr: guest.OurMAC[:], State: netlink.NUD_PERMANENT}))
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: ip}))
	}
	m := &machine{t: t, port: d.Queue(0), do: make(chan func(), 1), done: make(chan struct{})}
	up := make(chan error)
	go m.host(mtu, slots, cfg, up)
	must(t, <-up)
	t.Cleanup(func() {
		m.stop.Store(true)
		sys.Signal(m.wake)
		<-m.done
		d.Close()
	})
	return m
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// host is the thread of the host's namespace and of the shard.
func (m *machine) host(mtu, slots int, cfg tcpx.Config, up chan<- error) {
	defer close(m.done)
	runtime.LockOSThread() // for good
	if err := m.setUpHost(mtu, slots, cfg); err != nil {
		up <- err
		return
	}
	close(up)
	events := make([]sys.Event, 64)
	for !m.stop.Load() {
		m.pass(events)
	}
	m.tcp.Close()
	if n, all := m.env.Pool.Free(), m.env.Pool.Size()-m.env.Out.Size(); n != all {
		m.t.Errorf("%d of %d frames came back", n, all)
	}
}

func (m *machine) setUpHost(mtu, slots int, cfg tcpx.Config) error {
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for dst, typ := range map[string]int{
		"203.0.113.0/25": syscall.RTN_UNREACHABLE, "203.0.113.128/25": syscall.RTN_PROHIBIT,
		"2001:db8:2::/64": syscall.RTN_UNREACHABLE, "2001:db8:3::/64": syscall.RTN_PROHIBIT,
	} {
		_, ip, _ := net.ParseCIDR(dst)
		if err := netlink.RouteAdd(&netlink.Route{Dst: ip, Type: typ}); err != nil {
			return fmt.Errorf("add route to %s: %w", dst, err)
		}
	}
	arena, err := ring.NewArena(slots, 0)
	if err != nil {
		return err
	}
	ep, err := sys.NewEpoll(64)
	if err != nil {
		return err
	}
	if m.wake, err = sys.NewEventFD(); err != nil {
		return err
	}
	ep.Add(m.port.FD(), sys.EPOLLIN, tapToken)
	ep.Add(m.wake, sys.EPOLLIN, tapToken)
	seed := flow.NewSeed()
	pool := ring.NewPool(arena)
	rules := guest.Rules()
	rules.MTU = mtu
	m.env = &env.Env{Now: sys.Now(), Rules: rules, Guest: &fwd.Guest{}, Epoll: ep, Pool: pool,
		Count: &stats.Counters{}, Seed: &seed, Out: ring.NewOut(pool, 32, m.port)}
	m.env.Guest.SawMAC(&guest.MAC)
	m.port.SetCounters(m.env.Count)
	cfg.Env, cfg.Flows = m.env, 4096
	m.tcp, err = tcpx.New(cfg)
	return err
}

// pass is one turn of a shard's loop.
func (m *machine) pass(events []sys.Event) {
	timeout := time.Duration(-1)
	if at, ok := m.tcp.Next(); ok {
		timeout = time.Duration(max(0, at-sys.Now()))
	}
	n := m.env.Epoll.Wait(events, timeout)
	m.env.Now = sys.Now()
	for _, ev := range events[:n] {
		if ev.Token != tapToken {
			m.tcp.Event(flow.Token(ev.Token), ev.Bits)
		}
	}
	sys.Drain(m.wake)
	select {
	case f := <-m.do:
		f()
	default:
	}
	var b, in ring.Batch
	m.port.Receive(&b, m.env.Pool)
	for _, f := range b.Frames() {
		if wire.Parse(f.Bytes(), &f.H) == wire.OK && f.H.Proto == wire.ProtoTCP {
			in.Add(f)
		} else {
			m.env.Pool.Put(f)
		}
	}
	m.tcp.Input(in.Frames())
	m.tcp.Expire()
	m.tcp.Flush()
	m.env.Out.Flush()
}

// onHost runs f on the host's thread.
func (m *machine) onHost(f func() error) {
	m.t.Helper()
	done := make(chan error, 1)
	m.do <- func() { done <- f() }
	sys.Signal(m.wake)
	select {
	case err := <-done:
		must(m.t, err)
	case <-time.After(guest.Patience):
		m.t.Fatal("the host's thread does not answer")
	}
}

// patient makes what waits for ever fail instead.
func patient(t *testing.T, conns ...interface{ SetDeadline(time.Time) error }) {
	t.Helper()
	for _, c := range conns {
		must(t, c.SetDeadline(time.Now().Add(guest.Patience)))
	}
}

func (m *machine) counters() (n stats.Counters) {
	m.t.Helper()
	m.onHost(func() error {
		n = *m.env.Count
		return nil
	})
	return n
}

func (m *machine) listen(v6 bool) *net.TCPListener {
	m.t.Helper()
	ip := net.IPv4(127, 0, 0, 1)
	if v6 {
		ip = net.IPv6loopback
	}
	var ln *net.TCPListener
	m.onHost(func() (err error) {
		ln, err = net.ListenTCP("tcp", &net.TCPAddr{IP: ip})
		return err
	})
	m.t.Cleanup(func() { ln.Close() })
	patient(m.t, ln)
	return ln
}

// gateway is the address under which the guest reaches ln.
func gateway(ln *net.TCPListener) string {
	a := ln.Addr().(*net.TCPAddr)
	gw := guest.Gateway6
	if a.IP.To4() != nil {
		gw = guest.Gateway4
	}
	return netip.AddrPortFrom(gw.Netip(), uint16(a.Port)).String()
}

// pair connects the guest to ln.
func pair(t *testing.T, ln *net.TCPListener) (in, out *net.TCPConn) {
	t.Helper()
	c := dial(t, ln)
	h, err := ln.AcceptTCP()
	must(t, err)
	t.Cleanup(func() { h.Close() })
	patient(t, h)
	return c, h
}

// dial is the guest's side of pair.
func dial(t *testing.T, ln *net.TCPListener) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", gateway(ln), guest.Patience)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	patient(t, c)
	return c.(*net.TCPConn)
}
