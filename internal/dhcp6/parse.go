package dhcp6

import (
	"encoding/binary"

	"penne/internal/wire"
	"penne/ring"
)

// Options (RFC 8415 section 21, RFC 3646, RFC 4704).
const (
	optClientID    = 1
	optServerID    = 2
	optIANA        = 3 // non-temporary addresses
	optIATA        = 4 // temporary addresses
	optIAAddr      = 5
	optORO         = 6 // option request
	optStatusCode  = 13
	optRapidCommit = 14
	optDNS         = 23
	optSearch      = 24
	optIAPD        = 25 // prefix delegation
	optFQDN        = 39
)

// Lengths in octets.
const (
	lenHeader = 4       // type and transaction
	lenIANA   = 12      // IAID, T1, T2; of IA_PD too
	lenIATA   = 4       // IAID
	lenIAAddr = 24      // address, preferred and valid lifetime
	maxDUID   = 2 + 128 // RFC 8415 section 11.1
)

// request is a client's message. Slices alias the frame.
type request struct {
	msgType     uint8
	unicast     bool // sent to one server, not to all
	mac         wire.MAC
	src         wire.Addr
	header      []byte // type and transaction
	options     []byte
	clientID    []byte // nil if not given
	serverID    []byte // nil if not given
	rapidCommit bool
	hasIA       bool
	wantFQDN    bool
	fqdnFlag    uint8 // flags of the option, if the client sent it
}

// cursor iterates over options: code and v are those of the current one.
type cursor struct {
	rest []byte
	code uint16
	v    []byte
}

// next advances to the next option; false at the end, or at an option that is
// truncated.
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

// whole reports whether next ended because there was nothing left, rather than at
// a truncated option.
func (c *cursor) whole() bool { return len(c.rest) == 0 }

// lenIA is the length of an IA before its options; 0 if the option is not an IA.
func lenIA(code uint16) int {
	switch code {
	case optIANA, optIAPD:
		return lenIANA
	case optIATA:
		return lenIATA
	}
	return 0
}

// parse reads the message in f, whose headers are f.H; false if an option, or one
// inside an IA, is truncated or too short, or the checksum is wrong.
func (q *request) parse(f *ring.Frame) bool {
	b := f.L4Payload()
	if len(b) < lenHeader || f.Offload.GSOType != ring.GSONone || !sumOK(f) {
		return false
	}
	q.msgType, q.header, q.options = b[0], b[:lenHeader], b[lenHeader:]
	q.mac, q.src, q.unicast = wire.MAC(f.Bytes()[6:]), f.H.Src, f.H.Dst != allServers
	if q.mac.IsMulticast() || q.mac.IsZero() {
		return false
	}
	c := cursor{rest: q.options}
	for c.next() {
		if !q.parseOption(c.code, c.v) {
			return false
		}
	}
	return c.whole()
}

// sumOK verifies the UDP checksum, which IPv6 requires (RFC 8200 section 8.1),
// unless it is still to be computed.
func sumOK(f *ring.Frame) bool {
	none := binary.BigEndian.Uint16(f.Bytes()[f.H.L4+6:]) == 0
	return f.Offload.NeedsCsum || !none && f.H.SumOK(f.Bytes())
}

// parseOption reads one option; false if its length is wrong. Options that are not
// listed are ignored.
func (q *request) parseOption(code uint16, v []byte) bool {
	switch code {
	case optClientID:
		q.clientID = v
		return len(v) > 2 && len(v) <= maxDUID
	case optServerID:
		q.serverID = v
	case optRapidCommit:
		q.rapidCommit = true
	case optIANA, optIATA, optIAPD:
		q.hasIA = true
		return checkIA(code, v)
	case optORO:
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

// checkIA reports whether the options of the IA v are well-formed.
func checkIA(code uint16, v []byte) bool {
	head := lenIA(code)
	if len(v) < head {
		return false
	}
	c := cursor{rest: v[head:]}
	for c.next() {
		if c.code == optIAAddr && len(c.v) < lenIAAddr {
			return false
		}
	}
	return c.whole()
}

// holds reports whether the IAs of q have any addresses, and whether all of these
// are a.
func (q *request) holds(a *wire.Addr) (any, all bool) {
	all = true
	for c := (cursor{rest: q.options}); c.next(); {
		if c.code != optIANA && c.code != optIATA {
			continue
		}
		here, same := iaHolds(c.v[lenIA(c.code):], a)
		any, all = any || here, all && same
	}
	return any, all
}

// iaHolds is holds for the options of one IA.
func iaHolds(options []byte, a *wire.Addr) (any, all bool) {
	all = true
	for c := (cursor{rest: options}); c.next(); {
		if c.code == optIAAddr {
			any, all = true, all && wire.Addr6(c.v) == *a
		}
	}
	return any, all
}
