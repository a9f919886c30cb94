package guest_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
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
}

// onHost runs f on the host's thread.
func (m *machine) onHost(f func() error) {
	m.t.Helper()
	done := make(chan error)
	m.do <- func() { done <- f() }
	sys.Signal(m.wake)
	must(m.t, <-done)
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
	c, err := net.Dial("tcp", gateway(ln))
	must(t, err)
	h, err := ln.AcceptTCP()
	must(t, err)
	t.Cleanup(func() { c.Close(); h.Close() })
	return c.(*net.TCPConn), h
}

func TestKernelGuestIntegrity(t *testing.T) {
	for _, mtu := range []int{1500, 9000, 65520} {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("mtu=%d,v6=%t", mtu, v6), func(t *testing.T) {
				m := newMachine(t, mtu)
				in, out := pair(t, m.listen(v6))
				exchange(t, "out", in, out)
				exchange(t, "in", out, in)
				n := m.counters()
				t.Logf("tail frames %d, retransmits %d", n.TCPTailFrames, n.TCPRetransmits)
			})
		}
	}
}

// TestKernelGuestVariants goes the ways that a short path and a new kernel do
// not take: acknowledgments that wait for the remote's, and peeking without
// SO_PEEK_OFF.
func TestKernelGuestVariants(t *testing.T) {
	for name, cfg := range map[string]tcpx.Config{"reflect": {ShortPath: -1}, "no peek offset": {NoPeekOff: true}} {
		t.Run(name, func(t *testing.T) {
			m := newMachineOf(t, 1500, 2048, cfg)
			in, out := pair(t, m.listen(false))
			exchange(t, "out", in, out)
			exchange(t, "in", out, in)
			t.Logf("retransmits %d", m.counters().TCPRetransmits)
		})
	}
}

