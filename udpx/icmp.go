package udpx

import (
	"encoding/binary"

	"penne/csum"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/env"
)

// ICMP error types and codes (RFC 792, RFC 1812 section 5.2.7.1, RFC 4443).
const (
	icmp4Unreachable  = 3
	icmp4TimeExceeded = 11
	icmp4Parameter    = 12
	icmp4NetCode      = 0
	icmp4HostCode     = 1
	icmp4PortCode     = 3
	icmp4TooBigCode   = 4
	icmp4AdminCode    = 13

	icmp6Unreachable = 1
	icmp6TooBig      = 2
	icmp6Parameter   = 4
	icmp6RouteCode   = 0
	icmp6AdminCode   = 1
	icmp6AddrCode    = 3
	icmp6PortCode    = 4
)

// quoteMax is the longest quote: an ICMPv6 error has at most 1280 octets
// (RFC 4443 section 2.4), an ICMP one 576 (RFC 1812 section 4.3.2.3).
const (
	quoteMax  = 1280 - wire.IPv6Len - wire.ICMPLen
	quoteMax4 = 576 - wire.IPv4Len - wire.ICMPLen
)

// ICMP is an ICMP or ICMPv6 error for the guest; From's family says which.
type ICMP struct {
	From, To   wire.Addr
	Type, Code uint8
	// Info is the second word of the header: the MTU of a message that says
	// "too big", else 0.
	Info uint32
	// Quote is the guest's packet from its IP header on, of any length.
	Quote []byte
}

// Send builds the message in e.Out.
func (m *ICMP) Send(e *env.Env) {
	proto, limit := uint8(wire.ProtoICMPv6), quoteMax
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
func (m *ICMP) Unreachable(errno sys.Errno) bool {
	v4, v6 := uint8(icmp4AdminCode), uint8(icmp6AdminCode)
	switch errno {
	case sys.ECONNREFUSED:
		v4, v6 = icmp4PortCode, icmp6PortCode
	case sys.EHOSTUNREACH:
		v4, v6 = icmp4HostCode, icmp6AddrCode
	case sys.ENETUNREACH:
		v4, v6 = icmp4NetCode, icmp6RouteCode
	case sys.EACCES, sys.EPERM, sys.EMFILE, sys.ENFILE, sys.ENOMEM:
	default:
		return false
	}
	m.Type, m.Code, m.Info = icmp6Unreachable, v6, 0
	if m.From.Is4() {
		m.Type, m.Code = icmp4Unreachable, v4
	}
	return true
}

// TooBig sets type and code for a packet that a link of mtu octets does not
// take.
func (m *ICMP) TooBig(mtu uint32) {
	m.Type, m.Code, m.Info = icmp6TooBig, 0, mtu
	if m.From.Is4() {
		m.Type, m.Code, m.Info = icmp4Unreachable, icmp4TooBigCode, mtu&0xffff // RFC 1191 section 4
	}
}

// Relay sets type and code to those of an error that a socket reported, and
// returns false for one that is not the guest's business.
func (m *ICMP) Relay(fault *sys.SocketFault) bool {
	if fault.Errno == sys.EMSGSIZE {
		m.TooBig(fault.Info)
		return true
	}
	if !fault.ICMP {
		return m.Unreachable(fault.Errno)
	}
	m.Type, m.Code, m.Info = fault.Type, fault.Code, 0
	if m.From.Is4() {
		return m.Type == icmp4Unreachable || m.Type == icmp4TimeExceeded || m.Type == icmp4Parameter
	}
	return m.Type >= icmp6Unreachable && m.Type <= icmp6Parameter
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
