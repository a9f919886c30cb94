package vnet

import (
	"bytes"
	"encoding/binary"

	"penne/csum"
	"penne/internal/wire"
	"penne/ring"
)

const (
	// maxIP is the longest IP packet, header included, that Merger makes, in
	// both families.
	maxIP = 65535
	// maxDatagrams is the most datagrams that Merger joins: UDP_SEGMENT
	// takes no more on older kernels (UDP_MAX_SEGMENTS).
	maxDatagrams = 64
	// tcpPlain are the flags that segments of a run may have; FIN and PSH
	// end one, CWR may only start one.
	tcpPlain = wire.ACK | wire.ECE | tcpLastOnly | tcpFirstOnly
)

// Merger joins consecutive segments of one flow into a superpacket, for
// back-ends whose peer does not: the inverse of Splitter. The way is
//
//	for each frame:
//		if !m.Append(frame) {
//			take m.End()
//			if !m.Start(frame) { take the frame as it is }
//		}
//	take m.End()
//
// The payload is copied behind the first segment, headers are not: what the
// segments have in common is what makes a run. A segment whose checksum is
// wrong is not joined, as the superpacket would hide it. The zero Merger is
// ready; it is owned by one thread, and keeps the first frame from Start to
// End.
type Merger struct {
	h, c  wire.Headers // of the first segment, and of the candidate
	buf   []byte       // the run so far
	first ring.Offload
	size  int    // payload octets of the first segment
	count int    // segments; 0 between End and Start
	next  uint32 // TCP: the sequence number that continues the run
	id    uint16 // IPv4: the last identification
	last  uint8  // TCP: FIN and PSH of the last segment
	full  bool   // nothing more may follow
}

// Start makes frame, with its offload o, the first segment of a run. The run
// grows in frame's own memory, up to its capacity. It returns false if frame can
// start none; the Merger is then empty. Precondition: the last run was ended.
func (m *Merger) Start(frame []byte, o *ring.Offload) bool {
	m.count = 0
	if !m.fit(frame, o, &m.h) {
		return false
	}
	m.buf, m.first, m.count = frame, *o, 1
	m.size, m.full, m.last = int(m.h.PayloadLen), false, 0
	if !m.h.V6 {
		m.id = binary.BigEndian.Uint16(frame[m.h.L3+4:])
	}
	if m.h.Proto == wire.ProtoTCP {
		tcp := wire.TCP(frame[m.h.L4:m.h.Payload])
		m.next = tcp.Seq() + m.h.PayloadLen
		m.full = tcp.Flags()&tcpLastOnly != 0
	}
	return true
}

// fit parses frame into h and tells whether it may be part of a run.
func (m *Merger) fit(frame []byte, o *ring.Offload, h *wire.Headers) bool {
	if o.GSOType != ring.GSONone || wire.Parse(frame, h) != wire.OK || h.PayloadLen == 0 {
		return false
	}
	switch h.Proto {
	case wire.ProtoTCP:
		return wire.TCP(frame[h.L4:]).Flags()&^tcpPlain == 0 && verified(frame, h, o)
	case wire.ProtoUDP:
		return verified(frame, h, o)
	}
	return false
}

// Append joins frame to the run and returns true: the frame can be used again.
// It returns false, and the run stays as it was, if there is no run, or frame
// does not continue it.
func (m *Merger) Append(frame []byte, o *ring.Offload) bool {
	if m.count == 0 || m.full || !m.fit(frame, o, &m.c) || !m.continues(frame) || !m.fits() {
		return false
	}
	if m.count == 1 { // link padding would come between
		m.buf = m.buf[:int(m.h.Payload)+m.size]
	}
	m.buf = append(m.buf, frame[m.c.Payload:uint32(m.c.Payload)+m.c.PayloadLen]...)
	m.count++
	m.id++
	m.full = int(m.c.PayloadLen) < m.size
	if m.h.Proto == wire.ProtoTCP {
		m.next += m.c.PayloadLen
		m.last = frame[m.c.L4+13] & tcpLastOnly
		m.full = m.full || m.last != 0
	}
	return true
}

