package dhcp

import (
	"encoding/binary"

	"penne/internal/wire"
	"penne/ring"
)

// Layout of a message (RFC 2131 section 2): offsets and lengths in octets.
const (
	offXID     = 4
	offFlags   = 10
	offClient  = 12 // ciaddr
	offYour    = 16 // yiaddr
	offRelay   = 24 // giaddr
	offHW      = 28 // chaddr
	offName    = 44 // sname
	offFile    = 108
	offMagic   = 236
	offOptions = 240

	opRequest = 1
	opReply   = 2
	magic     = 0x63825363
	// ethernet is htype 1 with hlen 6, as they stand behind op.
	ethernet = 1<<8 | 6
	// flagBroadcast asks for replies to everybody (RFC 2131 section 4.1).
	flagBroadcast = 0x8000
)

// Options (RFC 2132, and the RFCs named in the package's comment).
const (
	optPad       = 0
	optMask      = 1
	optRouter    = 3
	optDNS       = 6
	optHostname  = 12
	optMTU       = 26
	optRequested = 50
	optLease     = 51
	optOverload  = 52
	optKind      = 53
	optServer    = 54
	optParams    = 55
	optMaxLen    = 57
	optClientID  = 61
	optRapid     = 80
	optFQDN      = 81
	optSearch    = 119
	optRoutes    = 121
	optEnd       = 255
)

// Values of option 52 (RFC 2132 section 9.3), which may be combined.
const (
	overloadFile = 1
	overloadName = 2
)

// request is what a client's message tells. Addresses that it does not give are
// unspecified.
type request struct {
	head     []byte // the message before its options, aliasing the frame
	kind     uint8
	mac      wire.MAC
	client   wire.Addr // ciaddr
	wanted   wire.Addr // option 50
	server   wire.Addr // option 54
	maxLen   uint16    // option 57
	overload uint8     // option 52
	rapid    bool      // option 80
	wantFQDN bool      // option 81 is there, or asked for
	hasFQDN  bool
	fqdnFlag uint8  // flags of option 81
	clientID []byte // option 61, aliasing the frame
}

// parse reads the message in f by f.H; false if it is none of a client on
// Ethernet, or cut off, or changed on the way.
func (q *request) parse(f *ring.Frame) bool {
	b := f.L4Payload()
	if len(b) < offOptions || f.Offload.GSOType != ring.GSONone || !intact(f) {
		return false
	}
	q.head, q.client = b[:offOptions], wire.Addr4(b[offClient:])
	q.mac = wire.MAC(b[offHW:])
	switch {
	case b[0] != opRequest, binary.BigEndian.Uint16(b[1:]) != ethernet, binary.BigEndian.Uint32(b[offMagic:]) != magic:
		return false
	case q.mac.IsMulticast(), q.mac.IsZero():
		return false
	}
	return q.options(b[offOptions:]) && q.overloaded(b)
}

// intact verifies the UDP checksum, unless there is none or it is still to be
// computed.
func intact(f *ring.Frame) bool {
	none := binary.BigEndian.Uint16(f.Bytes()[f.H.L4+6:]) == 0
	return none || f.Offload.NeedsCsum || f.H.SumOK(f.Bytes())
}

// overloaded reads options in the fields for the boot file and the server's
// name, if option 52 says that they hold some.
func (q *request) overloaded(b []byte) bool {
	if q.overload&overloadFile != 0 && !q.options(b[offFile:offMagic]) {
		return false
	}
	return q.overload&overloadName == 0 || q.options(b[offName:offFile])
}

// options reads the options b; false if one runs past the end. The End option
// may be missing.
func (q *request) options(b []byte) bool {
	for len(b) > 0 && b[0] != optEnd {
		if b[0] == optPad {
			b = b[1:]
			continue
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return false
		}
		end := 2 + int(b[1])
		if !q.option(b[0], b[2:end]) {
			return false
		}
		b = b[end:]
	}
	return true
}

// option takes over one option; false if its length is not what its code asks
// for. Those that are not listed have nothing to say to us.
func (q *request) option(code uint8, v []byte) bool {
	switch code {
	case optKind, optOverload:
		return q.octet(code, v)
	case optRequested:
		return address(&q.wanted, v)
	case optServer:
		return address(&q.server, v)
	case optMaxLen:
		if len(v) != 2 {
			return false
		}
		q.maxLen = binary.BigEndian.Uint16(v)
	case optRapid:
		q.rapid = true
	case optClientID:
		q.clientID = v
	case optFQDN:
		if len(v) < 3 {
			return false
		}
		q.wantFQDN, q.hasFQDN, q.fqdnFlag = true, true, v[0]
	case optParams:
		for _, c := range v {
			q.wantFQDN = q.wantFQDN || c == optFQDN
		}
	}
	return true
}

func (q *request) octet(code uint8, v []byte) bool {
	if len(v) != 1 {
		return false
	}
	if code == optKind {
		q.kind = v[0]
	} else {
		q.overload = v[0]
	}
	return true
}

func address(a *wire.Addr, v []byte) bool {
	if len(v) != 4 {
		return false
	}
	*a = wire.Addr4(v)
	return true
}
