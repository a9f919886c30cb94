package dhcp6

import (
	"encoding/binary"

	"penne/internal/wire"
	"penne/ring"
)

// Options (RFC 8415 section 21, RFC 3646, RFC 4704).
const (
	optClientID = 1
	optServerID = 2
	optNA       = 3 // non-temporary addresses
	optTA       = 4 // temporary addresses
	optAddr     = 5
	optAsked    = 6 // option request
	optStatus   = 13
	optRapid    = 14
	optDNS      = 23
	optSearch   = 24
	optPD       = 25 // prefix delegation
	optFQDN     = 39
)

// Lengths in octets.
const (
	lenHead = 4       // type and transaction
	lenNA   = 12      // IAID, T1, T2; of optPD too
	lenTA   = 4       // IAID
	lenAddr = 24      // address, preferred and valid lifetime
	maxDUID = 2 + 128 // RFC 8415 section 11.1
)

// request is what a client's message tells. Slices alias the frame.
type request struct {
	kind     uint8
	unicast  bool // sent to one server, not to all
	mac      wire.MAC
	src      wire.Addr
	head     []byte // type and transaction
	options  []byte
	clientID []byte // nil if not given
	serverID []byte // nil if not given
	rapid    bool
	hasIA    bool
	wantFQDN bool
	fqdnFlag uint8 // flags of the option, if the client sent it
}

// cursor walks options: code and v are those of the option that next found.
type cursor struct {
	rest []byte
	code uint16
	v    []byte
}

// next finds the next option; false at the end, which is before the end of the
// octets if an option runs past it.
func (c *cursor) next() bool {
	if len(c.rest) < 4 {
		return false
	}
	end := 4 + int(binary.BigEndian.Uint16(c.rest[2:]))
	if len(c.rest) < end {
		return false
	}
	c.code, c.v = binary.BigEndian.Uint16(c.rest), c.rest[4:end]
	c.rest = c.rest[end:]
	return true
}

// whole tells, when next has found no more, whether all octets were options.
func (c *cursor) whole() bool { return len(c.rest) == 0 }

// iaHead is what stands before the options of an association; 0 for an option
// that is none.
func iaHead(code uint16) int {
	switch code {
	case optNA, optPD:
		return lenNA
	case optTA:
		return lenTA
	}
	return 0
}

// parse reads the message in f by f.H; false if an option, or one inside an
// association, is cut off or too short, or the message changed on the way.
func (q *request) parse(f *ring.Frame) bool {
	b := f.L4Payload()
	if len(b) < lenHead || f.Offload.GSOType != ring.GSONone || !intact(f) {
		return false
	}
	q.kind, q.head, q.options = b[0], b[:lenHead], b[lenHead:]
	q.mac, q.src, q.unicast = wire.MAC(f.Bytes()[6:]), f.H.Src, f.H.Dst != allServers
	if q.mac.IsMulticast() || q.mac.IsZero() {
		return false
	}
	c := cursor{rest: q.options}
	for c.next() {
		if !q.option(c.code, c.v) {
			return false
		}
	}
	return c.whole()
}

// intact verifies the UDP checksum, which IPv6 demands (RFC 8200 section 8.1),
// unless it is still to be computed.
func intact(f *ring.Frame) bool {
	none := binary.BigEndian.Uint16(f.Bytes()[f.H.L4+6:]) == 0
	return f.Offload.NeedsCsum || !none && f.H.SumOK(f.Bytes())
}

// option takes over one option; false if it is too short. Those that are not
// listed have nothing to say to us.
func (q *request) option(code uint16, v []byte) bool {
	switch code {
	case optClientID:
		q.clientID = v
		return len(v) > 2 && len(v) <= maxDUID
	case optServerID:
		q.serverID = v
	case optRapid:
		q.rapid = true
	case optNA, optTA, optPD:
		q.hasIA = true
		return association(code, v)
	case optAsked:
		for ; len(v) >= 2; v = v[2:] {
			q.wantFQDN = q.wantFQDN || binary.BigEndian.Uint16(v) == optFQDN
		}
		return len(v) == 0
	case optFQDN:
		if len(v) == 0 {
			return false
		}
		q.wantFQDN, q.fqdnFlag = true, v[0]
	}
	return true
}

// association checks the inside of one.
func association(code uint16, v []byte) bool {
	head := iaHead(code)
	if len(v) < head {
		return false
	}
	c := cursor{rest: v[head:]}
	for c.next() {
		if c.code == optAddr && len(c.v) < lenAddr {
			return false
		}
	}
	return c.whole()
}

// holds tells whether the associations of q hold any addresses, and whether all
// of them are a.
func (q *request) holds(a *wire.Addr) (any, all bool) {
	all = true
	for c := (cursor{rest: q.options}); c.next(); {
		if c.code != optNA && c.code != optTA {
			continue
		}
		here, same := held(c.v[iaHead(c.code):], a)
		any, all = any || here, all && same
	}
	return any, all
}

// held is holds for the options of one association.
func held(options []byte, a *wire.Addr) (any, all bool) {
	all = true
	for c := (cursor{rest: options}); c.next(); {
		if c.code == optAddr {
			any, all = true, all && wire.Addr6(c.v) == *a
		}
	}
	return any, all
}
