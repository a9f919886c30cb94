package vnet

import (
	"encoding/binary"

	"penne/internal/wire"
	"penne/ring"
)

// Lengths of struct virtio_net_hdr, in octets: without and with the
// num_buffers field. The latter is what a VIRTIO_F_VERSION_1 or MRG_RXBUF
// device uses, the former what a tap does unless told otherwise.
const (
	HdrLen    = 10
	HdrLenMrg = 12
)

// Bits of the flags field, and the ECN bit of gso_type.
const (
	flagNeedsCsum = 1
	gsoECN        = 0x80
)

// Offsets of checksum fields in their headers.
const (
	tcpCsumOffset = 16
	udpCsumOffset = 6
)

// linear is hdr_len for a frame without offload: more than the headers of any that we
// send.
const linear = 128

// PutHeader encodes o in the first HdrLen octets of b, for the frame that
// follows it, and clears the rest of b (num_buffers, if b has it). Fields are
// little-endian (VIRTIO_F_VERSION_1; on a tap TUNSETVNETLE).
func PutHeader(b, frame []byte, o *ring.Offload) {
	_ = b[HdrLen-1]
	var flags byte
	var start, offset uint16
	if o.NeedsCsum {
		flags, start, offset = flagNeedsCsum, o.CsumStart, o.CsumOffset
	}
	gsoType, gsoSize := o.GSOType, o.GSOSize
	if gsoType == ring.GSONone {
		gsoSize = 0
	}
	b[0], b[1] = flags, gsoType
	binary.LittleEndian.PutUint16(b[2:], headersLen(frame, o))
	binary.LittleEndian.PutUint16(b[4:], gsoSize)
	binary.LittleEndian.PutUint16(b[6:], start)
	binary.LittleEndian.PutUint16(b[8:], offset)
	clear(b[HdrLen:])
}

// headersLen is the hdr_len field: how much of frame is headers. If it is 0, Linux
// copies all of a 64 KiB frame into one linear buffer, an allocation of order 5,
// instead of pages (tun_get_user, 6.18).
func headersLen(frame []byte, o *ring.Offload) uint16 {
	end := linear
	if o.NeedsCsum {
		end = int(o.CsumStart) + int(o.CsumOffset) + 2
		switch {
		case o.CsumOffset == udpCsumOffset:
			end = int(o.CsumStart) + wire.UDPLen
		case o.CsumOffset == tcpCsumOffset && int(o.CsumStart)+12 < len(frame):
			end = int(o.CsumStart) + int(frame[o.CsumStart+12]>>4)*4
		}
	}
	return uint16(min(end, len(frame)))
}

// ParseHeader decodes the header b, at least HdrLen octets, of frame, the
// Ethernet header on, into o. It returns false, and o is not valid, if the
// header contradicts itself or the frame: an unknown GSO type (UFO among them,
// which nothing negotiates), a GSO size of zero, a checksum outside the frame,
// or a GSO type of another protocol than the frame's. What it accepts keeps
// CsumStart and CsumOffset within frame, behind the Ethernet header.
//
// GSO without a partial checksum is accepted: the kernel hands on a merged
// packet whose checksums it verified that way.
func ParseHeader(b, frame []byte, o *ring.Offload) bool {
	_ = b[HdrLen-1]
	*o = ring.Offload{}
	if b[0]&flagNeedsCsum != 0 {
		o.NeedsCsum = true
		o.CsumStart = binary.LittleEndian.Uint16(b[6:])
		o.CsumOffset = binary.LittleEndian.Uint16(b[8:])
		if o.CsumStart < wire.EthLen || int(o.CsumStart)+int(o.CsumOffset)+2 > len(frame) {
			return false
		}
	}
	o.GSOType = b[1] &^ gsoECN
	if o.GSOType == ring.GSONone {
		return b[1] == 0 // ECN alone is no type
	}
	o.GSOSize = binary.LittleEndian.Uint16(b[4:])
	return o.GSOSize != 0 && gsoFits(frame, o.GSOType)
}

// gsoFits tells whether frame may be of the protocol that GSO type typ is for. IPv6
// extension headers are not followed: wire.Parse does that later.
func gsoFits(frame []byte, typ uint8) bool {
	if len(frame) < wire.EthLen+wire.IPv4Len {
		return false
	}
	ip := frame[wire.EthLen:]
	var proto byte
	switch etherType := binary.BigEndian.Uint16(frame[12:]); {
	case etherType == wire.EtherIPv4 && typ != ring.GSOTCPv6:
		proto = ip[9]
	case etherType == wire.EtherIPv6 && typ != ring.GSOTCPv4:
		proto = ip[6]
	default:
		return false
	}
	switch typ {
	case ring.GSOTCPv4, ring.GSOTCPv6:
		return proto != wire.ProtoUDP
	case ring.GSOUDPL4:
		return proto != wire.ProtoTCP
	}
	return false
}
