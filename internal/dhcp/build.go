package dhcp

import (
	"encoding/binary"
	"strings"

	"penne/internal/fwd"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/env"
)

const (
	// forever is an infinite lease (RFC 2131 section 3.3), in seconds.
	forever = 0xffffffff
	// minMessage is the least that old clients expect (RFC 1542 section
	// 2.1), in octets.
	minMessage = 300
	// minDatagram is what every client accepts (RFC 2131 section 2), in
	// octets of IP; maxDatagram is the most we send to one that accepts
	// more.
	minDatagram = 576
	maxDatagram = 1500

	ipUDP = wire.IPv4Len + wire.UDPLen
)

var broadcast4 = wire.Addr4([]byte{255, 255, 255, 255})

// reply commits the answer to q, of type msgType.
func reply(e *env.Env, c *Config, q *request, msgType uint8) {
	out := e.Out.Next()
	n := q.putReply(out.PayloadArea(), &e.Rules.V4, c, msgType)
	dst, mac := q.destination(&e.Rules.V4, msgType)
	send(e, out, n, &dst, &mac)
}

// destination is where an answer goes (RFC 2131 section 4.1): a NAK is broadcast,
// any other goes to the address that the client has, else is broadcast if it
// asked for that, else goes to the address it is about to get.
func (q *request) destination(f *fwd.Family, msgType uint8) (wire.Addr, wire.MAC) {
	switch {
	case msgType == msgNak:
		return broadcast4, wire.Broadcast
	case !q.ciaddr.IsUnspecified():
		return q.ciaddr, q.mac
	case binary.BigEndian.Uint16(q.head[offFlags:])&flagBroadcast != 0:
		return broadcast4, wire.Broadcast
	}
	return f.Guest, q.mac
}

// send commits the message of n octets in the payload of out.
func send(e *env.Env, out *ring.Frame, n int, dst *wire.Addr, mac *wire.MAC) {
	src := &e.Rules.V4.Ours
	b := out.Build(wire.EthLen+ipUDP, n)
	wire.PutEth(b, mac, &e.Rules.OurMAC, wire.EtherIPv4)
	wire.PutIP(b[wire.EthLen:], wire.UDPLen+n, wire.ProtoUDP, src, dst)
	wire.PutUDP(out.Bytes()[wire.EthLen+wire.IPv4Len:], serverPort, clientPort, src, dst)
	out.Offload = ring.Offload{}
	e.Out.Commit(1)
}

// putReply writes the message to the start of b, which has at least maxDatagram
// octets, and returns its length.
func (q *request) putReply(b []byte, f *fwd.Family, c *Config, msgType uint8) int {
	clear(b[:minMessage])
	b[0] = opReply
	binary.BigEndian.PutUint16(b[1:], ethernet)
	copy(b[offXID:], q.head[offXID:offXID+4])
	copy(b[offFlags:], q.head[offFlags:offFlags+2])
	copy(b[offGiaddr:], q.head[offGiaddr:offGiaddr+4])
	copy(b[offChaddr:], q.mac[:])
	binary.BigEndian.PutUint32(b[offMagic:], magic)
	if msgType == msgAck && q.msgType != msgDiscover {
		copy(b[offCiaddr:], q.ciaddr.V4())
	}
	if msgType != msgNak && q.msgType != msgInform {
		copy(b[offYiaddr:], f.Guest.V4())
	}
	o := options{b: b[:offOptions], limit: q.limit()}
	q.putOptions(&o, f, c, msgType)
	o.b = append(o.b, optEnd) // limit leaves room for it
	return max(len(o.b), minMessage)
}

// limit is the most octets that the reply may have before its End option.
func (q *request) limit() int {
	datagram := min(max(int(q.maxLen), minDatagram), maxDatagram)
	return datagram - ipUDP - 1
}

// putOptions writes the options, essential ones first; what does not fit is left
// out.
func (q *request) putOptions(o *options, f *fwd.Family, c *Config, msgType uint8) {
	o.octet(optMessageType, msgType)
	o.addr(optServerID, &f.Ours)
	if q.clientID != nil { // RFC 6842
		copy(o.add(optClientID, len(q.clientID)), q.clientID)
	}
	if msgType == msgNak {
		return
	}
	if q.msgType != msgInform {
		o.uint32(optLease, forever)
	}
	if q.msgType == msgDiscover && msgType == msgAck {
		o.add(optRapidCommit, 0)
	}
	o.network(f)
	o.dns(c.DNS)
	if c.MTU >= MinMTU {
		if v := o.add(optMTU, 2); v != nil {
			binary.BigEndian.PutUint16(v, uint16(min(c.MTU, 65535)))
		}
	}
	if c.Hostname != "" {
		copy(o.add(optHostname, len(c.Hostname)), c.Hostname)
	}
	if q.wantFQDN {
		o.fqdn(c.FQDN, q)
	}
	o.search(c.Search)
}

