// Package ndp is our side of IPv6 neighbour discovery (RFC 4861) on the guest's
// link: it answers Neighbour Solicitations with our Ethernet address and Router
// Solicitations with a Router Advertisement from which the guest configures
// itself (RFC 4862), resolvers and search list included (RFC 8106).
//
// A solicitation is answered whatever address it asks for, since everything but
// the guest is reached through us. Solicitations for the guest's own addresses,
// configured or last seen, are never answered. Duplicate address detection
// (unspecified source) is answered only for addresses that stand for us inside:
// the guest asks whether it may use an address, and any other one is free.
// Advertisements and redirects of the guest are ignored, except for noting their
// source addresses.
//
// Received messages are validated as RFC 4861 sections 6.1.1 and 7.1.1 require:
// hop limit 255, checksum, code, lengths of the message and of each option.
//
// A Responder belongs to one shard, which calls Input on its thread for each
// frame that Handles accepts. It keeps no state about the guest. Messages are
// built and parsed by hand, with internal/wire: they are few, and this way
// nothing is allocated.
package ndp

import (
	"slices"
	"time"

	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/env"
)

// Types of ICMPv6 messages of neighbour discovery (RFC 4861 section 4).
const (
	typeRS       = 133
	typeRA       = 134
	typeNS       = 135
	typeNA       = 136
	typeRedirect = 137
)

// hopLimit is the only valid one in neighbour discovery: it proves that no router
// has forwarded the message.
const hopLimit = 255

// RouterLifetime is how long the guest may use us as its router after an
// advertisement: the maximum of the field (RFC 8319 section 4). Advertise must be
// called well before it has passed.
const RouterLifetime = 65535 * time.Second

// node is a sender or receiver on the guest's link: its addresses.
type node struct {
	addr wire.Addr
	mac  wire.MAC
}

// allNodes is the group of all nodes (RFC 4291 section 2.7.1, RFC 2464 section 7).
var allNodes = node{wire.Addr{0: 0xff, 1: 0x02, 15: 1}, wire.MAC{0x33, 0x33, 0, 0, 0, 1}}

// Config says what is answered and announced.
type Config struct {
	// Off ignores all messages (--no-ndp); NoRA ignores Router
	// Solicitations, and makes Advertise do nothing (--no-ra).
	Off, NoRA bool
	// Configured says that the guest gets addresses and routes by other
	// means (--config-net): advertisements have no prefix, from which it
	// would make another address, and no router. They still end its
	// solicitations, and have all that follows.
	Configured bool
	// Managed and Other are the flags that make the guest use DHCPv6, for
	// addresses or for other configuration (RFC 4861 section 4.2).
	Managed, Other bool
	// MTU is announced, in octets; 0 announces none.
	MTU int
	// DNS are resolvers to announce, by their addresses inside; IPv4 ones,
	// and those beyond maxDNS, are left out.
	DNS []wire.Addr
	// Search are domains to announce, as text; see Responder.LeftOut.
	Search []string
}

// Responder answers the guest on behalf of one shard.
type Responder struct {
	cfg       Config
	options   []byte // RDNSS and DNSSL, as they go into each advertisement
	leftOut   []string
	withdrawn withdrawn
}

// New makes a Responder.
func New(c Config) *Responder {
	c.DNS = slices.DeleteFunc(slices.Clone(c.DNS), func(a wire.Addr) bool { return a.Is4() || a.IsZero() })
	c.DNS = c.DNS[:min(len(c.DNS), maxDNS)]
	r := &Responder{cfg: c}
	r.options = appendRDNSS(nil, c.DNS, forever)
	r.options, r.leftOut = appendDNSSL(r.options, c.Search, forever)
	return r
}

// LeftOut are the search domains that cannot be announced: they are not domain
// names, or do not fit.
func (r *Responder) LeftOut() []string { return r.leftOut }

// Handles reports whether a frame with headers h, whole and well-formed as
// wire.Parse saw it, is for Input.
func Handles(h *wire.Headers) bool {
	typ := h.DstPort >> 8
	return h.V6 && h.Proto == wire.ProtoICMPv6 && typ >= typeRS && typ <= typeRedirect
}

// Input processes the message in f, whose headers Handles has accepted: it notes
// the guest's addresses, and commits the answer, if any, to e.Out. f stays the
// caller's.
func (r *Responder) Input(e *env.Env, f *ring.Frame) {
	if r.cfg.Off {
		return
	}
	if !e.Rules.V6.On {
		e.Count.Drop(stats.FamilyOff)
		return
	}
	var m message
	if !m.parse(f) {
		e.Count.Drop(stats.Malformed)
		return
	}
	own := isGuests(&m.target, e.Rules, e.Guest)
	e.Guest.SawMAC(&m.src.mac)
	e.Guest.SawAddr(&m.src.addr)
	switch m.typ {
	case typeNS:
		if !own && m.forUs(e.Rules) {
			sendNA(e, &m)
		}
	case typeRS:
		if m.forUs(e.Rules) {
			r.advertise(e, &m.src)
		}
	}
}

// Advertise commits an unsolicited Router Advertisement to all nodes, and one that
// withdraws what is no longer announced. To be called after a change, and well
// within RouterLifetime.
func (r *Responder) Advertise(e *env.Env) {
	if !r.cfg.Off && e.Rules.V6.On {
		r.advertise(e, &allNodes)
		r.withdraw(e)
	}
}

// forUs reports whether m was sent to us or to a group, and if it is for duplicate
// address detection, whether the address stands for us. The caller excludes the
// guest's own addresses.
func (m *message) forUs(r *fwd.Rules) bool {
	switch {
	case !m.dstMAC.IsMulticast() && m.dstMAC != r.OurMAC:
		return false
	case m.typ == typeNS && m.src.addr.IsUnspecified(): // duplicate address detection
		return isOurs(&m.target, r)
	}
	return true
}

// isGuests reports whether a is an address of the guest, as far as is known.
func isGuests(a *wire.Addr, r *fwd.Rules, g *fwd.Guest) bool {
	return *a == r.V6.Guest || *a == g.Addr(a, r)
}

// isOurs reports whether a stands for us, or for something on the host, inside.
func isOurs(a *wire.Addr, r *fwd.Rules) bool {
	f := &r.V6
	return *a == f.Gateway || *a == f.Ours || *a == f.HostLoopback || *a == f.GuestMap || *a == f.DNSForward ||
		*a == linkLocal(r)
}

// isRouter reports whether a is an address of ours that may be the guest's default
// router: an advertisement for it without the flag would make the guest remove
// its route (RFC 4861 section 7.2.5).
func isRouter(a *wire.Addr, r *fwd.Rules) bool { return *a == r.V6.Gateway || *a == linkLocal(r) }

// linkLocal is our link-local address: that of the rules, else the one made from
// our Ethernet address (RFC 4291 appendix A).
func linkLocal(r *fwd.Rules) wire.Addr {
	if !r.LinkLocal6.IsZero() {
		return r.LinkLocal6
	}
	m := &r.OurMAC
	return wire.Addr{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]}
}
