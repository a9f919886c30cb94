package tun

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"penne/csum"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/tap/tun/tuntest"
	"penne/tap/vnet"
)

// TestKernelSegmentsAlike has the kernel route superpackets from a tap that cuts
// to one without any offload: its segments must be those of vnet.Splitter, octet
// for octet.
func TestKernelSegmentsAlike(t *testing.T) {
	tuntest.Enter(t)
	for _, family := range []string{"ipv4", "ipv6"} {
		tuntest.Sysctl(t, "net/"+family+"/conf/all/forwarding", "1")
	}
	for _, conf := range []string{"accept_dad", "router_solicitations"} {
		tuntest.Sysctl(t, "net/ipv6/conf/default/"+conf, "0")
	}
	in := routedTap(t, "in", realKernel(), macA, ipA, ip6A)
	bare := realKernel()
	bare.setOffload = func(fd int, bits uint) error {
		if bits != 0 {
			return sys.EINVAL
		}
		return sys.TunSetOffload(fd, 0)
	}
	out := routedTap(t, "out", bare, macC, ipC, ip6C)
	neighbour(t, "out", ipD, macD)
	neighbour(t, "out", ip6D, macD)
	pool := newPool(t, 128)
	for _, c := range []struct {
		name string
		make func(f *ring.Frame)
	}{
		{"UDP over IPv4", func(f *ring.Frame) { buildUDP(f, &ipB, &ipD, 5500, 1000) }},
		{"UDP over IPv6", func(f *ring.Frame) { buildUDP(f, &ip6B, &ip6D, 5500, 1000) }},
		{"TCP over IPv4", func(f *ring.Frame) { buildTCP(f, &ipB, &ipD, 60000, 1448) }},
		{"TCP over IPv6", func(f *ring.Frame) { buildTCP(f, &ip6B, &ip6D, 60000, 1428) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := pool.Get()
			defer pool.Put(f)
			c.make(f)
			swapMACs(f.Bytes())
			if !in.segments(f.Offload.GSOType) {
				t.Skip("this kernel cuts no UDP of a tap (Linux 6.2)")
			}
			var count stats.Counters
			in.SetCounters(&count)
			in.Send([]*ring.Frame{f})
			if count.TapTxFrames != 1 {
				t.Fatalf("drops %v", count.Drops)
			}
			route(f.Bytes())
			for i, want := range cut(t, f) {
				if got := nextUnicast(t, out, pool); !bytes.Equal(got, want) {
					t.Fatalf("segment %d:\nkernel %x\nours   %x", i, got[:min(len(got), 80)], want[:min(len(want), 80)])
				}
			}
		})
	}
}

var (
	macC, macD = wire.MAC{2, 0, 0, 0, 0, 3}, wire.MAC{2, 0, 0, 0, 0, 4}
	ipC        = wire.Addr4([]byte{198, 51, 100, 1})
	ipD        = wire.Addr4([]byte{198, 51, 100, 2})
	ip6C       = wire.Addr{0x20, 1, 0xd, 0xb8, 5: 1, 15: 1}
	ip6D       = wire.Addr{0x20, 1, 0xd, 0xb8, 5: 1, 15: 2}
)

// routedTap makes a tap with an address of each family.
func routedTap(t *testing.T, name string, k *kernel, mac wire.MAC, a4, a6 wire.Addr) *Queue {
	t.Helper()
	d, err := open(Options{Name: name}, k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	tuntest.SetUp(t, name, mac, netip.PrefixFrom(a4.Netip(), 24), netip.PrefixFrom(a6.Netip(), 64))
	return d.Queue(0)
}

func neighbour(t *testing.T, ifname string, a wire.Addr, mac wire.MAC) {
	t.Helper()
	link, err := netlink.LinkByName(ifname)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.NeighAdd(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: a.Netip().AsSlice(),
		HardwareAddr: mac[:], State: netlink.NUD_PERMANENT}); err != nil {
		t.Fatal(err)
	}
}

// buildTCP makes f a TCP superpacket of n octets with all that the first or the
// last segment alone keeps.
func buildTCP(f *ring.Frame, src, dst *wire.Addr, n, mss int) {
	ipLen := src.IPLen()
	b := f.Build(wire.EthLen+ipLen+wire.TCPLen+12, n)
	wire.PutEth(b, &macB, &macA, src.EtherType())
	wire.PutIP(b[wire.EthLen:], wire.TCPLen+12+n, wire.ProtoTCP, src, dst)
	tcp := b[wire.EthLen+ipLen:]
	clear(tcp)
	binary.BigEndian.PutUint16(tcp, 5001)
	binary.BigEndian.PutUint16(tcp[2:], 5002)
	binary.BigEndian.PutUint32(tcp[4:], 0xffff0000)
	tcp[12], tcp[13] = 8<<4, wire.ACK|wire.PSH|wire.FIN|wire.CWR
	copy(tcp[20:], []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8})
	binary.BigEndian.PutUint16(tcp[16:], csum.Fold(wire.PseudoSum(src, dst, wire.ProtoTCP, len(tcp)+n)))
	f.Offload = ring.Offload{GSOType: ring.GSOTCPv4, NeedsCsum: true, GSOSize: uint16(mss),
		CsumStart: uint16(wire.EthLen + ipLen), CsumOffset: 16}
	if !src.Is4() {
		f.Offload.GSOType = ring.GSOTCPv6
	}
	for i, p := 0, f.PayloadArea(); i < n; i++ {
		p[i] = byte(i * 13)
	}
}

// route does to the superpacket what a router does.
func route(b []byte) {
	copy(b, macD[:])
	copy(b[6:], macC[:])
	ip := b[wire.EthLen:]
	if ip[0]>>4 == 6 {
		ip[7]--
		return
	}
	ip[8]--
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], csum.Finish(csum.Sum(ip[:wire.IPv4Len], 0)))
}

func cut(t *testing.T, f *ring.Frame) (all [][]byte) {
	t.Helper()
	var s vnet.Splitter
	if !s.Start(f.Bytes(), &f.Offload) {
		t.Fatal("not cut")
	}
	for {
		hdr, payload, ok := s.Next()
		if !ok {
			return all
		}
		all = append(all, bytes.Join([][]byte{hdr, payload}, nil))
	}
}

// nextUnicast is the next frame that the kernel sent to macD.
func nextUnicast(t *testing.T, q *Queue, pool *ring.Pool) []byte {
	t.Helper()
	ep, err := sys.NewEpoll(1)
	if err != nil {
		t.Fatal(err)
	}
	defer ep.Close()
	if errno := ep.Add(q.FD(), sys.EPOLLIN, 0); errno != 0 {
		t.Fatal(errno)
	}
	buf := make([]byte, ring.SlotSize)
	var ev [1]sys.Event
	for end := time.Now().Add(tuntest.Patience); time.Now().Before(end); {
		ep.Wait(ev[:], time.Until(end))
		n, errno := sys.Read(q.FD(), buf)
		if errno == sys.EAGAIN { // a signal ended the wait
			continue
		}
		if errno != 0 {
			t.Fatal(errno)
		}
		if b := buf[q.hdrLen:n]; wire.MAC(b) == macD {
			if buf[0]&1 != 0 || buf[1] != 0 {
				t.Fatalf("offload %x on a tap that has none", buf[:q.hdrLen])
			}
			return bytes.Clone(b)
		}
	}
	t.Fatal("no segment came")
	return nil
}
