package vnet

import (
	"encoding/binary"

	"penne/csum"
	"penne/internal/wire"
	"penne/ring"
)

// TCP flags that only the last segment of a run has, or only the first.
const (
	tcpLastOnly  = wire.FIN | wire.PSH
	tcpFirstOnly = wire.CWR // RFC 3168 section 6.1.2: once per reduction
)

// maxHeaders is the length of the longest headers that Splitter takes: Ethernet, IPv6
// with 136 octets of extension headers, TCP with 40 of options. We build none that
// are longer.
const maxHeaders = wire.EthLen + wire.IPv6Len + 136 + 60

// Splitter cuts superpackets into segments: Start, then Next until that returns false.
// It does not copy the payload, and refers to the frame until then. The zero Splitter
// is ready for use; it is not safe for concurrent use.
type Splitter struct {
	// Partial leaves the checksum of each segment partial, for a receiver
	// that completes checksums but does not segment.
	Partial bool

	h       wire.Headers
	payload []byte // what is left of it
	size    int    // payload octets of a segment
	total   int    // payload octets of the superpacket
	offload ring.Offload
	sum     uint32 // addresses and protocol of the pseudo-header
	flags   uint8  // TCP flags of the superpacket
	// buf holds room for a virtio-net header, then the headers of a segment.
	buf [HdrLen + maxHeaders]byte
}

// Start begins with the superpacket frame and its offload o. It returns false if that
// cannot be cut: o has no GSO type, or that of another protocol, or the frame is
// malformed, or its headers are longer than maxHeaders.
func (s *Splitter) Start(frame []byte, o *ring.Offload) bool {
	if wire.Parse(frame, &s.h) != wire.OK || o.GSOSize == 0 || !s.fits(o.GSOType) {
		return false
	}
	s.payload = frame[s.h.Payload : uint32(s.h.Payload)+s.h.PayloadLen]
	s.size, s.total = int(o.GSOSize), len(s.payload)
	copy(s.buf[HdrLen:], frame[:s.h.Payload])
	s.sum = wire.PseudoSum(&s.h.Src, &s.h.Dst, s.h.Proto, 0)
	s.offload = ring.Offload{NeedsCsum: s.Partial, CsumStart: s.h.L4, CsumOffset: csumOffset(s.h.Proto)}
	if s.h.Proto == wire.ProtoTCP {
		s.flags = frame[s.h.L4+13]
	}
	return s.total > 0
}

// fits tells whether the parsed frame is of GSO type typ, with headers of at most
// maxHeaders.
func (s *Splitter) fits(typ uint8) bool {
	if s.h.Payload > maxHeaders {
		return false
	}
	switch typ {
	case ring.GSOTCPv4:
		return s.h.Proto == wire.ProtoTCP && !s.h.V6
	case ring.GSOTCPv6:
		return s.h.Proto == wire.ProtoTCP && s.h.V6
	case ring.GSOUDPL4:
		return s.h.Proto == wire.ProtoUDP
	}
	return false
}

// Next returns the next segment's headers, from the Ethernet header on, and payload;
// ok is false when there is none left. hdr is valid until the following call of Next
// or Start, payload is part of the superpacket.
func (s *Splitter) Next() (hdr, payload []byte, ok bool) {
	if len(s.payload) == 0 {
		return nil, nil, false
	}
	done := s.total - len(s.payload)
	n := min(s.size, len(s.payload))
	payload, s.payload = s.payload[:n], s.payload[n:]
	hdr = s.buf[HdrLen : HdrLen+int(s.h.Payload)]
	s.putIP(hdr, done, n)
	if s.h.Proto == wire.ProtoTCP {
		s.putTCP(hdr[s.h.L4:], done)
	} else {
		binary.BigEndian.PutUint16(hdr[s.h.L4+4:], uint16(wire.UDPLen+n))
	}
	s.putSum(hdr, payload)
	return hdr, payload, true
}

// NextVnet is Next with a virtio-net header before the Ethernet header.
func (s *Splitter) NextVnet() (hdr, payload []byte, ok bool) {
	hdr, payload, ok = s.Next()
	if !ok {
		return nil, nil, false
	}
	PutHeader(s.buf[:HdrLen], hdr, &s.offload)
	return s.buf[:HdrLen+len(hdr)], payload, true
}

// Offload is that of each segment: none, or a partial checksum.
func (s *Splitter) Offload() ring.Offload { return s.offload }

// putIP writes the IP header of the segment with n octets at offset done of the
// payload. The identification counts up as in Linux (inet_gso_segment), whatever DF
// says.
func (s *Splitter) putIP(hdr []byte, done, n int) {
	ip := hdr[s.h.L3:]
	if s.h.V6 {
		binary.BigEndian.PutUint16(ip[4:], uint16(int(s.h.Payload-s.h.L3)-wire.IPv6Len+n))
		return
	}
	binary.BigEndian.PutUint16(ip[2:], uint16(int(s.h.Payload-s.h.L3)+n))
	if done > 0 {
		binary.BigEndian.PutUint16(ip[4:], binary.BigEndian.Uint16(ip[4:])+1)
	}
	binary.BigEndian.PutUint16(ip[10:], 0)
	ip = ip[:s.h.L4-s.h.L3]
	binary.BigEndian.PutUint16(ip[10:], csum.Finish(csum.Sum(ip, 0)))
}

// putTCP writes sequence number and flags of the segment at offset done of the
// payload.
func (s *Splitter) putTCP(tcp []byte, done int) {
	flags := s.flags
	if done > 0 {
		flags &^= tcpFirstOnly
		binary.BigEndian.PutUint32(tcp[4:], binary.BigEndian.Uint32(tcp[4:])+uint32(s.size))
	}
	if len(s.payload) > 0 {
		flags &^= tcpLastOnly
	}
	tcp[13] = flags
}

// putSum writes the transport checksum, full or partial.
func (s *Splitter) putSum(hdr, payload []byte) {
	l4 := hdr[s.h.L4:]
	field := l4[s.offload.CsumOffset:]
	sum := s.sum + uint32(len(l4)+len(payload))
	if s.Partial {
		binary.BigEndian.PutUint16(field, csum.Fold(sum))
		return
	}
	binary.BigEndian.PutUint16(field, 0)
	sum = csum.Sum(payload, csum.Sum(l4, sum)) // headers are of even length
	if s.h.Proto == wire.ProtoUDP {
		binary.BigEndian.PutUint16(field, csum.FinishUDP(sum))
		return
	}
	binary.BigEndian.PutUint16(field, csum.Finish(sum))
}
