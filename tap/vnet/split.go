package vnet

import (
	"encoding/binary"

	"penne/csum"
	"penne/internal/wire"
	"penne/ring"
)

// Flags of a TCP segment that only the last one of a run, or the first, keeps.
const (
	tcpLastOnly  = wire.FIN | wire.PSH
	tcpFirstOnly = wire.CWR // RFC 3168 section 6.1.2: once per reduction
)

// maxHeaders is the longest row of headers that Splitter copies: Ethernet, IPv6
// with 136 octets of extension headers, TCP with all its options. We build
// none that are longer.
const maxHeaders = wire.EthLen + wire.IPv6Len + 136 + 60

// Splitter cuts one superpacket after another into segments: Start, then Next
// until it says false. The payload is not copied. The zero Splitter is ready;
// it is owned by one thread and keeps a reference to the frame until the end of
// the run.
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

// Start takes the superpacket frame with its offload o. It returns false if
// that cannot be cut: o names no GSO type, or not the frame's protocol, or the
// frame is malformed, or its headers are longer than any we build.
//
// IP header, TCP header and addresses are read now; payload is summed by Next.
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

// fits tells whether typ is the way to cut what was parsed, whose headers must
// fit into the scratch memory.
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

// Next gives the next segment as its headers, from the Ethernet header on, and
// its payload; ok is false when there is none left. hdr is good until the
// following Next or Start, payload lies in the superpacket.
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

// NextVnet is Next with a virtio-net header of HdrLen octets before the headers.
func (s *Splitter) NextVnet() (hdr, payload []byte, ok bool) {
	hdr, payload, ok = s.Next()
	if !ok {
		return nil, nil, false
	}
	PutHeader(s.buf[:HdrLen], hdr, &s.offload)
	return s.buf[:HdrLen+len(hdr)], payload, true
}

// Offload tells what the receiver of the segments must still do: nothing, or
// complete the checksum.
func (s *Splitter) Offload() ring.Offload { return s.offload }

// putIP rewrites the IP header of the segment that carries n octets, done octets
// into the payload. The identification counts up as Linux does it
// (inet_gso_segment), whatever DF says.
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

// putTCP rewrites sequence number and flags of the segment that starts done
// octets into the payload.
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

// putSum writes the transport checksum, whole or partial.
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
