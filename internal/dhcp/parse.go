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
	offCiaddr  = 12 // ciaddr
	offYiaddr  = 16 // yiaddr
	offGiaddr  = 24 // giaddr
	offChaddr  = 28 // chaddr
	offSname   = 44 // sname
	offFile    = 108
	offMagic   = 236
	offOptions = 240

	opRequest = 1
	opReply   = 2
	magic     = 0x63825363
	// ethernet is htype 1 and hlen 6, which follow op.
	ethernet = 1<<8 | 6
	// flagBroadcast asks for replies by broadcast (RFC 2131 section 4.1).
	flagBroadcast = 0x8000
)

// Options (RFC 2132, and the RFCs that the package comment names).
const (
	optPad             = 0
	optMask            = 1
	optRouter          = 3
	optDNS             = 6
	optHostname        = 12
	optMTU             = 26
	optRequestedIP     = 50
	optLease           = 51
	optOverload        = 52
	optMessageType     = 53
	optServerID        = 54
	optParams          = 55
	optMaxMessageSize  = 57
	optClientID        = 61
	optRapidCommit     = 80
	optFQDN            = 81
	optSearch          = 119
	optClasslessRoutes = 121
	optEnd             = 255
)

// Values of option 52 (RFC 2132 section 9.3), which may be combined.
const (
	overloadFile = 1
	overloadName = 2
)

// request is a client's message. Addresses that it does not have are unspecified.
type request struct {
	head        []byte // the message before its options, aliasing the frame
	msgType     uint8
	mac         wire.MAC
	ciaddr      wire.Addr // ciaddr
	requestedIP wire.Addr // option 50
	serverID    wire.Addr // option 54
	maxLen      uint16    // option 57
	overload    uint8     // option 52
	rapidCommit bool      // option 80
	wantFQDN    bool      // option 81 is there, or asked for
	hasFQDN     bool
	fqdnFlag    uint8  // flags of option 81
	clientID    []byte // option 61, aliasing the frame
}

// parse reads the message in f, whose headers are f.H; false if it is not an
// Ethernet client's, is truncated, or has a wrong checksum.
func (q *request) parse(f *ring.Frame) bool {
	b := f.L4Payload()
	if len(b) < offOptions || f.Offload.GSOType != ring.GSONone || !sumOK(f) {
		return false
	}
	q.head, q.ciaddr = b[:offOptions], wire.Addr4(b[offCiaddr:])
	q.mac = wire.MAC(b[offChaddr:])
	switch {
	case b[0] != opRequest, binary.BigEndian.Uint16(b[1:]) != ethernet, binary.BigEndian.Uint32(b[offMagic:]) != magic:
		return false
	case q.mac.IsMulticast(), q.mac.IsZero():
		return false
	}
	return q.parseOptions(b[offOptions:]) && q.parseOverloaded(b)
}

// sumOK verifies the UDP checksum, unless there is none or it is still to be
// computed.
func sumOK(f *ring.Frame) bool {
	none := binary.BigEndian.Uint16(f.Bytes()[f.H.L4+6:]) == 0
	return none || f.Offload.NeedsCsum || f.H.SumOK(f.Bytes())
}

// parseOverloaded reads options in the fields file and sname, if option 52 says
// that there are any.
func (q *request) parseOverloaded(b []byte) bool {
	if q.overload&overloadFile != 0 && !q.parseOptions(b[offFile:offMagic]) {
		return false
	}
	return q.overload&overloadName == 0 || q.parseOptions(b[offSname:offFile])
}

// parseOptions reads the options b; false if one runs past the end. The End option
// may be missing.
func (q *request) parseOptions(b []byte) bool {
	for len(b) > 0 && b[0] != optEnd {
		if b[0] == optPad {
			b = b[1:]
			continue
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return false
		}
		end := 2 + int(b[1])
		if !q.parseOption(b[0], b[2:end]) {
			return false
		}
		b = b[end:]
	}
	return true
}

// parseOption reads one option; false if its length is wrong for its code. Options
// that are not listed are ignored.
func (q *request) parseOption(code uint8, v []byte) bool {
	switch code {
	case optMessageType, optOverload:
		return q.parseOctet(code, v)
	case optRequestedIP:
		return address(&q.requestedIP, v)
	case optServerID:
		return address(&q.serverID, v)
	case optMaxMessageSize:
		if len(v) != 2 {
			return false
		}
		q.maxLen = binary.BigEndian.Uint16(v)
	case optRapidCommit:
		q.rapidCommit = true
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

func (q *request) parseOctet(code uint8, v []byte) bool {
	if len(v) != 1 {
		return false
	}
	if code == optMessageType {
		q.msgType = v[0]
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
