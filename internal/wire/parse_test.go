package wire

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
)

func addrOf(s string) Addr { return AddrFrom(netip.MustParseAddr(s)) }

// packet builds an Ethernet frame with the transport header and payload l4.
func packet(proto uint8, src, dst string, l4 []byte) []byte {
	s, d := addrOf(src), addrOf(dst)
	b := make([]byte, EthLen+IPv6Len)
	PutEth(b, &MAC{1}, &MAC{2}, s.EtherType())
	n := PutIP(b[EthLen:], len(l4), proto, &s, &d)
	return append(b[:EthLen+n], l4...)
}

func tcpHeader(options, payload int) []byte {
	b := make([]byte, TCPLen+options+payload)
	binary.BigEndian.PutUint16(b, 1111)
	binary.BigEndian.PutUint16(b[2:], 2222)
	b[12] = byte((TCPLen+options)/4) << 4
	return b
}

func udpHeader(length, payload int) []byte {
	b := make([]byte, UDPLen+payload)
	binary.BigEndian.PutUint16(b, 1111)
	binary.BigEndian.PutUint16(b[2:], 2222)
	binary.BigEndian.PutUint16(b[4:], uint16(length))
	return b
}

// with returns b with some octets replaced.
func with(b []byte, at int, v ...byte) []byte {
	b = bytes.Clone(b)
	copy(b[at:], v)
	return b
}

// packet6Mapped is an IPv6 packet with ::ffff:192.0.2.1 at an offset.
func packet6Mapped(at int) []byte {
	mapped := addrOf("192.0.2.1")
	return with(packet(ProtoTCP, "2001:db8::1", "2001:db8::2", tcpHeader(0, 9)), at, mapped[:]...)
}

