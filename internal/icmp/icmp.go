// Package icmp makes the ICMP and ICMPv6 errors that the guest gets: what a
// router on its link would say in place of an errno, and what real ones said of
// its packets, as a host socket reported it. It owns nothing; the translators
// call it on their shard's thread.
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
	unreachable4  = 3
	timeExceeded4 = 11
	parameter4    = 12
	net4          = 0
	host4         = 1
	port4         = 3
	tooBig4       = 4
	admin4        = 13

	unreachable6 = 1
	tooBig6      = 2
	parameter6   = 4
	route6       = 0
	admin6       = 1
	addr6        = 3
	port6        = 4
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
	// Info is the second word of the header: the MTU of a message that says
	// "too big", else 0.
	Info uint32
	// Quote is the guest's packet from its IP header on, of any length.
	Quote []byte
}

// Reject tells the guest that its packet f goes nowhere, if errno is a reason
// that a router would tell, and f not for many: of such packets RFC 1122 section
// 3.2.2 and RFC 4443 section 2.4 forbid it. f stays the caller's.
func (m *Error) Reject(e *env.Env, f *ring.Frame, errno sys.Errno) {
	if f.Bytes()[0]&1 != 0 {
		return
	}
	if m.about(e, f); m.Unreachable(errno) {
		m.Send(e)
	}
}

// RejectLong tells the guest that its packet f is longer than a link of mtu
// octets takes. f stays the caller's.
func (m *Error) RejectLong(e *env.Env, f *ring.Frame, mtu int) {
	if f.Bytes()[0]&1 != 0 && f.H.Dst.Is4() {
		return // ICMPv6 allows it, and path MTU discovery for groups needs it
	}
	m.about(e, f)
	m.TooBig(uint32(mtu))
	m.Send(e)
}

// about makes m one of ours about the guest's packet f.
func (m *Error) about(e *env.Env, f *ring.Frame) {
	m.From, m.To, m.Quote = Ours(e, &f.H.Dst), f.H.Src, f.Bytes()[f.H.L3:]
}

// Send builds the message in e.Out.
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

// Unreachable sets type and code to what a router would say in place of errno,
// and returns false if it would say nothing.
func (m *Error) Unreachable(errno sys.Errno) bool {
	v4, v6 := uint8(admin4), uint8(admin6)
	switch errno {
	case sys.ECONNREFUSED:
		v4, v6 = port4, port6
	case sys.EHOSTUNREACH, sys.EHOSTDOWN:
		v4, v6 = host4, addr6
	case sys.ENETUNREACH, sys.ENETDOWN:
		v4, v6 = net4, route6
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

// TooBig sets type and code for a packet that a link of mtu octets does not
// take.
func (m *Error) TooBig(mtu uint32) {
	m.Type, m.Code, m.Info = tooBig6, 0, mtu
	if m.From.Is4() {
		m.Type, m.Code, m.Info = unreachable4, tooBig4, mtu&0xffff // RFC 1191 section 4
	}
}

// Relay sets type and code to those of an error that a socket reported, and
// returns false for one that is not the guest's business.
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
		return m.Type == unreachable4 || m.Type == timeExceeded4 || m.Type == parameter4
	}
	return m.Type >= unreachable6 && m.Type <= parameter6
}

// Reporter is the address from which the guest hears of a fault: who reported
// it, or remote if that was peer, which is how the guest knows it; else, where
// nobody on the network reported it or the guest could not reach who did, us.
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

// Ours is our own address towards the guest, in remote's family, or remote
// itself where we have none.
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
