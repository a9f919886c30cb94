// Package icmp sends ICMP and ICMPv6 errors to the guest: what a router on its link
// would send where a socket call of ours fails, and the errors that came from the
// network for its packets, as a socket's error queue reports them. It has no state;
// the translators call it on their shard's thread.
//
// Sources: RFC 792, RFC 1122 section 3.2.2, RFC 1191, RFC 1812 sections 4.3.2.3
// and 5.2.7.1, RFC 4443.
package icmp

import (
	"encoding/binary"

	"penne/csum"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/env"
)

// Types and codes of errors.
const (
	unreachable4      = 3
	timeExceeded4     = 11
	parameterProblem4 = 12
	netUnreachable4   = 0
	hostUnreachable4  = 1
	portUnreachable4  = 3
	fragNeeded4       = 4
	prohibited4       = 13

	unreachable6      = 1
	packetTooBig6     = 2
	parameterProblem6 = 4
	noRoute6          = 0
	prohibited6       = 1
	addrUnreachable6  = 3
	portUnreachable6  = 4
)

// QuoteMax is the longest quote: an ICMPv6 error has at most 1280 octets
// (RFC 4443 section 2.4), an ICMP one 576 (RFC 1812 section 4.3.2.3).
const (
	QuoteMax  = 1280 - wire.IPv6Len - wire.ICMPLen
	quoteMax4 = 576 - wire.IPv4Len - wire.ICMPLen
)

// Error is an ICMP or ICMPv6 error for the guest; From's family says which.
type Error struct {
	From, To   wire.Addr
	Type, Code uint8
	// Info is the second word of the header: the MTU of "packet too big" and
	// "fragmentation needed", else 0.
	Info uint32
	// Quote is the guest's packet from its IP header on, of any length.
	Quote []byte
}

// Reject sends the guest destination unreachable for its packet f, if errno has such a
// message, and f was not to a link-layer multicast or broadcast address, for which
// RFC 1122 section 3.2.2 and RFC 4443 section 2.4 forbid it. f stays the caller's.
func (m *Error) Reject(e *env.Env, f *ring.Frame, errno sys.Errno) {
	if f.Bytes()[0]&1 != 0 {
		return
	}
	if m.about(e, f); m.Unreachable(errno) {
		m.Send(e)
	}
}

// RejectLong tells the guest that its packet f is longer than mtu, the path's MTU. f
// stays the caller's.
func (m *Error) RejectLong(e *env.Env, f *ring.Frame, mtu int) {
	if f.Bytes()[0]&1 != 0 && f.H.Dst.Is4() {
		return // ICMPv6 allows it, and path MTU discovery for groups needs it
	}
	m.about(e, f)
	m.TooBig(uint32(mtu))
	m.Send(e)
}

// about makes m an error from us about the guest's packet f.
func (m *Error) about(e *env.Env, f *ring.Frame) {
	m.From, m.To, m.Quote = Ours(e, &f.H.Dst), f.H.Src, f.Bytes()[f.H.L3:]
}

// Send puts the message into e.Out.
func (m *Error) Send(e *env.Env) {
	proto, limit := uint8(wire.ProtoICMPv6), QuoteMax
	if m.From.Is4() {
		proto, limit = wire.ProtoICMP, quoteMax4
	}
	quote := m.Quote[:min(len(m.Quote), limit)]
	n := wire.ICMPLen + len(quote)
	f := e.Out.Next()
	b := f.Build(wire.EthLen+m.From.IPLen()+wire.ICMPLen, len(quote))
	f.Offload = ring.Offload{}
	copy(f.PayloadArea(), quote)

	mac := e.Guest.MAC()
	wire.PutEth(b, &mac, &e.Rules.OurMAC, m.From.EtherType())
	l4 := wire.EthLen + wire.PutIP(b[wire.EthLen:], n, proto, &m.From, &m.To)
	icmp := b[l4:]
	icmp[0], icmp[1], icmp[2], icmp[3] = m.Type, m.Code, 0, 0
	binary.BigEndian.PutUint32(icmp[4:], m.Info)
	sum := uint32(0)
	if proto == wire.ProtoICMPv6 {
		sum = wire.PseudoSum(&m.From, &m.To, proto, n)
	}
	sum = csum.Sum(quote, csum.Sum(icmp, sum))
	binary.BigEndian.PutUint16(icmp[2:], csum.Finish(sum))
	e.Out.Commit(1)
}

// Unreachable sets type and code to the destination unreachable that stands for errno,
// and returns false if there is none.
func (m *Error) Unreachable(errno sys.Errno) bool {
	v4, v6 := uint8(prohibited4), uint8(prohibited6)
	switch errno {
	case sys.ECONNREFUSED:
		v4, v6 = portUnreachable4, portUnreachable6
	case sys.EHOSTUNREACH, sys.EHOSTDOWN:
		v4, v6 = hostUnreachable4, addrUnreachable6
	case sys.ENETUNREACH, sys.ENETDOWN:
		v4, v6 = netUnreachable4, noRoute6
	case sys.EACCES, sys.EPERM, sys.EMFILE, sys.ENFILE, sys.ENOMEM:
	default:
		return false
	}
	m.Type, m.Code, m.Info = unreachable6, v6, 0
	if m.From.Is4() {
		m.Type, m.Code = unreachable4, v4
	}
	return true
}

// TooBig sets type, code and MTU for a packet longer than mtu.
func (m *Error) TooBig(mtu uint32) {
	m.Type, m.Code, m.Info = packetTooBig6, 0, mtu
	if m.From.Is4() {
		m.Type, m.Code, m.Info = unreachable4, fragNeeded4, mtu&0xffff // RFC 1191 section 4
	}
}

// Relay sets type and code to those of an error from a socket's error queue, and
// returns false for one that the guest need not know.
func (m *Error) Relay(fault *sys.SocketFault) bool {
	if fault.Errno == sys.EMSGSIZE {
		m.TooBig(fault.Info)
		return true
	}
	if !fault.ICMP {
		return m.Unreachable(fault.Errno)
	}
	m.Type, m.Code, m.Info = fault.Type, fault.Code, 0
	if m.From.Is4() {
		return m.Type == unreachable4 || m.Type == timeExceeded4 || m.Type == parameterProblem4
	}
	return m.Type >= unreachable6 && m.Type <= parameterProblem6
}

// Reporter is the source address of the guest's copy of an error: that of the node that
// sent it, as the guest sees it, which for peer is remote; or ours, if the error is
// the host's own or the guest has no address for the node.
func Reporter(e *env.Env, fault *sys.SocketFault, peer, remote *wire.Addr) wire.Addr {
	if fault.HasOffender {
		from := wire.Addr(fault.Offender)
		if from == *peer {
			return *remote
		}
		if seen, ok := e.Rules.ToGuest(&from, e.Guest); ok && seen.Is4() == remote.Is4() {
			return seen
		}
	}
	return Ours(e, remote)
}

// Ours is our own address towards the guest, in remote's family, or remote if we have
// none.
func Ours(e *env.Env, remote *wire.Addr) wire.Addr {
	ours := e.Rules.Of(remote).Ours
	if ours.IsZero() && !remote.Is4() {
		ours = e.Rules.LinkLocal6
	}
	if ours.IsZero() {
		return *remote
	}
	return ours
}
