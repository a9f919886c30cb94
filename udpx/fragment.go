package udpx

import (
	"encoding/binary"

	"penne/csum"
	"penne/internal/wire"
	"penne/ring"
)

// fragLen is the length of the IPv6 fragment header (RFC 8200 section 4.5).
const fragLen = 8

// sendPieces sends the run of n octets, datagrams of segment octets each, that is in
// the frame of the i-th message: as several superpackets where one would be longer
// than an IP packet, or in fragments where a datagram is longer than the guest's MTU.
//
// No payload is copied. The pieces are sent one at a time, since the headers of each
// overwrite the end of the one before.
func (u *UDP) sendPieces(h *header, i, n, segment int) {
	out := u.env.Out
	u.shift += out.Size() - out.Room() // Flush puts the committed frames ahead
	out.Flush()
	out.Swap(0, i+u.shift)
	f := out.Peek(0)

	ip := h.ipLen() + wire.UDPLen
	step, whole := segment, ip+segment <= u.mtu()
	if whole {
		step = (65535 - ip) / segment * segment
	}
	for off := 0; off < n || off == 0; off += max(step, 1) {
		size := min(step, n-off)
		if !whole && ip+size > u.mtu() {
			u.fragment(h, f, off, size)
			continue
		}
		h.put(f, &u.guest, off, size, segment)
		out.Commit(1)
		out.Flush()
	}
}

// fragment sends the datagram of n octets at offset off of f's payload area as
// IP fragments. f is the next frame of Out, with none committed.
func (u *UDP) fragment(h *header, f *ring.Frame, off, n int) {
	u.ipID++
	extra := 0
	if h.v6 {
		extra = fragLen
	}
	l4 := ring.PayloadOffset + off - wire.UDPLen
	data := f.Slot()[l4 : l4+wire.UDPLen+n]
	h.sumWhole(data)

	hdr := int(h.len) - wire.UDPLen + extra
	chunk := (u.mtu() - h.ipLen() - extra) &^ 7
	for at := 0; at < len(data); at += chunk {
		size := min(chunk, len(data)-at)
		f.SetBounds(l4+at-hdr, hdr+size)
		f.Offload = ring.Offload{}
		h.putFragment(f.Bytes()[:hdr], &u.guest, fragmentOf{u.ipID, at, size, at+size < len(data)})
		u.env.Out.Commit(1)
		u.env.Out.Flush()
	}
}

// sumWhole writes the UDP header of the datagram data, with a full checksum.
func (h *header) sumWhole(data []byte) {
	l4 := int(h.len) - wire.UDPLen
	copy(data, h.b[l4:l4+4])
	binary.BigEndian.PutUint32(data[4:], uint32(len(data))<<16)
	sum := csum.Sum(data, h.pseudo+uint32(len(data)))
	binary.BigEndian.PutUint16(data[6:], csum.FinishUDP(sum))
}

// fragmentOf is the part of a datagram that a fragment carries.
type fragmentOf struct {
	id       uint32
	at, size int // octets of the IP payload; at is a multiple of 8
	more     bool
}

// putFragment writes the headers of a fragment (RFC 791 section 3.2, RFC 8200
// section 4.5) into b, which is as long as they are.
func (h *header) putFragment(b []byte, mac *wire.MAC, p fragmentOf) {
	n := copy(b, h.b[:int(h.len)-wire.UDPLen])
	copy(b, mac[:])
	more := uint16(0)
	if h.v6 {
		if p.more {
			more = 1
		}
		h.length(b, fragLen+p.size)
		b[wire.EthLen+6] = protoFragment
		binary.BigEndian.PutUint16(b[n:], wire.ProtoUDP<<8)
		binary.BigEndian.PutUint16(b[n+2:], uint16(p.at)|more)
		binary.BigEndian.PutUint32(b[n+4:], p.id)
		return
	}
	if p.more {
		more = 0x2000
	}
	ip := b[wire.EthLen:n]
	binary.BigEndian.PutUint16(ip[2:], uint16(wire.IPv4Len+p.size))
	binary.BigEndian.PutUint16(ip[4:], uint16(p.id))
	binary.BigEndian.PutUint16(ip[6:], uint16(p.at>>3)|more) // DF is off
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], csum.Finish(csum.Sum(ip, 0)))
}

// protoFragment is the next-header value of a fragment header.
const protoFragment = 44
