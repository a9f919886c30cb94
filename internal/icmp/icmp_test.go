package icmp

import (
	"testing"

	"penne/internal/sys"
	"penne/internal/wire"
	"penne/test/guest"
)

func TestUnreachableCodes(t *testing.T) {
	for _, c := range []struct {
		errno  sys.Errno
		v4, v6 [2]uint8
	}{
		{sys.ECONNREFUSED, [2]uint8{3, 3}, [2]uint8{1, 4}},
		{sys.EHOSTUNREACH, [2]uint8{3, 1}, [2]uint8{1, 3}},
		{sys.ENETUNREACH, [2]uint8{3, 0}, [2]uint8{1, 0}},
		{sys.EPERM, [2]uint8{3, 13}, [2]uint8{1, 1}},
	} {
		for _, from := range []wire.Addr{guest.Gateway4, guest.Gateway6} {
			m, want := Error{From: from}, c.v6
			if from.Is4() {
				want = c.v4
			}
			if !m.Unreachable(c.errno) || [2]uint8{m.Type, m.Code} != want {
				t.Errorf("%v from %v: type %d code %d, want %v", c.errno, from, m.Type, m.Code, want)
			}
		}
	}
	m := Error{From: guest.Gateway4}
	if m.Unreachable(sys.EAGAIN) || m.Unreachable(sys.EINVAL) {
		t.Error("a passing condition is told as unreachable")
	}
}

func TestRelay(t *testing.T) {
	for _, c := range []struct {
		name  string
		from  wire.Addr
		fault sys.SocketFault
		ok    bool
		want  [3]uint32
	}{
		{"time exceeded", guest.Gateway4, sys.SocketFault{Errno: sys.EHOSTUNREACH, ICMP: true, Type: 11}, true, [3]uint32{11, 0, 0}},
		{"hop limit", guest.Gateway6, sys.SocketFault{Errno: sys.EHOSTUNREACH, ICMP: true, Type: 3}, true, [3]uint32{3, 0, 0}},
		{"fragmentation needed", guest.Gateway4, sys.SocketFault{Errno: sys.EMSGSIZE, ICMP: true, Type: 3, Code: 4, Info: 1400}, true, [3]uint32{3, 4, 1400}},
		{"packet too big", guest.Gateway6, sys.SocketFault{Errno: sys.EMSGSIZE, ICMP: true, Type: 2, Info: 1400}, true, [3]uint32{2, 0, 1400}},
		{"local, too long", guest.Gateway4, sys.SocketFault{Errno: sys.EMSGSIZE, Info: 1500}, true, [3]uint32{3, 4, 1500}},
		{"local, no host", guest.Gateway6, sys.SocketFault{Errno: sys.EHOSTUNREACH}, true, [3]uint32{1, 3, 0}},
		{"redirect", guest.Gateway4, sys.SocketFault{Errno: sys.EHOSTUNREACH, ICMP: true, Type: 5}, false, [3]uint32{}},
		{"echo", guest.Gateway6, sys.SocketFault{Errno: sys.EHOSTUNREACH, ICMP: true, Type: 128}, false, [3]uint32{}},
	} {
		m := Error{From: c.from}
		if ok := m.Relay(&c.fault); ok != c.ok || ok && [3]uint32{uint32(m.Type), uint32(m.Code), m.Info} != c.want {
			t.Errorf("%s: %v %d %d %d, want %v %v", c.name, ok, m.Type, m.Code, m.Info, c.ok, c.want)
		}
	}
}

// TestQuoteIsBounded sends long quotes and none.
func TestQuoteIsBounded(t *testing.T) {
	for _, c := range []struct {
		from, to wire.Addr
		max      int
	}{{guest.Gateway4, guest.Addr4, 576}, {guest.Gateway6, guest.Addr6, 1280}} {
		g := guest.New(t, 64)
		for _, n := range []int{0, 27, 100, 65535} {
			m := Error{From: c.from, To: c.to, Type: 3, Quote: make([]byte, n)}
			m.Send(g.Env)
			g.Env.Out.Flush()
			o := g.Take()[0]
			if o.Verdict != wire.OK || !o.SumOK() || len(o.Bytes)-wire.EthLen > c.max {
				t.Errorf("quote of %d octets: %d octets, verdict %d, sum ok %v", n, len(o.Bytes), o.Verdict, o.SumOK())
			}
		}
	}
}

// TestNothingAboutGroups: what was sent to many is answered by nobody, but that it
// was too long for IPv6.
func TestNothingAboutGroups(t *testing.T) {
	g := guest.New(t, 64)
	for _, c := range []struct {
		src, dst     wire.Addr
		mac          wire.MAC
		reject, long bool
	}{
		{guest.Addr4, guest.Far4, guest.OurMAC, true, true},
		{guest.Addr4, guest.Far4, wire.Broadcast, false, false}, // its network's broadcast address
		{guest.Addr6, guest.Far6, guest.OurMAC, true, true},
		{guest.Addr6, wire.Addr{0: 0xff, 1: 2, 15: 1}, wire.MAC{0: 0x33, 1: 0x33, 5: 1}, false, true},
	} {
		f := g.Datagram(&guest.Datagram{Src: c.src, Dst: c.dst, SrcPort: 137, DstPort: 137})
		copy(f.Bytes(), c.mac[:])
		var m Error
		m.Reject(g.Env, f, sys.EACCES)
		g.Env.Out.Flush()
		rejected := len(g.Take()) == 1
		m.RejectLong(g.Env, f, 1400)
		g.Env.Out.Flush()
		if long := len(g.Take()) == 1; rejected != c.reject || long != c.long {
			t.Errorf("%v by %x: rejected %t, want %t; too long %t, want %t", c.dst, c.mac, rejected, c.reject, long, c.long)
		}
		g.Env.Pool.Put(f)
	}
}
