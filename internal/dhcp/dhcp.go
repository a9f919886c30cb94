// Package dhcp is the DHCP server (RFC 2131) of the one guest: it leases the one
// address of the rules, for ever, and tells what goes with it (RFC 2132): mask,
// router, resolvers, MTU, host name, search list (RFC 3397), full name
// (RFC 4702), and routes to a router that is not on the link (RFC 3442).
//
// DISCOVER is answered by an OFFER, or by an ACK where the client allows that
// (RFC 4039); REQUEST by an ACK, or by a NAK if it asks for another address, so
// that a client with an old lease starts again; INFORM by an ACK without a
// lease. DECLINE and RELEASE change nothing, and relay agents are not expected:
// giaddr is copied, not used.
//
// The package keeps no state and starts nothing; package shard calls Input for
// each frame that Is says is ours, on the shard's thread, and nothing is
// allocated there.
//
// The messages are read and written by hand. Measured against that,
// insomniacslk/dhcp allocates 45 times an exchange, on the thread of a process
// that collects no garbage; it does not know option overload; and it brings 26
// packages of three more modules along, package log among them (0.6 MB).
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

// Message types (RFC 2132 section 9.6); kindNone stands for no answer.
const (
	kindNone     = 0
	kindDiscover = 1
	kindOffer    = 2
	kindRequest  = 3
	kindDecline  = 4
	kindAck      = 5
	kindNak      = 6
	kindRelease  = 7
	kindInform   = 8
)

// MinMTU is the least MTU that can be announced (RFC 2132 section 5.1).
const MinMTU = 68

// Config says what the server tells beyond the rules' addresses. It is read-only
// once in use, and shared by all shards.
type Config struct {
	// Off ignores all messages (--no-dhcp).
	Off bool
	// MTU is announced, in octets; below MinMTU announces none.
	MTU int
	// DNS are resolvers to announce, as the guest sees them; IPv6 ones are
	// left out.
	DNS []wire.Addr
	// Search are domains to announce, as text. Those that are no domain
	// names, or for which there is no room in a reply, are left out.
	Search []string
	// Hostname is announced as option 12; FQDN as option 81, to clients
	// that know it. Empty announces none.
	Hostname, FQDN string
}

// Is tells whether a frame with headers h, whole and well-formed as wire.Parse
// saw it, is for Input.
func Is(h *wire.Headers) bool {
	return !h.V6 && h.Proto == wire.ProtoUDP && h.DstPort == serverPort
}

// Input reads the message in f, whose headers f.H Is accepted, and commits the
// reply, if there is one, to e.Out. f stays the caller's.
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
	switch kind := q.answer(&e.Rules.V4); kind {
	case kindNone:
		if q.kind != kindDecline && q.kind != kindRelease {
			e.Count.Drop(stats.Unanswered)
		}
	default:
		reply(e, c, &q, kind)
	}
}

// answer is the type of the reply to q.
func (q *request) answer(f *fwd.Family) uint8 {
	switch {
	case f.Ours.IsZero(): // we cannot be named
		return kindNone
	case q.kind == kindInform && !q.client.IsUnspecified():
		return kindAck
	case f.Guest.IsZero():
		return kindNone
	case q.kind == kindDiscover && q.rapid:
		return kindAck
	case q.kind == kindDiscover:
		return kindOffer
	case q.kind == kindRequest:
		return q.answerRequest(f)
	}
	return kindNone
}

// answerRequest follows RFC 2131 section 4.3.2: a client that selects names the
// server and the address it was offered; one that reboots names the address;
// one that renews or rebinds has it as its own.
func (q *request) answerRequest(f *fwd.Family) uint8 {
	wanted := &q.wanted
	if wanted.IsUnspecified() {
		wanted = &q.client
	}
	switch {
	case !q.server.IsUnspecified() && q.server != f.Ours: // it selected another server
		return kindNone
	case wanted.IsUnspecified():
		return kindNone
	case *wanted != f.Guest:
		return kindNak
	}
	return kindAck
}
