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
	// minMessage is what old clients expect at least (RFC 1542 section
	// 2.1), in octets.
	minMessage = 300
	// minDatagram is what every client takes (RFC 2131 section 2), in
	// octets of IP; maxDatagram is the most we send to one that takes more.
	minDatagram = 576
	maxDatagram = 1500

	ipUDP = wire.IPv4Len + wire.UDPLen
)

var broadcast4 = wire.Addr4([]byte{255, 255, 255, 255})

// reply commits the answer of type kind to q.
func reply(e *env.Env, c *Config, q *request, kind uint8) {
	out := e.Out.Next()
	n := q.putReply(out.PayloadArea(), &e.Rules.V4, c, kind)
	dst, mac := q.receiver(&e.Rules.V4, kind)
	send(e, out, n, &dst, &mac)
}

// receiver is where an answer goes (RFC 2131 section 4.1): to the address that
// the client has, to all that listen if it asked for that or is to be told off,
// else to the address it is about to get.
func (q *request) receiver(f *fwd.Family, kind uint8) (wire.Addr, wire.MAC) {
	switch {
	case kind == kindNak:
		return broadcast4, wire.Broadcast
	case !q.client.IsUnspecified():
		return q.client, q.mac
	case binary.BigEndian.Uint16(q.head[offFlags:])&flagBroadcast != 0:
		return broadcast4, wire.Broadcast
	}
	return f.Guest, q.mac
}

// send commits the message of n octets that lies at the payload of out.
func send(e *env.Env, out *ring.Frame, n int, dst *wire.Addr, mac *wire.MAC) {
	src := &e.Rules.V4.Ours
	b := out.Build(wire.EthLen+ipUDP, n)
	wire.PutEth(b, mac, &e.Rules.OurMAC, wire.EtherIPv4)
	wire.PutIP(b[wire.EthLen:], wire.UDPLen+n, wire.ProtoUDP, src, dst)
	wire.PutUDP(out.Bytes()[wire.EthLen+wire.IPv4Len:], serverPort, clientPort, src, dst)
	out.Offload = ring.Offload{}
	e.Out.Commit(1)
}

// putReply writes the message to the start of b, which holds maxDatagram
// octets, and returns its length.
func (q *request) putReply(b []byte, f *fwd.Family, c *Config, kind uint8) int {
	clear(b[:minMessage])
	b[0] = opReply
	binary.BigEndian.PutUint16(b[1:], ethernet)
	copy(b[offXID:], q.head[offXID:offXID+4])
	copy(b[offFlags:], q.head[offFlags:offFlags+2])
	copy(b[offRelay:], q.head[offRelay:offRelay+4])
	copy(b[offHW:], q.mac[:])
	binary.BigEndian.PutUint32(b[offMagic:], magic)
	if kind == kindAck && q.kind != kindDiscover {
		copy(b[offClient:], q.client.V4())
	}
	if kind != kindNak && q.kind != kindInform {
		copy(b[offYour:], f.Guest.V4())
	}
	o := options{b: b[:offOptions], limit: q.room()}
	q.putOptions(&o, f, c, kind)
	o.b = append(o.b, optEnd) // room leaves a place for it
	return max(len(o.b), minMessage)
}

// room is the length that the reply may have before its End option, in octets.
func (q *request) room() int {
	datagram := min(max(int(q.maxLen), minDatagram), maxDatagram)
	return datagram - ipUDP - 1
}

// putOptions writes the options, the indispensable ones first: what does not
// fit is left out.
func (q *request) putOptions(o *options, f *fwd.Family, c *Config, kind uint8) {
	o.octet(optKind, kind)
	o.addr(optServer, &f.Ours)
	if q.clientID != nil { // RFC 6842
		copy(o.add(optClientID, len(q.clientID)), q.clientID)
	}
	if kind == kindNak {
		return
	}
	if q.kind != kindInform {
		o.uint32(optLease, forever)
	}
	if q.kind == kindDiscover && kind == kindAck {
		o.add(optRapid, 0)
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

// options is a run of options being written: b behind its length is free up to
// limit.
type options struct {
	b     []byte
	limit int
	last  int // where the last option starts
}

// add appends an option with room for n octets, which it returns for filling;
// nil if there is no room.
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

// network writes mask and router. A router that is not on the link needs a
// route to it (RFC 3442): a client that knows the option ignores the other.
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
	if v := o.add(optRoutes, 14); v != nil {
		v[0] = 32 // the router itself, through nothing
		copy(v[1:], gw)
		clear(v[5:10]) // four octets of no router, and the default route's length
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

// fqdn tells the client its full name, and that nobody enters it into the DNS.
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
	v[0], v[1], v[2] = flags, 255, 255 // the codes are history (section 2.2)
	if flags&fqdnEncoded == 0 {
		copy(v[3:], name)
		return
	}
	wire.PutName(v[3:3], name)
}

// search writes domains, as many as fit, into as many options as they take
// (RFC 3396).
func (o *options) search(domains []string) {
	any := false
	for _, d := range domains {
		n, ok := wire.NameLen(d)
		if heads := 2 * (n/255 + 2); !ok || len(o.b)+n+heads > o.limit {
			continue
		}
		if !any {
			any = o.add(optSearch, 0) != nil
		}
		o.appendName(d)
	}
}

// appendName lets the last option grow by a name, continued in another option
// of its code if it is full. The caller has checked that there is room.
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