func TestParse(t *testing.T) {
	tcp4 := packet(ProtoTCP, "192.0.2.1", "192.0.2.2", tcpHeader(12, 5))
	tcp6 := packet(ProtoTCP, "2001:db8::1", "2001:db8::2", tcpHeader(0, 9))
	udp4 := packet(ProtoUDP, "192.0.2.1", "192.0.2.2", udpHeader(UDPLen+4, 4))
	udp6 := packet(ProtoUDP, "2001:db8::1", "2001:db8::2", udpHeader(UDPLen+4, 4))
	hop := append([]byte{ProtoUDP, 0, 1, 4, 0, 0, 0, 0}, udpHeader(UDPLen+4, 4)...)
	frag6 := append([]byte{ProtoUDP, 0, 0, 1, 0, 0, 0, 0}, udpHeader(UDPLen+4, 4)...)
	endless := bytes.Repeat([]byte{extDest, 0, 1, 4, 0, 0, 0, 0}, 12)
	for _, c := range []struct {
		name    string
		b       []byte
		want    Verdict
		payload int // its length, if OK
	}{
		{"tcp4", tcp4, OK, 5},
		{"tcp4 with link padding", append(bytes.Clone(tcp4), 0, 0, 0), OK, 5},
		{"tcp6", tcp6, OK, 9},
		{"udp4", udp4, OK, 4},
		{"udp6", udp6, OK, 4},
		{"udp6 behind a hop-by-hop header", packet(extHopByHop, "2001:db8::1", "2001:db8::2", hop), OK, 4},
		{"udp with trailing octets inside IP", packet(ProtoUDP, "192.0.2.1", "192.0.2.2", udpHeader(UDPLen+4, 9)), OK, 4},
		{"echo", packet(ProtoICMP, "192.0.2.1", "192.0.2.2", []byte{8, 0, 0, 0, 0, 7, 0, 1, 'x'}), OK, 1},
		{"echo6", packet(ProtoICMPv6, "2001:db8::1", "2001:db8::2", []byte{128, 0, 0, 0, 0, 7, 0, 1}), OK, 0},
		{"empty", nil, Truncated, 0},
		{"half an Ethernet header", tcp4[:13], Truncated, 0},
		{"half an IPv4 header", tcp4[:30], Truncated, 0},
		{"half an IPv6 header", tcp6[:50], Truncated, 0},
		{"IPv4 version 5", with(tcp4, EthLen, 0x55), Malformed, 0},
		{"IPv4 header of 16", with(tcp4, EthLen, 0x44), Malformed, 0},
		{"IPv4 options past the total length", with(tcp4, EthLen, 0x4f, 0, 0, 40), Malformed, 0},
		{"IPv4 total below header", with(tcp4, EthLen+2, 0, 19), Malformed, 0},
		{"IPv4 total past frame", with(tcp4, EthLen+2, 1, 0), Truncated, 0},
		{"IPv4 more fragments", with(tcp4, EthLen+6, 0x20, 0), Fragment, 0},
		{"IPv4 fragment offset", with(tcp4, EthLen+6, 0, 9), Fragment, 0},
		{"IPv6 version 4", with(tcp6, EthLen, 0x40), Malformed, 0},
		{"IPv6 with a v4-mapped source", packet6Mapped(EthLen + 8), Malformed, 0},
		{"IPv6 with a v4-mapped destination", packet6Mapped(EthLen + 24), Malformed, 0},
		{"IPv6 length past frame", with(tcp6, EthLen+4, 0xff, 0xff), Truncated, 0},
		{"IPv6 fragment header", packet(extFragment, "2001:db8::1", "2001:db8::2", frag6), Fragment, 0},
		{"IPv6 endless extensions", packet(extDest, "2001:db8::1", "2001:db8::2", endless), Malformed, 0},
		{"IPv6 extension past the end", packet(extDest, "2001:db8::1", "2001:db8::2", []byte{6, 200, 0, 0, 0, 0, 0, 0}), Truncated, 0},
		{"IPv6 extension cut", packet(extDest, "2001:db8::1", "2001:db8::2", []byte{6, 0, 0}), Truncated, 0},
		{"TCP header cut", packet(ProtoTCP, "192.0.2.1", "192.0.2.2", tcpHeader(0, 0)[:19]), Truncated, 0},
		{"TCP data offset 4", with(tcp4, EthLen+IPv4Len+12, 0x40), Malformed, 0},
		{"TCP options past the end", with(tcp6, EthLen+IPv6Len+12, 0xf0), Truncated, 0},
		{"UDP length 7", packet(ProtoUDP, "192.0.2.1", "192.0.2.2", udpHeader(7, 4)), Malformed, 0},
		{"UDP length past packet", packet(ProtoUDP, "192.0.2.1", "192.0.2.2", udpHeader(13, 4)), Truncated, 0},
		{"UDP header cut", packet(ProtoUDP, "192.0.2.1", "192.0.2.2", []byte{1, 2, 3}), Truncated, 0},
		{"ICMP cut", packet(ProtoICMP, "192.0.2.1", "192.0.2.2", []byte{8, 0, 0}), Truncated, 0},
		{"ICMPv6 over IPv4", packet(ProtoICMPv6, "192.0.2.1", "192.0.2.2", make([]byte, 8)), Unknown, 0},
		{"SCTP", packet(132, "192.0.2.1", "192.0.2.2", make([]byte, 12)), Unknown, 0},
		{"VLAN", with(tcp4, 12, 0x81, 0), Unknown, 0},
	} {
		var h Headers
		if got := Parse(c.b, &h); got != c.want {
			t.Errorf("%s: verdict %d, want %d", c.name, got, c.want)
		} else if got == OK && int(h.PayloadLen) != c.payload {
			t.Errorf("%s: payload of %d, want %d", c.name, h.PayloadLen, c.payload)
		}
	}
}

