// Package dhcp6 is the DHCPv6 server (RFC 8415) of the one guest: it leases the
// one address of the rules, for ever, and tells resolvers, search list
// (RFC 3646) and full name (RFC 4704).
//
// The first non-temporary association of a message gets the address; others, and
// temporary ones, hear that there are no more addresses, and delegations that
// there are no prefixes. A client that comes with another address, from a host
// that was another one before, loses it: REQUEST and CONFIRM are told that it is
// not on the link, RENEW and REBIND get it back with no time left next to the one
// to use. RELEASE and DECLINE are confirmed and change nothing.
//
// The package keeps no state and starts nothing; package shard calls Input for
// each frame that Is says is ours, on the shard's thread, and nothing is
// allocated there. See package dhcp for why no library is used.
package dhcp6

import (
	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/env"
)

// Ports of server and client (RFC 8415 section 7.2).
const (
	serverPort = 547
	clientPort = 546
)

// Message types (RFC 8415 section 7.3); kindNone stands for no answer.
const (
	kindNone      = 0
	kindSolicit   = 1
	kindAdvertise = 2
	kindRequest   = 3
	kindConfirm   = 4
	kindRenew     = 5
	kindRebind    = 6
	kindReply     = 7
	kindRelease   = 8
	kindDecline   = 9
	kindInfo      = 11
)

// Status codes (RFC 8415 section 21.13).
const (
	statusSuccess      = 0
	statusNoAddrs      = 2
	statusNoBinding    = 3
	statusNotOnLink    = 4
	statusUseMulticast = 5
	statusNoPrefix     = 6
)

// allServers is All_DHCP_Relay_Agents_and_Servers (RFC 8415 section 7.1).
var allServers = wire.Addr{0: 0xff, 1: 0x02, 13: 1, 15: 2}

// Config says what the server tells beyond the rules' address. It is read-only
// once in use, and shared by all shards.
type Config struct {
	// Off ignores all messages (--no-dhcpv6).
	Off bool
	// DNS are resolvers to announce, as the guest sees them; IPv4 ones are
	// left out.
	DNS []wire.Addr
	// Search are domains to announce, as text. Those that are no domain
	// names, or for which there is no room in a reply, are left out.
	Search []string
	// FQDN is the guest's full name, told to clients that know the option.
	// Empty tells none.
	FQDN string
}

// Is tells whether a frame with headers h, whole and well-formed as wire.Parse
// saw it, is for Input: a message to all servers on the link, or to one on it.
func Is(h *wire.Headers) bool {
	return h.V6 && h.Proto == wire.ProtoUDP && h.DstPort == serverPort && (h.Dst == allServers || h.Dst.IsLinkLocal())
}

// Input reads the message in f, whose headers f.H Is accepted, and commits the
// reply, if there is one, to e.Out. f stays the caller's.
func Input(e *env.Env, c *Config, f *ring.Frame) {
	if c.Off {
		return
	}
	if !e.Rules.V6.On {
		e.Count.Drop(stats.FamilyOff)
		return
	}
	if !f.H.Src.IsLinkLocal() { // where the client is to be answered
		e.Count.Drop(stats.BadSource)
		return
	}
	var q request
	if !q.parse(f) {
		e.Count.Drop(stats.Malformed)
		return
	}
	a := answer{kind: kindNone}
	if !e.Rules.LinkLocal6.IsZero() { // else we cannot be named
		a = q.answer(e.Rules)
	}
	if a.kind == kindNone {
		e.Count.Drop(stats.Unanswered)
		return
	}
	reply(e, c, &q, &a)
}

// answer says how a message is replied to.
type answer struct {
	kind uint8
	// A reply either carries a status alone, or associations and what else
	// there is to tell.
	alone  bool
	status uint16
}

// answer follows RFC 8415 sections 16 and 18.3.
func (q *request) answer(r *fwd.Rules) answer {
	named := q.serverID != nil
	if named && !isServer(q.serverID, &r.OurMAC) {
		return answer{kind: kindNone} // for another server
	}
	switch q.kind {
	case kindSolicit, kindConfirm, kindRebind:
		if named || q.clientID == nil || q.unicast {
			return answer{kind: kindNone}
		}
	case kindRequest, kindRenew, kindRelease, kindDecline:
		if !named || q.clientID == nil {
			return answer{kind: kindNone}
		}
		if q.unicast {
			return answer{kindReply, true, statusUseMulticast}
		}
	case kindInfo:
		if q.hasIA || q.unicast {
			return answer{kind: kindNone}
		}
	default:
		return answer{kind: kindNone}
	}
	return q.answerValid(r)
}

// answerValid is for a message that has what its type demands.
func (q *request) answerValid(r *fwd.Rules) answer {
	switch {
	case q.kind == kindSolicit && !q.rapid:
		return answer{kind: kindAdvertise}
	case q.kind == kindRelease, q.kind == kindDecline:
		return answer{kindReply, true, statusSuccess}
	case q.kind != kindConfirm:
		return answer{kind: kindReply}
	}
	switch any, all := q.holds(&r.V6.Guest); {
	case !any: // section 18.3.3: no reply
		return answer{kind: kindNone}
	case all:
		return answer{kindReply, true, statusSuccess}
	}
	return answer{kindReply, true, statusNotOnLink}
}
