// Package dhcp6 is a DHCPv6 server (RFC 8415) for the one guest. It leases one
// address, that of the rules, with infinite lifetimes, and gives resolvers and
// search list (RFC 3646) and FQDN (RFC 4704).
//
// The first IA_NA of a message gets the address; other IA_NAs and IA_TAs get
// NoAddrsAvail, IA_PDs NoPrefixAvail. A client that asks for another address,
// which the host had before, loses it: REQUEST and CONFIRM get NotOnLink, RENEW
// and REBIND get it back with lifetimes of zero, along with the one to use.
// RELEASE and DECLINE get Success and change nothing.
//
// The package has no state and no goroutine: package shard calls Input for each
// frame that Handles accepts, on the shard's thread, where nothing is allocated.
// See package dhcp for why no library is used.
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

// Message types (RFC 8415 section 7.3); msgNone stands for no answer.
const (
	msgNone        = 0
	msgSolicit     = 1
	msgAdvertise   = 2
	msgRequest     = 3
	msgConfirm     = 4
	msgRenew       = 5
	msgRebind      = 6
	msgReply       = 7
	msgRelease     = 8
	msgDecline     = 9
	msgInformation = 11
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

// Config is what the server gives besides the address of the rules. It is
// read-only once in use, and shared by all shards.
type Config struct {
	// Off ignores all messages (--no-dhcpv6).
	Off bool
	// DNS are resolvers to announce, by their addresses inside; IPv4 ones
	// are left out.
	DNS []wire.Addr
	// Search are domains to announce, as text. Those that are not domain
	// names, or do not fit into the reply, are left out.
	Search []string
	// FQDN is the guest's, for clients that ask for it; none if empty.
	FQDN string
}

// Handles reports whether a frame with headers h, which wire.Parse has found whole
// and well-formed, is for Input: a message to all servers on the link, or to a
// link-local address.
func Handles(h *wire.Headers) bool {
	return h.V6 && h.Proto == wire.ProtoUDP && h.DstPort == serverPort && (h.Dst == allServers || h.Dst.IsLinkLocal())
}

// Input processes the message in f, whose headers Handles has accepted, and commits
// the reply, if any, to e.Out. f stays the caller's.
func Input(e *env.Env, c *Config, f *ring.Frame) {
	if c.Off {
		return
	}
	if !e.Rules.V6.On {
		e.Count.Drop(stats.FamilyOff)
		return
	}
	if !f.H.Src.IsLinkLocal() { // which is where the reply goes
		e.Count.Drop(stats.BadSource)
		return
	}
	var q request
	if !q.parse(f) {
		e.Count.Drop(stats.Malformed)
		return
	}
	a := answer{msgType: msgNone}
	if !e.Rules.LinkLocal6.IsZero() { // else we have no source address
		a = q.answer(e.Rules)
	}
	if a.msgType == msgNone {
		e.Count.Drop(stats.Unanswered)
		return
	}
	reply(e, c, &q, &a)
}

// answer says what to reply to a message.
type answer struct {
	msgType uint8
	// A reply has either a status code only, or IAs and other options.
	statusOnly bool
	status     uint16
}

// answer follows RFC 8415 sections 16 and 18.3.
func (q *request) answer(r *fwd.Rules) answer {
	named := q.serverID != nil
	if named && !isServer(q.serverID, &r.OurMAC) {
		return answer{msgType: msgNone} // for another server
	}
	switch q.msgType {
	case msgSolicit, msgConfirm, msgRebind:
		if named || q.clientID == nil || q.unicast {
			return answer{msgType: msgNone}
		}
	case msgRequest, msgRenew, msgRelease, msgDecline:
		if !named || q.clientID == nil {
			return answer{msgType: msgNone}
		}
		if q.unicast {
			return answer{msgReply, true, statusUseMulticast}
		}
	case msgInformation:
		if q.hasIA || q.unicast {
			return answer{msgType: msgNone}
		}
	default:
		return answer{msgType: msgNone}
	}
	return q.answerValid(r)
}

// answerValid is for a message that is valid for its type.
func (q *request) answerValid(r *fwd.Rules) answer {
	switch {
	case q.msgType == msgSolicit && !q.rapidCommit:
		return answer{msgType: msgAdvertise}
	case q.msgType == msgRelease, q.msgType == msgDecline:
		return answer{msgReply, true, statusSuccess}
	case q.msgType != msgConfirm:
		return answer{msgType: msgReply}
	}
	switch any, all := q.holds(&r.V6.Guest); {
	case !any: // section 18.3.3: no reply
		return answer{msgType: msgNone}
	case all:
		return answer{msgReply, true, statusSuccess}
	}
	return answer{msgReply, true, statusNotOnLink}
}
