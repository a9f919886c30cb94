package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/tap/tun/tuntest"
)

// newTap makes a tap with an address and a neighbour, both up.
func newTap(t *testing.T, queues int) (*Device, netlink.Link) {
	t.Helper()
	return newTapOf(t, realKernel(), queues)
}

func newTapOf(t *testing.T, k *kernel, queues int) (*Device, netlink.Link) {
	t.Helper()
	tuntest.Enter(t)
	// Else the kernel's own neighbour and router discovery mixes with ours.
	tuntest.Sysctl(t, "net/ipv6/conf/default/disable_ipv6", "1")
	d, err := open(Options{Name: "eth0", Queues: queues}, k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	link := tuntest.SetUp(t, "eth0", macA, netip.PrefixFrom(ipA.Netip(), 24))
	neigh := &netlink.Neigh{LinkIndex: link.Attrs().Index, IP: ipB.Netip().AsSlice(),
		HardwareAddr: macB[:], State: netlink.NUD_PERMANENT}
	if err := netlink.NeighAdd(neigh); err != nil {
		t.Fatal(err)
	}
	return d, link
}

func TestKernelOpen(t *testing.T) {
	d, link := newTap(t, 2)
	t.Logf("caps %+v", d.Caps())
	c := d.Caps()
	if !c.Vnet || !c.Csum || !c.TSO || !c.MultiQueue || d.Queues() != 2 || d.Name() != "eth0" {
		t.Errorf("%+v, %d queues, %q", c, d.Queues(), d.Name())
	}
	if d.TxQueueError() != nil || link.Attrs().TxQLen != DefaultTxQueueLen {
		t.Errorf("queue of %d frames (%v)", link.Attrs().TxQLen, d.TxQueueError())
	}
	if _, err := Open(Options{Name: "eth0", Queues: 2}); !errors.Is(err, sys.EBUSY) || !strings.Contains(err.Error(), "is taken") {
		t.Errorf("name of a multi-queue tap taken twice: %v", err)
	}
	if _, err := Open(Options{Name: "lo"}); !errors.Is(err, sys.EBUSY) {
		t.Errorf("name of another interface: %v", err)
	}
}

func TestKernelBusyAndPersistent(t *testing.T) {
	tuntest.Enter(t)
	d, err := Open(Options{Name: "one"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Name: "one"}); !errors.Is(err, sys.EBUSY) {
		t.Errorf("name of a tap in use: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	p := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "kept"}, Mode: netlink.TUNTAP_MODE_TAP}
	if err := netlink.LinkAdd(p); err != nil {
		t.Fatal(err)
	}
	for _, fd := range p.Fds {
		fd.Close()
	}
	if d, err = Open(Options{Name: "kept", Queues: 4}); err != nil {
		t.Fatal(err)
	}
	if d.Queues() != 1 || !d.Caps().TSO || d.Caps().MultiQueue {
		t.Errorf("free persistent tap: %d queues, %+v", d.Queues(), d.Caps())
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestKernelAdopt(t *testing.T) {
	tuntest.Enter(t)
	for _, c := range []struct {
		flags uint16
		want  bool
	}{{sys.IFF_TAP | sys.IFF_NO_PI, false}, {sys.IFF_TAP | sys.IFF_NO_PI | sys.IFF_VNET_HDR, true}} {
		fd, err := sys.OpenTun()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Adopt(fd, Options{}); !errors.Is(err, sys.EBADFD) {
			t.Errorf("not attached: %v", err)
		}
		if _, err := sys.TunSetIff(fd, "given", c.flags); err != nil {
			t.Fatal(err)
		}
		d, err := Adopt(fd, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if d.Name() != "given" || d.Caps().Vnet != c.want || d.Caps().TSO != c.want || d.TxQueueError() != nil {
			t.Errorf("%q, %+v, %v", d.Name(), d.Caps(), d.TxQueueError())
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// receiveUDP waits for frames of UDP and returns those that came together.
func receiveUDP(t *testing.T, d *Device, pool *ring.Pool) (frames []*ring.Frame) {
	t.Helper()
	ep, err := sys.NewEpoll(8)
	if err != nil {
		t.Fatal(err)
	}
	defer ep.Close()
	for i := range d.Queues() {
		if errno := ep.Add(d.Queue(i).FD(), sys.EPOLLIN, uint64(i)); errno != 0 {
			t.Fatal(errno)
		}
	}
	var ev [8]sys.Event
	for end := time.Now().Add(tuntest.Patience); time.Now().Before(end); {
		for _, e := range ev[:ep.Wait(ev[:], tuntest.Patience)] {
			var b ring.Batch
			if _, errno := d.Queue(int(e.Token)).Receive(&b, pool); errno != 0 {
				t.Fatal(errno)
			}
			for _, f := range b.Frames() {
				if wire.Parse(f.Bytes(), &f.H) == wire.OK && f.H.Proto == wire.ProtoUDP {
					frames = append(frames, f)
				}
			}
			if len(frames) > 0 {
				return frames
			}
		}
	}
	t.Fatal("no frame came")
	return nil
}

const udpSegment = 103 // UDP_SEGMENT, linux/udp.h

// TestKernelReceive: what the guest sends as one superpacket of UDP comes as
// one, or, where the kernel cannot give us that (before Linux 6.2), cut.
func TestKernelReceive(t *testing.T) {
	old := realKernel()
	old.setOffload = func(fd int, bits uint) error {
		if bits&uso != 0 {
			return sys.EINVAL
		}
		return sys.TunSetOffload(fd, bits)
	}
	t.Run("all offloads", func(t *testing.T) { kernelReceive(t, realKernel()) })
	t.Run("no USO", func(t *testing.T) { kernelReceive(t, old) })
}

func kernelReceive(t *testing.T, k *kernel) {
	const size, all = 1000, 20500
	d, _ := newTapOf(t, k, 2)
	pool := newPool(t, 128)
	conn, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: ipB.Netip().AsSlice(), Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	f := receiveUDP(t, d, pool)[0]
	if f.H.PayloadLen != 100 || f.Offload.GSOType != ring.GSONone || !f.Offload.NeedsCsum ||
		f.Offload.CsumStart != f.H.L4 || f.Offload.CsumOffset != 6 {
		t.Errorf("%d octets, %+v", f.H.PayloadLen, f.Offload)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		if errno := sys.SetInt(int(fd), syscall.IPPROTO_UDP, udpSegment, size); errno != 0 {
			t.Error(errno)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(make([]byte, all)); err != nil {
		t.Fatal(err)
	}
	for got := 0; got < all; {
		for _, f := range receiveUDP(t, d, pool) {
			n, gso := min(size, all-got), ring.Offload{GSOType: ring.GSONone}
			if d.Caps().USO {
				n, gso = all, ring.Offload{GSOType: ring.GSOUDPL4, GSOSize: size}
			}
			if int(f.H.PayloadLen) != n || f.Offload.GSOType != gso.GSOType || f.Offload.GSOSize != gso.GSOSize {
				t.Fatalf("%d octets after %d, %+v", f.H.PayloadLen, got, f.Offload)
			}
			got += n
		}
	}
}

// TestKernelSend writes one superpacket with each set of offloads; the guest's
// socket must see the same datagrams, checksums verified by its kernel.
func TestKernelSend(t *testing.T) {
	d, _ := newTap(t, 1)
	pool := newPool(t, 4)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: ipA.Netip().AsSlice(), Port: 7})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(tuntest.Patience)); err != nil {
		t.Fatal(err)
	}
	q, f := d.Queue(0), pool.Get()
	for _, c := range []Caps{d.Caps(), {Vnet: true, Csum: true, TSO: true}, {Vnet: true}} {
		q.setCaps(c)
		var count stats.Counters
		q.SetCounters(&count)
		buildUDP(f, &ipB, &ipA, 5500, 1000)
		swapMACs(f.Bytes())
		q.Send([]*ring.Frame{f})
		if count.Drops != [stats.NumReasons]uint64{} {
			t.Fatalf("%+v: drops %v", c, count.Drops)
		}
		got, buf := []byte(nil), make([]byte, 2000)
		for i := range 6 {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("%+v: datagram %d: %v", c, i, err)
			}
			got = append(got, buf[:n]...)
		}
		if !bytes.Equal(got, f.PayloadArea()[:5500]) {
			t.Errorf("%+v: payload differs", c)
		}
	}
}

// swapMACs turns buildUDP's frame from A to B into one from B to A.
func swapMACs(b []byte) {
	copy(b, macA[:])
	copy(b[6:], macB[:])
}

func TestKernelLinkDownAndGone(t *testing.T) {
	d, link := newTap(t, 1)
	pool := newPool(t, 4)
	q, f := d.Queue(0), pool.Get()
	var count stats.Counters
	q.SetCounters(&count)
	if err := netlink.LinkSetDown(link); err != nil {
		t.Fatal(err)
	}
	buildUDP(f, &ipB, &ipA, 100, 0)
	q.Send([]*ring.Frame{f})
	if count.Drops[stats.TapError] != 1 {
		t.Errorf("interface down: drops %v", count.Drops)
	}
	var b ring.Batch
	for more := true; more; b.N = 0 {
		var errno sys.Errno
		if more, errno = q.Receive(&b, pool); errno != 0 {
			t.Fatalf("interface down: %v", errno)
		}
		for _, f := range b.Frames() {
			pool.Put(f)
		}
	}
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	if more, errno := q.Receive(&b, pool); more || errno != sys.EBADFD {
		t.Errorf("interface deleted: more %v, %v", more, errno)
	}
}

// TestKernelNoAlloc drives a datagram out of the guest and one into it, each
// through the real tap.
func TestKernelNoAlloc(t *testing.T) {
	d, _ := newTap(t, 1)
	pool := newPool(t, 128)
	fd, errno := sys.Socket(sys.AF_INET, sys.SOCK_DGRAM, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer sys.Close(fd)
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(&ipB), true, 9, 0)
	if errno := sys.Connect(fd, &sa); errno != 0 {
		t.Fatal(errno)
	}
	q := d.Queue(0)
	var count stats.Counters
	q.SetCounters(&count)
	frames, out := []*ring.Frame{pool.Get()}, make([]byte, 1200)
	var b ring.Batch
	noAlloc(t, func() {
		sys.Write(fd, out)
		for more := true; more; {
			more, _ = q.Receive(&b, pool)
			for _, f := range b.Frames() {
				pool.Put(f)
			}
			b.N = 0
		}
		buildUDP(frames[0], &ipB, &ipA, 3000, 1400)
		binary.BigEndian.PutUint16(frames[0].Bytes()[12:], wire.EtherIPv4)
		q.Send(frames)
	})
	if count.TapRxFrames < 50 || count.TapTxFrames < 50 || count.Drops != [stats.NumReasons]uint64{} {
		t.Errorf("counters %+v", count)
	}
}