// fits tells whether the candidate's payload has room, in memory and in an IP
// packet.
func (m *Merger) fits() bool {
	end := int(m.h.Payload) + m.size + int(m.c.PayloadLen)
	if m.count > 1 {
		end = len(m.buf) + int(m.c.PayloadLen)
	}
	return end <= cap(m.buf) && end-int(m.h.L3) <= maxIP &&
		(m.h.Proto == wire.ProtoTCP || m.count < maxDatagrams)
}

// continues tells whether the candidate is the next segment of the run: the same
// in all that a superpacket has only once.
func (m *Merger) continues(frame []byte) bool {
	h, c := &m.h, &m.c
	if c.V6 != h.V6 || c.Proto != h.Proto || c.L4 != h.L4 || c.Payload != h.Payload || int(c.PayloadLen) > m.size {
		return false
	}
	if !bytes.Equal(frame[:wire.EthLen], m.buf[:wire.EthLen]) || !m.sameIP(frame[h.L3:h.L4], m.buf[h.L3:h.L4]) {
		return false
	}
	a, b := frame[h.L4:h.Payload], m.buf[h.L4:h.Payload]
	if h.Proto == wire.ProtoUDP {
		return bytes.Equal(a[:4], b[:4])
	}
	return m.sameTCP(a, b)
}

// sameIP compares IP headers but for length, identification and checksum.
// Identifications must count up unless DF makes them meaningless (RFC 6864
// section 4.1).
func (m *Merger) sameIP(a, b []byte) bool {
	if m.h.V6 {
		return bytes.Equal(a[:4], b[:4]) && bytes.Equal(a[6:], b[6:])
	}
	df := a[6]&0x40 != 0
	return a[0] == b[0] && a[1] == b[1] && (df || binary.BigEndian.Uint16(a[4:]) == m.id+1) &&
		bytes.Equal(a[6:10], b[6:10]) && bytes.Equal(a[12:], b[12:])
}

// sameTCP compares TCP headers but for sequence number, checksum, and the flags
// that Splitter gives to one segment only.
func (m *Merger) sameTCP(a, b []byte) bool {
	ta, tb := wire.TCP(a), wire.TCP(b)
	return bytes.Equal(a[:4], b[:4]) && ta.Seq() == m.next && ta.Ack() == tb.Ack() &&
		a[12] == b[12] && ta.Flags()&^tcpLastOnly == tb.Flags()&^tcpFirstOnly &&
		ta.Window() == tb.Window() && bytes.Equal(a[18:], b[18:])
}

// End gives the superpacket and its offload, and empties the Merger. A run of
// one segment is returned as it came. Without a run the result is nil.
func (m *Merger) End() ([]byte, ring.Offload) {
	n := m.count
	m.count = 0
	switch n {
	case 0:
		return nil, ring.Offload{}
	case 1:
		return m.buf, m.first
	}
	h, b := &m.h, m.buf
	ip, l4 := b[h.L3:], b[h.L4:]
	if h.V6 {
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-wire.IPv6Len))
	} else {
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		binary.BigEndian.PutUint16(ip[10:], 0)
		binary.BigEndian.PutUint16(ip[10:], csum.Finish(csum.Sum(ip[:h.L4-h.L3], 0)))
	}
	if h.Proto == wire.ProtoTCP {
		l4[13] |= m.last
	} else {
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
	}
	offset := csumOffset(h.Proto)
	binary.BigEndian.PutUint16(l4[offset:], csum.Fold(wire.PseudoSum(&h.Src, &h.Dst, h.Proto, len(l4))))
	return b, ring.Offload{GSOType: m.gsoType(), NeedsCsum: true, GSOSize: uint16(m.size), CsumStart: h.L4, CsumOffset: offset}
}

func (m *Merger) gsoType() uint8 {
	switch {
	case m.h.Proto == wire.ProtoUDP:
		return ring.GSOUDPL4
	case m.h.V6:
		return ring.GSOTCPv6
	}
	return ring.GSOTCPv4
}
