// Package ndp is our side of IPv6 neighbour discovery (RFC 4861) on the guest's
// link: it answers Neighbour Solicitations with our Ethernet address and Router
// Solicitations with a Router Advertisement from which the guest configures
// itself (RFC 4862), resolvers and search list included (RFC 8106).
//
// A solicitation is answered whatever address it asks for, since everything
// that is not the guest is reached through us. Never answered are the guest's
// own addresses, the configured one and those last seen. Duplicate address
// detection (source unspecified) is answered only for addresses that stand for
// us inside: with it the guest asks whether it may have an address, and any
// other is free for it. Advertisements and redirects of the guest are not
// listened to, but for the addresses they come from.
//
// Received messages are checked as RFC 4861 sections 6.1.1 and 7.1.1 ask: hop
// limit 255, checksum, code, lengths of the message and of each option.
//
// A Responder belongs to one shard, which calls Input for each frame that
// Handles says is ours, on its thread. It keeps no state about the guest. The
// builder and the parser are written by hand on internal/wire: the messages are
// few, and the data path's memory is filled without allocating.
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

// hops is the only hop limit of neighbour discovery: it proves that no router
// was in between.
const hops = 255

// RouterLifetime is for how long the guest may use us as its router after an
// advertisement: the most that the field can say (RFC 8319 section 4). Advertise
// must be called well before it has passed.
const RouterLifetime = 65535 * time.Second

var (
	allNodes    = wire.Addr{0: 0xff, 1: 0x02, 15: 1}
	allNodesMAC = wire.MAC{0x33, 0x33, 0, 0, 0, 1}
)

// Config says what is answered and announced.
type Config struct {
	// Off ignores all messages (--no-ndp); NoRA ignores Router
	// Solicitations, and makes Advertise do nothing (--no-ra).
	Off, NoRA bool
	// Configured is for a guest whose addresses and routes are set by other
	// means (--config-net): advertisements name no prefix, of which it would
	// make itself an address more, and no router. They still end its
	// solicitations, and carry what follows.
	Configured bool
	// Managed and Other are the flags that send the guest to a DHCPv6
	// server, for addresses or for the rest (RFC 4861 section 4.2).
	Managed, Other bool
	// MTU is announced, in octets; 0 announces none.
	MTU int
	// DNS are resolvers to announce, as the guest sees them; IPv4 ones are
	// left out, and those past maxDNS.
	DNS []wire.Addr
	// Search are domains to announce, as text; see Responder.LeftOut.
	Search []string
}

// Responder answers for one shard.
type Responder struct {
	cfg     Config
	options []byte // RDNSS and DNSSL, as they go into each advertisement
	leftOut []string
	gone    gone
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

// LeftOut are the search domains that cannot be announced: they are no domain
// names, or there are too many for one option.
func (r *Responder) LeftOut() []string { return r.leftOut }

// Handles tells whether a frame with headers h, whole and well-formed as
// wire.Parse saw it, is for Input.
func Handles(h *wire.Headers) bool {
	typ := h.DstPort >> 8
	return h.V6 && h.Proto == wire.ProtoICMPv6 && typ >= typeRS && typ <= typeRedirect
}

// Input reads the message in f, whose headers f.H Handles accepted, notes what
// it tells about the guest, and commits the answer, if there is one, to e.Out. f
// stays the caller's.
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
	e.Guest.SawMAC(&m.mac)
	e.Guest.SawAddr(&m.src)
	switch m.typ {
	case typeNS:
		if !own && m.forUs(e.Rules) {
			sendNA(e, &m)
		}
	case typeRS:
		if m.forUs(e.Rules) {
			r.advertise(e, &m.src, &m.mac)
		}
	}
}

// Advertise commits an unsolicited Router Advertisement to all nodes, and one
// that withdraws what earlier ones said: after a change of what is announced,
// and often enough for RouterLifetime.
func (r *Responder) Advertise(e *env.Env) {
	if !r.cfg.Off && e.Rules.V6.On {
		r.advertise(e, &allNodes, &allNodesMAC)
		r.withdraw(e)
	}
}

// forUs tells whether m was sent to us or to a group, and if it is a
// solicitation for an address, whether we answer for that one. The guest's own
// addresses are the caller's to except.
func (m *message) forUs(r *fwd.Rules) bool {
	switch {
	case !m.dstMAC.IsMulticast() && m.dstMAC != r.OurMAC:
		return false
	case m.typ == typeNS && m.src.IsUnspecified(): // duplicate address detection
		return isOurs(&m.target, r)
	}
	return true
}

// isGuests tells whether a is an address of the guest, as far as is known.
func isGuests(a *wire.Addr, r *fwd.Rules, g *fwd.Guest) bool {
	return *a == r.V6.Guest || *a == g.Addr(a, r)
}

// isOurs tells whether a stands for us, or for something on the host, inside.
func isOurs(a *wire.Addr, r *fwd.Rules) bool {
	f := &r.V6
	return *a == f.Gateway || *a == f.Ours || *a == f.HostLoopback || *a == f.GuestMap || *a == f.DNSForward ||
		*a == linkLocal(r)
}

// isRouter tells whether a is an address of ours that a default route of the
// guest may name. Saying so for others would be untrue, denying it for these
// would take the guest's route away (RFC 4861 section 7.2.5).
func isRouter(a *wire.Addr, r *fwd.Rules) bool { return *a == r.V6.Gateway || *a == linkLocal(r) }

// linkLocal is our link-local address: what the rules say, or, if nothing, the
// one that belongs to our Ethernet address (RFC 4291 appendix A).
func linkLocal(r *fwd.Rules) wire.Addr {
	if !r.LinkLocal6.IsZero() {
		return r.LinkLocal6
	}
	m := &r.OurMAC
	return wire.Addr{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]}
}
