package wire

import (
	"encoding/binary"

	"penne/csum"
)

// PutEth writes an Ethernet header into b, which holds at least EthLen octets.
func PutEth(b []byte, dst, src *MAC, etherType uint16) {
	copy(b[:6], dst[:])
	copy(b[6:12], src[:])
	binary.BigEndian.PutUint16(b[12:], etherType)
}

// PutIPv4 writes an option-less IPv4 header with its checksum into b: total is
// the length of the packet, header included, in octets. DF is set, and the
// identification therefore 0 (RFC 6864 section 4.1).
func PutIPv4(b []byte, total int, proto, ttl uint8, src, dst *Addr) {
	_ = b[IPv4Len-1]
	binary.BigEndian.PutUint32(b, 0x45<<24|uint32(uint16(total)))
	binary.BigEndian.PutUint32(b[4:], 0x4000)
	binary.BigEndian.PutUint32(b[8:], uint32(ttl)<<24|uint32(proto)<<16)
	copy(b[12:16], src[12:])
	copy(b[16:20], dst[12:])
	binary.BigEndian.PutUint16(b[10:], csum.Finish(csum.Sum(b[:IPv4Len], 0)))
}

// PutIPv6 writes an IPv6 header into b, for payload octets that follow it.
func PutIPv6(b []byte, payload int, proto, hops uint8, src, dst *Addr) {
	_ = b[IPv6Len-1]
	binary.BigEndian.PutUint32(b, 6<<28)
	binary.BigEndian.PutUint32(b[4:], uint32(uint16(payload))<<16|uint32(proto)<<8|uint32(hops))
	copy(b[8:24], src[:])
	copy(b[24:40], dst[:])
}

// PutIP writes an IP header of src's family into b, for payload octets that follow
// it, and returns the header's length. The hop limit is
// 64, the default of RFC 1700.
func PutIP(b []byte, payload int, proto uint8, src, dst *Addr) int {
	if src.Is4() {
		PutIPv4(b, IPv4Len+payload, proto, 64, src, dst)
		return IPv4Len
	}
	PutIPv6(b, payload, proto, 64, src, dst)
	return IPv6Len
}

// IPLen is the length of an IP header without options of a's family.
func (a *Addr) IPLen() int {
	if a.Is4() {
		return IPv4Len
	}
	return IPv6Len
}

// EtherType is the EtherType of packets with address a.
func (a *Addr) EtherType() uint16 {
	if a.Is4() {
		return EtherIPv4
	}
	return EtherIPv6
}

// PseudoSum is the partial sum of the pseudo-header for length octets of
// protocol proto between src and dst, which are of one family.
func PseudoSum(src, dst *Addr, proto uint8, length int) uint32 {
	return csum.Pseudo(src.Bytes(), dst.Bytes(), proto, uint32(length))
}

// PutUDP writes the header of the datagram udp, whose payload is there already, with
// the checksum.
func PutUDP(udp []byte, srcPort, dstPort uint16, src, dst *Addr) {
	binary.BigEndian.PutUint16(udp, srcPort)
	binary.BigEndian.PutUint16(udp[2:], dstPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	binary.BigEndian.PutUint16(udp[6:], 0)
	sum := csum.Sum(udp, PseudoSum(src, dst, ProtoUDP, len(udp)))
	binary.BigEndian.PutUint16(udp[6:], csum.FinishUDP(sum))
}

// SumOK verifies the L4 checksum of frame, of which Parse made h with the verdict OK.
// It is not for frames with a partial checksum (ring.Offload.NeedsCsum).
func (h *Headers) SumOK(frame []byte) bool {
	l4 := frame[h.L4 : uint32(h.Payload)+h.PayloadLen]
	return csum.Fold(csum.Sum(l4, PseudoSum(&h.Src, &h.Dst, h.Proto, len(l4)))) == 0xffff
}
