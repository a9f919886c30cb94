// Package dhcp is a DHCP server (RFC 2131) for the one guest. It leases one
// address, that of the rules, with an infinite lease, and gives mask, router,
// resolvers, MTU and host name (RFC 2132), search list (RFC 3397), FQDN
// (RFC 4702), and routes to a router that is not on the link (RFC 3442).
//
// DISCOVER is answered with OFFER, or with ACK if the client supports rapid commit
// (RFC 4039); REQUEST with ACK, or with NAK if it asks for another address, so
// that a client with an old lease starts again; INFORM with ACK without a lease.
// DECLINE and RELEASE change nothing. Relay agents are not supported: giaddr is
// copied, not used.
//
// The package has no state and no goroutine: package shard calls Input for each
// frame that Handles accepts, on the shard's thread, where nothing is allocated.
//
// Messages are parsed and built by hand. By comparison, insomniacslk/dhcp
// allocates 45 times per exchange, in a process without garbage collection; it
// does not support option overload; and it depends on 26 packages of three more
// modules, package log among them (0.6 MB).
package dhcp

import (
	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/env"
)

// Ports of server and client (RFC 2131 section 4.1).
const (
	serverPort = 67
	clientPort = 68
)

// Message types (RFC 2132 section 9.6); msgNone stands for no answer.
const (
	msgNone     = 0
	msgDiscover = 1
	msgOffer    = 2
	msgRequest  = 3
	msgDecline  = 4
	msgAck      = 5
	msgNak      = 6
	msgRelease  = 7
	msgInform   = 8
)

// MinMTU is the smallest MTU that can be announced (RFC 2132 section 5.1).
const MinMTU = 68

// Config is what the server gives besides the addresses of the rules. It is
// read-only once in use, and shared by all shards.
type Config struct {
	// Off ignores all messages (--no-dhcp).
	Off bool
	// MTU is announced, in octets, unless it is below MinMTU.
	MTU int
	// DNS are resolvers to announce, by their addresses inside; IPv6 ones
	// are left out.
	DNS []wire.Addr
	// Search are domains to announce, as text. Those that are not domain
	// names, or do not fit into the reply, are left out.
	Search []string
	// Hostname is announced as option 12; FQDN as option 81, to clients
	// that ask for it. Empty ones are not announced.
	Hostname, FQDN string
}

// Handles reports whether a frame with headers h, which wire.Parse has found whole
// and well-formed, is for Input.
func Handles(h *wire.Headers) bool {
	return !h.V6 && h.Proto == wire.ProtoUDP && h.DstPort == serverPort
}

// Input processes the message in f, whose headers Handles has accepted, and commits
// the reply, if any, to e.Out. f stays the caller's.
func Input(e *env.Env, c *Config, f *ring.Frame) {
	if c.Off {
		return
	}
	if !e.Rules.V4.On {
		e.Count.Drop(stats.FamilyOff)
		return
	}
	var q request
	if !q.parse(f) {
		e.Count.Drop(stats.Malformed)
		return
	}
	switch msgType := q.answer(&e.Rules.V4); msgType {
	case msgNone:
		if q.msgType != msgDecline && q.msgType != msgRelease {
			e.Count.Drop(stats.Unanswered)
		}
	default:
		reply(e, c, &q, msgType)
	}
}

// answer returns the type of the reply to q.
func (q *request) answer(f *fwd.Family) uint8 {
	switch {
	case f.Ours.IsZero(): // no server identifier
		return msgNone
	case q.msgType == msgInform && !q.ciaddr.IsUnspecified():
		return msgAck
	case f.Guest.IsZero():
		return msgNone
	case q.msgType == msgDiscover && q.rapidCommit:
		return msgAck
	case q.msgType == msgDiscover:
		return msgOffer
	case q.msgType == msgRequest:
		return q.answerRequest(f)
	}
	return msgNone
}

// answerRequest follows RFC 2131 section 4.3.2: in SELECTING state a client sends
// the server identifier and the address it was offered; in INIT-REBOOT the
// address; when it renews or rebinds, ciaddr.
func (q *request) answerRequest(f *fwd.Family) uint8 {
	addr := &q.requestedIP
	if addr.IsUnspecified() {
		addr = &q.ciaddr
	}
	switch {
	case !q.serverID.IsUnspecified() && q.serverID != f.Ours: // it selected another server
		return msgNone
	case addr.IsUnspecified():
		return msgNone
	case *addr != f.Guest:
		return msgNak
	}
	return msgAck
}
