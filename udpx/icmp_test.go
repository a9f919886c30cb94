package udpx

import (
	"bytes"
	"encoding/binary"
	"syscall"
	"testing"

	"penne/internal/sys"
	"penne/internal/wire"
	"penne/test/guest"
)

func ttlOf(t *testing.T, fd int, v6 bool) int {
	t.Helper()
	level, opt := syscall.IPPROTO_IP, syscall.IP_TTL
	if v6 {
		level, opt = syscall.IPPROTO_IPV6, syscall.IPV6_UNICAST_HOPS
	}
	n, err := syscall.GetsockoptInt(fd, level, opt)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// icmpWant is an ICMP error that the guest is to see.
type icmpWant struct {
	from      wire.Addr
	typ, code uint8
	info      uint32
	quote     *guest.Datagram // what it is about
}

func (r *rig) checkICMP(o guest.Out, want icmpWant) {
	r.t.Helper()
	if o.Verdict != wire.OK || !o.SumOK() || !o.IPOK() {
		r.t.Fatalf("bad frame: verdict %d, sum ok %v", o.Verdict, o.SumOK())
	}
	icmp := o.Bytes[o.H.L4:]
	if icmp[0] != want.typ || icmp[1] != want.code {
		r.t.Errorf("ICMP type %d code %d, want %d %d", icmp[0], icmp[1], want.typ, want.code)
	}
	if info := binary.BigEndian.Uint32(icmp[4:]); info != want.info {
		r.t.Errorf("ICMP rest of header %d, want %d", info, want.info)
	}
	if o.H.Src != want.from || o.H.Dst != want.quote.Src {
		r.t.Errorf("ICMP from %v to %v, want %v to %v", o.H.Src, o.H.Dst, want.from, want.quote.Src)
	}
	r.checkQuote(o.Payload(), want.quote)
}

// checkQuote compares what a kernel looks at to find the socket: addresses,
// protocol, ports; and the payload, as far as it is there.
func (r *rig) checkQuote(quote []byte, d *guest.Datagram) {
	r.t.Helper()
	l3, at := d.Src.IPLen(), 12
	proto := quote[9]
	if !d.Src.Is4() {
		at, proto = 8, quote[6]
	}
	src, dst := d.Src.Bytes(), d.Dst.Bytes()
	if !bytes.Equal(quote[at:at+len(src)], src) || !bytes.Equal(quote[at+len(src):at+2*len(src)], dst) || proto != wire.ProtoUDP {
		r.t.Errorf("quoted IP header is another: % x", quote[:l3])
	}
	udp := quote[l3:]
	if sp, dp := binary.BigEndian.Uint16(udp), binary.BigEndian.Uint16(udp[2:]); sp != d.SrcPort || dp != d.DstPort {
		r.t.Errorf("quoted ports %d %d, want %d %d", sp, dp, d.SrcPort, d.DstPort)
	}
	if data := udp[wire.UDPLen:]; !bytes.HasPrefix(d.Payload, data) {
		r.t.Errorf("quoted payload %.30q is not the datagram's", data)
	}
}

// closedPort is a port of the loopback that nobody listens on.
func closedPort(t *testing.T, s side) uint16 {
	srv := newServer(t, s)
	defer srv.Close()
	return srv.port()
}

func TestPortUnreachable(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		r := newRig(t)
		want := icmpWant{from: s.gateway, typ: 3, code: 3}
		if s == v6 {
			want.typ, want.code = 1, 4
		}
		want.quote = s.datagram(20020, closedPort(t, s), []byte("knock, knock"))
		for range 3 { // the flow survives its errors
			r.out(want.quote)
			r.checkICMP(r.in(), want)
		}
		if n := r.u.Len(); n != 1 {
			t.Errorf("%d flows, want 1", n)
		}
	})
}

// TestPendingErrorLosesNothing sends into a socket on which an error waits: the
// kernel reports it in place of the send.
func TestPendingErrorLosesNothing(t *testing.T) {
	r := newRig(t)
	port := closedPort(t, v4)
	d := v4.datagram(20021, port, []byte("x"))
	r.out(d)
	srv := serverOn(t, "127.0.0.1", port) // now it is open
	r.out(v4.datagram(20021, port, []byte("y")))
	srv.expect([]byte("y"))
	if r.Env.Count.UDPToHost != 2 {
		t.Errorf("%d datagrams counted, want 2", r.Env.Count.UDPToHost)
	}
	r.checkICMP(r.in(), icmpWant{from: v4.gateway, typ: 3, code: 3, quote: d})
}

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
			m, want := ICMP{From: from}, c.v6
			if from.Is4() {
				want = c.v4
			}
			if !m.Unreachable(c.errno) || [2]uint8{m.Type, m.Code} != want {
				t.Errorf("%v from %v: type %d code %d, want %v", c.errno, from, m.Type, m.Code, want)
			}
		}
	}
	m := ICMP{From: guest.Gateway4}
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
		m := ICMP{From: c.from}
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
		r := newRig(t)
		for _, n := range []int{0, 27, 100, 65535} {
			m := ICMP{From: c.from, To: c.to, Type: 3, Quote: make([]byte, n)}
			m.Send(r.Env)
			r.u.Flush()
			o := r.Take()[0]
			if o.Verdict != wire.OK || !o.SumOK() || len(o.Bytes)-wire.EthLen > c.max {
				t.Errorf("quote of %d octets: %d octets, verdict %d, sum ok %v", n, len(o.Bytes), o.Verdict, o.SumOK())
			}
		}
	}
}
