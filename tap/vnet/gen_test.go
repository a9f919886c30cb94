package vnet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"penne/csum"
	"penne/internal/wire"
	"penne/ring"
)

// shape describes a superpacket to build.
type shape struct {
	v6, udp bool
	options int // octets of IPv4 options, or of IPv6 extension headers
	tcpOpts int // octets of TCP options
	flags   byte
	payload int
	size    int // of a segment
}

func (s shape) String() string {
	return fmt.Sprintf("v6=%v,udp=%v,opts=%d+%d,flags=%#x,%d/%d", s.v6, s.udp, s.options, s.tcpOpts, s.flags, s.payload, s.size)
}

// shapes are all kinds, each with payloads around the borders of segments.
func shapes() (all []shape) {
	const size = 1000
	for _, n := range []int{1, size - 1, size, size + 1, 3 * size, 7*size + 501} {
		all = append(all,
			shape{payload: n, size: size, flags: wire.ACK | wire.PSH},
			shape{payload: n, size: size, tcpOpts: 12, options: 8, flags: wire.ACK | wire.FIN | wire.PSH},
			shape{payload: n, size: size, v6: true, tcpOpts: 40, flags: wire.ACK | wire.CWR | wire.ECE},
			shape{payload: n, size: size, v6: true, options: 16, flags: wire.ACK},
			shape{payload: n, size: size, udp: true},
			shape{payload: n, size: size, udp: true, options: 40},
			shape{payload: n, size: size, udp: true, v6: true},
			shape{payload: n, size: size, udp: true, v6: true, options: 136},
		)
	}
	return append(all, shape{payload: 65495 - 12, size: 1448, tcpOpts: 12, flags: wire.ACK}, shape{payload: 33, size: 1, flags: wire.ACK})
}

var (
	src4, dst4 = wire.Addr4([]byte{192, 0, 2, 1}), wire.Addr4([]byte{198, 51, 100, 2})
	src6, dst6 = wire.Addr{0x20, 1, 0xd, 0xb8, 15: 1}, wire.Addr{0x20, 1, 0xd, 0xb8, 1, 15: 2}
)

// build makes the superpacket of shape s, its checksum partial.
func build(s shape) ([]byte, ring.Offload) {
	ipLen, l4Len, proto := wire.IPv4Len+s.options, wire.TCPLen+s.tcpOpts, byte(wire.ProtoTCP)
	src, dst := &src4, &dst4
	if s.v6 {
		ipLen, src, dst = wire.IPv6Len+s.options, &src6, &dst6
	}
	o := ring.Offload{GSOType: ring.GSOTCPv4, NeedsCsum: true, GSOSize: uint16(s.size), CsumStart: uint16(wire.EthLen + ipLen), CsumOffset: 16}
	switch {
	case s.udp:
		l4Len, proto, o.GSOType, o.CsumOffset = wire.UDPLen, wire.ProtoUDP, ring.GSOUDPL4, 6
	case s.v6:
		o.GSOType = ring.GSOTCPv6
	}
	b := make([]byte, wire.EthLen+ipLen+l4Len+s.payload)
	wire.PutEth(b, &wire.MAC{2, 0, 0, 0, 0, 1}, &wire.MAC{2, 0, 0, 0, 0, 2}, src.EtherType())
	putIP(b[wire.EthLen:], s, proto, ipLen)
	l4 := b[wire.EthLen+ipLen:]
	binary.BigEndian.PutUint16(l4, 40000)
	binary.BigEndian.PutUint16(l4[2:], 5001)
	if s.udp {
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
	} else {
		binary.BigEndian.PutUint32(l4[4:], 0xfffffc00) // wraps within the superpacket
		binary.BigEndian.PutUint32(l4[8:], 0x01020304)
		l4[12], l4[13] = byte(l4Len/4)<<4, s.flags
		binary.BigEndian.PutUint16(l4[14:], 512)
		for i := range s.tcpOpts {
			l4[wire.TCPLen+i] = wire.OptNop
		}
	}
	for i := range s.payload {
		l4[l4Len+i] = byte(i*31 + i>>8)
	}
	binary.BigEndian.PutUint16(l4[o.CsumOffset:], csum.Fold(wire.PseudoSum(src, dst, proto, len(l4))))
	return b, o
}

// putIP writes an IP header with options, or extension headers of padding.
func putIP(ip []byte, s shape, proto byte, ipLen int) {
	if s.v6 {
		wire.PutIPv6(ip, len(ip)-wire.IPv6Len, proto, 64, &src6, &dst6)
		if s.options > 0 {
			ip[6] = 60 // destination options
			ip[40], ip[41] = proto, byte(s.options/8-1)
			copy(ip[42:], []byte{1, byte(s.options - 4)}) // PadN
		}
		return
	}
	wire.PutIPv4(ip, len(ip), proto, 64, &src4, &dst4)
	ip[0] = 4<<4 | byte(ipLen/4)
	binary.BigEndian.PutUint16(ip[4:], 0xfffe) // wraps within the superpacket
	for i := range s.options {
		ip[wire.IPv4Len+i] = 1
	}
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], csum.Finish(csum.Sum(ip[:ipLen], 0)))
}

// segments cuts a superpacket and returns copies, each with capacity for itself
// only.
func segments(t testing.TB, s *Splitter, b []byte, o *ring.Offload) (all [][]byte) {
	t.Helper()
	if !s.Start(b, o) {
		t.Fatal("not cut")
	}
	want := (len(s.payload) + s.size - 1) / s.size
	for {
		hdr, payload, ok := s.Next()
		if !ok {
			break
		}
		all = append(all, bytes.Join([][]byte{hdr, payload}, nil))
	}
	if len(all) != want {
		t.Errorf("%d segments, %d foretold", len(all), want)
	}
	return all
}

// verified tells whether the checksum of the IPv4 header, if b has one, and
// that of the TCP or UDP segment are right. It asks for one: a UDP datagram
// without fails. A partial one needs no proof. Link padding is left out.
func verified(b []byte, h *wire.Headers, o *ring.Offload) bool {
	if !h.V6 && csum.Fold(csum.Sum(b[h.L3:h.L4], 0)) != 0xffff {
		return false
	}
	if o.NeedsCsum {
		return true
	}
	l4 := b[h.L4 : uint32(h.Payload)+h.PayloadLen]
	if h.Proto == wire.ProtoUDP && l4[udpCsumOffset] == 0 && l4[udpCsumOffset+1] == 0 {
		return false
	}
	return csum.Fold(csum.Sum(l4, wire.PseudoSum(&h.Src, &h.Dst, h.Proto, len(l4)))) == 0xffff
}
