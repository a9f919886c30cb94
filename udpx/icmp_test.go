package udpx

import (
	"bytes"
	"encoding/binary"
	"syscall"
	"testing"

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