// options are being appended to b, which may grow to limit octets.
type options struct {
	b     []byte
	limit int
	last  int // offset of the last option
}

// add appends an option with n octets and returns them, for the caller to write;
// nil if they do not fit.
func (o *options) add(code uint8, n int) []byte {
	at := len(o.b)
	if n > 255 || at+2+n > o.limit {
		return nil
	}
	o.b, o.last = o.b[:at+2+n], at
	o.b[at], o.b[at+1] = code, uint8(n)
	return o.b[at+2:]
}

func (o *options) octet(code, v uint8) {
	if b := o.add(code, 1); b != nil {
		b[0] = v
	}
}

func (o *options) uint32(code uint8, v uint32) {
	if b := o.add(code, 4); b != nil {
		binary.BigEndian.PutUint32(b, v)
	}
}

func (o *options) addr(code uint8, a *wire.Addr) { copy(o.add(code, 4), a.V4()) }

// network writes mask and router. A router that is not on the link needs a route
// (RFC 3442); a client that supports this option ignores the router option.
func (o *options) network(f *fwd.Family) {
	if f.Bits == 0 || f.Bits > 32 {
		return
	}
	mask := ^uint32(0) << (32 - f.Bits)
	o.uint32(optMask, mask)
	if f.Gateway.IsZero() {
		return
	}
	o.addr(optRouter, &f.Gateway)
	gw := f.Gateway.V4()
	if (binary.BigEndian.Uint32(gw)^binary.BigEndian.Uint32(f.Guest.V4()))&mask == 0 {
		return
	}
	if v := o.add(optClasslessRoutes, 14); v != nil {
		v[0] = 32 // the router itself, on link
		copy(v[1:], gw)
		clear(v[5:10]) // no router, and the default route's length
		copy(v[10:], gw)
	}
}

func (o *options) dns(list []wire.Addr) {
	n := 0
	for i := range list {
		if list[i].Is4() {
			n++
		}
	}
	if n == 0 {
		return
	}
	v := o.add(optDNS, 4*n)
	for i := range list {
		if list[i].Is4() && v != nil {
			v = v[copy(v, list[i].V4()):]
		}
	}
}

// Flags of option 81 (RFC 4702 section 2.1).
const (
	fqdnServer   = 1 // S: the server updates the address record
	fqdnOverride = 2 // O: the server does not do as S asked
	fqdnEncoded  = 4 // E: labels, not text
	fqdnNone     = 8 // N: the server updates nothing
)

// fqdn tells the client its FQDN, and that we do not update the DNS.
func (o *options) fqdn(name string, q *request) {
	n, ok := wire.NameLen(name)
	if !ok {
		return
	}
	flags := uint8(fqdnEncoded | fqdnNone)
	if q.hasFQDN {
		flags = fqdnNone | q.fqdnFlag&fqdnEncoded
		if q.fqdnFlag&fqdnServer != 0 {
			flags |= fqdnOverride
		}
	}
	if flags&fqdnEncoded == 0 {
		name = strings.TrimSuffix(name, ".")
		n = len(name)
	}
	v := o.add(optFQDN, 3+n)
	if v == nil {
		return
	}
	v[0], v[1], v[2] = flags, 255, 255 // RCODE1 and RCODE2, deprecated (section 2.2)
	if flags&fqdnEncoded == 0 {
		copy(v[3:], name)
		return
	}
	wire.PutName(v[3:3], name)
}

// search writes as many domains as fit, into one or more options (RFC 3396).
func (o *options) search(domains []string) {
	started := false
	for _, d := range domains {
		n, ok := wire.NameLen(d)
		if heads := 2 * (n/255 + 2); !ok || len(o.b)+n+heads > o.limit {
			continue
		}
		if !started {
			started = o.add(optSearch, 0) != nil
		}
		o.appendName(d)
	}
}

// appendName appends a name to the last option, and continues in another one of
// the same code when it is full. The caller has checked that it fits.
func (o *options) appendName(name string) {
	var buf [256]byte
	for _, c := range wire.PutName(buf[:0], name) {
		if o.b[o.last+1] == 255 {
			o.add(o.b[o.last], 0)
		}
		o.b = append(o.b, c)
		o.b[o.last+1]++
	}
}
