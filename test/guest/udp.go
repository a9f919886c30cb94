package guest

import (
	"encoding/binary"

	"penne/csum"
	"penne/internal/wire"
	"penne/ring"
)

// Datagram is a UDP datagram, or a superpacket of them, that the guest sends.
type Datagram struct {
	Src, Dst         wire.Addr
	SrcPort, DstPort uint16
	TTL              uint8 // 0: 64
	Segment          uint16
	Payload          []byte
}

// Bytes is the Ethernet frame. The checksum is left to offload, as a guest's
// kernel does.
func (d *Datagram) Bytes() []byte {
	n := wire.UDPLen + len(d.Payload)
	b := header(&d.Src, &d.Dst, wire.ProtoUDP, d.TTL, n)
	l4 := len(b)
	b = binary.BigEndian.AppendUint16(b, d.SrcPort)
	b = binary.BigEndian.AppendUint16(b, d.DstPort)
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = binary.BigEndian.AppendUint16(b, 0)
	b = append(b, d.Payload...)
	sum := csum.Fold(wire.PseudoSum(&d.Src, &d.Dst, wire.ProtoUDP, n))
	binary.BigEndian.PutUint16(b[l4+6:], sum)
	return b
}

// Offload is what the guest's kernel leaves to do.
func (d *Datagram) Offload() ring.Offload {
	l3 := wire.EthLen + d.Src.IPLen()
	o := ring.Offload{NeedsCsum: true, CsumStart: uint16(l3), CsumOffset: 6}
	if d.Segment != 0 {
		o.GSOType, o.GSOSize = ring.GSOUDPL4, d.Segment
	}
	return o
}

// Datagram is d as a frame from the tap.
func (g *Guest) Datagram(d *Datagram) *ring.Frame {
	g.T.Helper()
	return g.Frame(d.Bytes(), d.Offload())
}

// Echo is an ICMP or ICMPv6 message of the echo kind that the guest sends.
type Echo struct {
	Src, Dst wire.Addr
	Type     uint8 // 0: the family's echo request
	ID, Seq  uint16
	TTL      uint8 // 0: 64
	Payload  []byte
}

// Bytes is the Ethernet frame, with its checksum.
func (e *Echo) Bytes() []byte {
	proto, typ, n := uint8(wire.ProtoICMPv6), uint8(128), wire.ICMPLen+len(e.Payload)
	sum := wire.PseudoSum(&e.Src, &e.Dst, wire.ProtoICMPv6, n)
	if e.Src.Is4() {
		proto, typ, sum = wire.ProtoICMP, 8, 0
	}
	if e.Type != 0 {
		typ = e.Type
	}
	b := header(&e.Src, &e.Dst, proto, e.TTL, n)
	l4 := len(b)
	b = append(b, typ, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, e.ID)
	b = binary.BigEndian.AppendUint16(b, e.Seq)
	b = append(b, e.Payload...)
	binary.BigEndian.PutUint16(b[l4+2:], csum.Finish(csum.Sum(b[l4:], sum)))
	return b
}

// Echo is e as a frame from the tap.
func (g *Guest) Echo(e *Echo) *ring.Frame {
	g.T.Helper()
	return g.Frame(e.Bytes(), ring.Offload{})
}

// header is an Ethernet and an IP header of the guest's, before n octets.
func header(src, dst *wire.Addr, proto, ttl uint8, n int) []byte {
	if ttl == 0 {
		ttl = 64
	}
	b := make([]byte, wire.EthLen+wire.IPv6Len)
	wire.PutEth(b, &OurMAC, &MAC, src.EtherType())
	ip := b[wire.EthLen:]
	if src.Is4() {
		wire.PutIPv4(ip, wire.IPv4Len+n, proto, ttl, src, dst)
		return b[:wire.EthLen+wire.IPv4Len]
	}
	wire.PutIPv6(ip, n, proto, ttl, src, dst)
	return b
}

// SumOK tells whether the L4 checksum of a frame to the guest is right, or, if
// it was left to offload, the pseudo-header's sum.
func (o *Out) SumOK() bool {
	l4 := o.Bytes[o.H.L4 : uint32(o.H.Payload)+o.H.PayloadLen]
	pseudo := uint32(0)
	if o.H.Proto != wire.ProtoICMP {
		pseudo = wire.PseudoSum(&o.H.Src, &o.H.Dst, o.H.Proto, len(l4))
	}
	if o.Offload.NeedsCsum {
		field := binary.BigEndian.Uint16(l4[o.Offload.CsumOffset:])
		return o.Offload.CsumStart == o.H.L4 && field == csum.Fold(pseudo)
	}
	return csum.Fold(csum.Sum(l4, pseudo)) == 0xffff
}

// IPOK tells whether the IPv4 header's checksum is right; IPv6 has none.
func (o *Out) IPOK() bool {
	if o.H.V6 {
		return true
	}
	n := int(o.Bytes[o.H.L3]&15) * 4
	return csum.Fold(csum.Sum(o.Bytes[o.H.L3:int(o.H.L3)+n], 0)) == 0xffff
}