// exchange sends from a to b, ends that direction, and compares.
func exchange(t *testing.T, what string, a, b *net.TCPConn) {
	t.Helper()
	const size = 64 << 20
	chunk := make([]byte, 1<<20)
	for i := range chunk {
		chunk[i] = byte(i * 7 >> 3)
	}
	sent := sha256.New()
	start := time.Now()
	go func() {
		for n := 0; n < size; n += len(chunk) {
			chunk[n>>20] ^= 0x5a
			sent.Write(chunk)
			if _, err := a.Write(chunk); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		a.CloseWrite()
	}()
	var buf bytes.Buffer
	buf.Grow(size + 512)
	_, err := io.Copy(&buf, b)
	took := time.Since(start)
	if err != nil || buf.Len() != size {
		t.Fatalf("%s: %d octets, %v", what, buf.Len(), err)
	}
	if sha256.Sum256(buf.Bytes()) != [32]byte(sent.Sum(nil)) {
		t.Fatalf("%s: contents differ", what)
	}
	t.Logf("%s: %.1f Gbit/s with hashing", what, float64(size)*8/took.Seconds()/1e9)
}

// errno is the error number inside err.
func errno(err error) syscall.Errno {
	var e syscall.Errno
	errors.As(err, &e)
	return e
}

func TestKernelGuestConnectErrors(t *testing.T) {
	m := newMachine(t, 1500)
	for _, dst := range []string{
		"203.0.113.1:80", "192.0.2.9:80", "[2001:db8:2::1]:80", "[2001:db8:3::1]:80", "[2001:db8:9::1]:80",
	} {
		var want error
		m.onHost(func() error {
			var d net.Dialer
			_, want = d.Dial("tcp", dst)
			return nil
		})
		_, got := net.DialTimeout("tcp", dst, 5*time.Second)
		t.Logf("%s: host %v, guest %v", dst, errno(want), errno(got))
		if errno(want) == 0 || errno(got) != errno(want) {
			t.Errorf("%s: host says %v, guest %v", dst, want, got)
		}
	}
	for _, v6 := range []bool{false, true} {
		ln := m.listen(v6)
		ln.Close()
		if _, err := net.Dial("tcp", gateway(ln)); errno(err) != syscall.ECONNREFUSED {
			t.Errorf("closed port: %v", err)
		}
	}
}

func TestKernelGuestEnds(t *testing.T) {
	m := newMachine(t, 1500)
	ln := m.listen(false)
	b := make([]byte, 16)

	in, out := pair(t, ln)
	in.Write([]byte("last words"))
	in.SetLinger(0)
	in.Close()
	if _, err := io.ReadAll(out); errno(err) != syscall.ECONNRESET {
		t.Errorf("host read %v after the guest's RST", err)
	}

	in, out = pair(t, ln)
	out.Write([]byte("last words"))
	in.Read(b)
	out.SetLinger(0)
	out.Close()
	if _, err := in.Read(b); errno(err) != syscall.ECONNRESET {
		t.Errorf("guest read %v after the host's RST", err)
	}

	in, out = pair(t, ln)
	in.CloseWrite()
	if rest, err := io.ReadAll(out); err != nil || len(rest) != 0 {
		t.Errorf("half-close: %v", err)
	}
	out.Write([]byte("answer"))
	out.Close()
	if rest, err := io.ReadAll(in); err != nil || string(rest) != "answer" {
		t.Errorf("half-close: %q %v", rest, err)
	}
}

func TestKernelGuestInbound(t *testing.T) {
	m := newMachine(t, 1500)
	gln, err := net.Listen("tcp", "198.51.100.2:0")
	must(t, err)
	defer gln.Close()
	port := gln.Addr().(*net.TCPAddr).Port
	ln := m.listen(false)

	accept := func(port int) (peer net.Conn) {
		m.onHost(func() (err error) {
			if peer, err = net.Dial("tcp", ln.Addr().String()); err != nil {
				return err
			}
			h, err := ln.AcceptTCP()
			if err != nil {
				return err
			}
			f, err := h.File()
			if err != nil {
				return err
			}
			h.Close()
			fd, err := syscall.Dup(int(f.Fd()))
			f.Close()
			sys.SetNonblock(fd)
			from := peer.LocalAddr().(*net.TCPAddr)
			m.tcp.Accept(fd, tcpx.Inbound{Peer: guest.Gateway4, Guest: guest.Addr4,
				PeerPort: uint16(from.Port), GuestPort: uint16(port)})
			return err
		})
		return peer
	}
	peer := accept(port)
	c, err := gln.Accept()
	must(t, err)
	exchange(t, "inbound", peer.(*net.TCPConn), c.(*net.TCPConn))
	exchange(t, "answer", c.(*net.TCPConn), peer.(*net.TCPConn))

	gln.Close()
	peer = accept(port)
	if _, err := peer.Read(make([]byte, 1)); errno(err) != syscall.ECONNRESET {
		t.Errorf("port closed inside: host client read %v", err)
	}
}

func TestKernelGuestManyShort(t *testing.T) {
	m := newMachine(t, 65520)
	ln := m.listen(false)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.Copy(c, c)
			c.Close()
		}
	}()
	for i := range 500 {
		c, err := net.Dial("tcp", gateway(ln))
		must(t, err)
		msg := fmt.Appendf(nil, "message %d", i)
		c.Write(msg)
		c.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, msg) {
			t.Fatalf("connection %d: %q %v", i, got, err)
		}
		c.Close()
	}
	n := m.counters()
	if n.TCPOpened != 500 || n.Drops[stats.NoFrame]+n.Drops[stats.TableFull]+n.Drops[stats.NoSocket] > 0 {
		t.Errorf("%d flows opened, drops %v", n.TCPOpened, n.Drops)
	}
}

// TestKernelGuestCrowd runs many connections over a pool that is far too small
// for what they would like to have in flight: windows shrink, nothing is lost.
func TestKernelGuestCrowd(t *testing.T) {
	for _, mtu := range []int{1500, 65520} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			m := newMachineOf(t, mtu, 192, tcpx.Config{})
			ln := m.listen(true)
			const conns, size = 8, 16 << 20
			data := make([]byte, size)
			for i := range data {
				data[i] = byte(i * 31 >> 5)
			}
			errs := make(chan error)
			full := make(chan struct{}) // closed when sockets have refused octets
			for range conns {
				in, out := pair(t, ln)
				go func() {
					<-full
					errs <- echo(out)
				}()
				go func() { errs <- send(in, data) }()
				go func() { errs <- compare(in, data) }()
			}
			for end := time.Now().Add(10 * time.Second); m.counters().TCPTailFrames < 20; {
				if time.Now().After(end) {
					t.Fatal("the sockets take everything")
				}
			}
			close(full)
			for range 3 * conns {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
			n := m.counters()
			t.Logf("tail frames %d, retransmits %d, drops %v", n.TCPTailFrames, n.TCPRetransmits, n.Drops)
		})
	}
}

// echo sends back what it gets.
func echo(c *net.TCPConn) error {
	defer c.CloseWrite()
	buf := make([]byte, 100_000)
	for {
		n, err := c.Read(buf)
		if _, err := c.Write(buf[:n]); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func send(c *net.TCPConn, data []byte) error {
	if _, err := c.Write(data); err != nil {
		return err
	}
	return c.CloseWrite()
}

func compare(c *net.TCPConn, want []byte) error {
	got, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%d octets came back changed", len(got))
	}
	return nil
}