func TestParseFields(t *testing.T) {
	var h Headers
	b := packet(ProtoTCP, "2001:db8::1", "2001:db8::2", tcpHeader(4, 3))
	b[EthLen], b[EthLen+1] = 0x6b, 0x80
	if v := Parse(b, &h); v != OK {
		t.Fatalf("verdict %d", v)
	}
	if h.SrcPort != 1111 || h.DstPort != 2222 || !h.V6 || h.TClass != 0xb8 || h.TTL != 64 ||
		h.Src != addrOf("2001:db8::1") || h.Dst != addrOf("2001:db8::2") || int(h.Payload) != EthLen+IPv6Len+24 {
		t.Fatalf("headers %+v", h)
	}
}

func TestTCPOptions(t *testing.T) {
	for _, c := range []struct {
		name    string
		options []byte
		want    TCPOptions
	}{
		{"all of a SYN", []byte{2, 4, 5, 180, 3, 3, 15, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1},
			TCPOptions{MSS: 1460, WScale: 14, HasWS: true, SACKOK: true, HasTS: true, TSVal: 1, TSEcr: 2}},
		{"blocks", []byte{1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4},
			TCPOptions{SACK: [4][2]uint32{{1, 2}, {3, 4}}, SACKLen: 2}},
		{"end stops", []byte{0, 2, 4, 1, 1}, TCPOptions{}},
		{"length 0", []byte{2, 4, 1, 1, 9, 0, 3, 3, 1}, TCPOptions{MSS: 257, Malformed: true}},
		{"length 1", []byte{9, 1}, TCPOptions{Malformed: true}},
		{"past the end", []byte{8, 10, 1}, TCPOptions{Malformed: true}},
		{"kind alone", []byte{1, 3}, TCPOptions{Malformed: true}},
		{"MSS of wrong length", []byte{2, 3, 1}, TCPOptions{}},
		{"five blocks", append([]byte{5, 42}, make([]byte, 40)...), TCPOptions{}},
	} {
		var o TCPOptions
		if TCP(append(make([]byte, TCPLen), c.options...)).Options(&o); o != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, o, c.want)
		}
	}
}

func TestParseNoAlloc(t *testing.T) {
	b := packet(ProtoTCP, "192.0.2.1", "192.0.2.2", tcpHeader(12, 5))
	var h Headers
	if n := testing.AllocsPerRun(100, func() { Parse(b, &h) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// FuzzParse checks that whatever Parse accepts lies within the frame, and that
// reading TCP options of it cannot fail.
func FuzzParse(f *testing.F) {
	for _, s := range [][]byte{
		packet(ProtoTCP, "192.0.2.1", "192.0.2.2", tcpHeader(12, 5)),
		packet(ProtoTCP, "2001:db8::1", "2001:db8::2", tcpHeader(0, 9)),
		packet(ProtoUDP, "192.0.2.1", "192.0.2.2", udpHeader(UDPLen+4, 4)),
		packet(extHopByHop, "2001:db8::1", "2001:db8::2", append([]byte{ProtoUDP, 0, 1, 4, 0, 0, 0, 0}, udpHeader(12, 4)...)),
		packet(ProtoICMPv6, "2001:db8::1", "2001:db8::2", []byte{128, 0, 0, 0, 0, 7, 0, 1}),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Headers
		if Parse(b, &h) != OK || h.EtherType == EtherARP {
			return
		}
		if int(h.L3) != EthLen || h.L4 <= h.L3 || h.Payload <= h.L4 || int(h.Payload)+int(h.PayloadLen) > len(b) {
			t.Fatalf("offsets out of order: %+v of %d", h, len(b))
		}
		if h.Src.Is4() == h.V6 || h.Dst.Is4() == h.V6 {
			t.Fatalf("family: %+v", h)
		}
		if h.Proto == ProtoTCP {
			var o TCPOptions
			TCP(b[h.L4:h.Payload]).Options(&o)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	p := packet(ProtoTCP, "192.0.2.1", "192.0.2.2", tcpHeader(12, 5))
	var h Headers
	for b.Loop() {
		Parse(p, &h)
	}
}
