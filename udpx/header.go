package udpx

import (
	"encoding/binary"

	"penne/csum"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
)

// header is the headers of a flow's datagrams to the guest, built once; put only
// writes lengths, checksums and the guest's Ethernet address.
type header struct {
	b      [wire.EthLen + wire.IPv6Len + wire.UDPLen]byte
	len    uint8  // of b, in octets: 42 or 62
	v6     bool   // an IPv6 header
	ipSum  uint32 // partial sum of the IPv4 header with a length of 0
	pseudo uint32 // partial sum of the pseudo-header with a length of 0
}

// fill builds the headers from key's remote to its guest.
func (h *header) fill(our *wire.MAC, key *flow.Key) {
	src, dst := &key.Remote, &key.Guest
	wire.PutEth(h.b[:], &wire.Broadcast, our, src.EtherType())
	l4 := wire.EthLen + wire.PutIP(h.b[wire.EthLen:], 0, wire.ProtoUDP, src, dst)
	h.len, h.v6 = uint8(l4+wire.UDPLen), !src.Is4()
	binary.BigEndian.PutUint16(h.b[l4:], key.RemotePort)
	binary.BigEndian.PutUint16(h.b[l4+2:], key.GuestPort)
	h.pseudo = wire.PseudoSum(src, dst, wire.ProtoUDP, 0)
	if !h.v6 {
		binary.BigEndian.PutUint32(h.b[wire.EthLen+8:], 64<<24|wire.ProtoUDP<<16)
		binary.BigEndian.PutUint16(h.b[wire.EthLen+2:], 0)
		h.ipSum = csum.Sum(h.b[wire.EthLen:wire.EthLen+wire.IPv4Len], 0)
	}
}

// ipLen is the length of the IP header, in octets.
func (h *header) ipLen() int { return int(h.len) - wire.EthLen - wire.UDPLen }

// put makes f the frame of the n octets at offset off of its payload area: a
// superpacket of datagrams of segment octets if that is less than n. The UDP checksum
// is partial.
func (h *header) put(f *ring.Frame, mac *wire.MAC, off, n, segment int) {
	hdr, l4 := int(h.len), int(h.len)-wire.UDPLen
	f.SetBounds(ring.PayloadOffset+off-hdr, hdr+n)
	b := f.Bytes()[:hdr]
	copy(b, h.b[:hdr])
	copy(b, mac[:])
	h.length(b, wire.UDPLen+n)
	binary.BigEndian.PutUint16(b[l4+4:], uint16(wire.UDPLen+n))
	binary.BigEndian.PutUint16(b[l4+6:], csum.Fold(h.pseudo+uint32(wire.UDPLen+n)))
	f.Offload = ring.Offload{NeedsCsum: true, CsumStart: uint16(l4), CsumOffset: 6}
	if segment < n {
		f.Offload.GSOType, f.Offload.GSOSize = ring.GSOUDPL4, uint16(segment)
	}
}

// length writes the IP header's length, and checksum, for n octets behind that header
// into the headers b.
func (h *header) length(b []byte, n int) {
	if h.v6 {
		binary.BigEndian.PutUint16(b[wire.EthLen+4:], uint16(n))
		return
	}
	total := uint32(wire.IPv4Len + n)
	binary.BigEndian.PutUint16(b[wire.EthLen+2:], uint16(total))
	binary.BigEndian.PutUint16(b[wire.EthLen+10:], csum.Finish(h.ipSum+total))
}
