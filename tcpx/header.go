package tcpx

import (
	"encoding/binary"

	"penne/csum"
	"penne/internal/wire"
	"penne/ring"
)

// outSegment is what differs between a flow's segments to the guest.
type outSegment struct {
	seq, ack uint32
	window   uint16
	flags    uint8
	payload  int    // octets, which the frame has already
	opts     []byte // a multiple of four octets
}

// setHeader builds the headers that all segments to the guest share. ipSum and
// l4Sum are without the lengths, which build adds.
func (c *conn) setHeader(guestMAC, ourMAC *wire.MAC, key *endpoints) {
	wire.PutEth(c.hdr[:], guestMAC, ourMAC, key.remote.EtherType())
	ip := c.hdr[wire.EthLen:]
	n := wire.PutIP(ip, 0, wire.ProtoTCP, &key.remote, &key.guest)
	c.hdrLen = uint8(wire.EthLen + n + wire.TCPLen)
	if n == wire.IPv4Len {
		ip[2], ip[3], ip[10], ip[11] = 0, 0, 0, 0
		c.ipSum = csum.Sum(ip[:wire.IPv4Len], 0)
	}
	c.l4Sum = wire.PseudoSum(&key.remote, &key.guest, wire.ProtoTCP, 0)
	th := ip[n:]
	binary.BigEndian.PutUint16(th, key.remotePort)
	binary.BigEndian.PutUint16(th[2:], key.guestPort)
}

// endpoints are a flow's addresses and ports as the guest sees them.
type endpoints struct {
	remote, guest         wire.Addr
	remotePort, guestPort uint16
}

// build puts the headers of s before the payload of f and sets f.Offload. The TCP
// checksum is partial: its field holds the folded sum of the pseudo-header, not
// complemented.
func (c *conn) build(f *ring.Frame, s *outSegment) {
	hdr := int(c.hdrLen) + len(s.opts)
	h := f.Build(hdr, s.payload)
	copy(h, c.hdr[:c.hdrLen])
	l4 := int(c.hdrLen) - wire.TCPLen
	length := hdr - l4 + s.payload
	gso := uint8(ring.GSOTCPv6)
	if c.v4() {
		gso = ring.GSOTCPv4
		total := wire.IPv4Len + length
		binary.BigEndian.PutUint16(h[wire.EthLen+2:], uint16(total))
		binary.BigEndian.PutUint16(h[wire.EthLen+10:], csum.Finish(c.ipSum+uint32(total)))
	} else {
		binary.BigEndian.PutUint16(h[wire.EthLen+4:], uint16(length))
	}
	th := h[l4:]
	binary.BigEndian.PutUint32(th[4:], s.seq)
	binary.BigEndian.PutUint32(th[8:], s.ack)
	th[12] = uint8((wire.TCPLen + len(s.opts)) << 2)
	th[13] = s.flags
	binary.BigEndian.PutUint16(th[14:], s.window)
	binary.BigEndian.PutUint16(th[16:], csum.Fold(c.l4Sum+uint32(length)))
	copy(th[wire.TCPLen:], s.opts)
	f.Offload = ring.Offload{NeedsCsum: true, CsumStart: uint16(l4), CsumOffset: 16}
	if s.payload > int(c.mss) {
		f.Offload.GSOType, f.Offload.GSOSize = gso, c.mss
	}
}
