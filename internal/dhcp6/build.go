package dhcp6

import (
	"encoding/binary"

	"penne/internal/wire"
	"penne/ring"
	"penne/shard/env"
)

const (
	// forever is an infinite lifetime (RFC 8415 section 7.7), in seconds.
	forever = 0xffffffff
	// maxMessage keeps a reply within the minimum MTU of IPv6 (RFC 8200
	// section 5), in octets.
	maxMessage = 1280 - wire.IPv6Len - wire.UDPLen

	// lenDUID is the length of our DUID-LL for Ethernet (RFC 8415 section
	// 11.4), which stays the same over restarts.
	lenDUID  = 10
	duidLL   = 3
	ethernet = 1
)

func isServer(id []byte, our *wire.MAC) bool {
	return len(id) == lenDUID && binary.BigEndian.Uint32(id) == duidLL<<16|ethernet && wire.MAC(id[4:]) == *our
}

// reply commits the answer a to q.
func reply(e *env.Env, c *Config, q *request, a *answer) {
	out := e.Out.Next()
	b := out.PayloadArea()[:lenHeader:maxMessage]
	copy(b, q.header)
	b[0] = a.msgType
	o := options{b}
	duid := o.add(optServerID, lenDUID)
	binary.BigEndian.PutUint32(duid, duidLL<<16|ethernet)
	copy(duid[4:], e.Rules.OurMAC[:])
	if q.clientID != nil {
		copy(o.add(optClientID, len(q.clientID)), q.clientID)
	}
	if a.statusOnly {
		o.status(a.status)
	} else {
		o.putAll(q, a, &e.Rules.V6.Guest, c)
	}
	send(e, out, len(o.b), q)
}

// send commits the message of n octets in the payload of out.
func send(e *env.Env, out *ring.Frame, n int, q *request) {
	src := &e.Rules.LinkLocal6
	b := out.Build(wire.EthLen+wire.IPv6Len+wire.UDPLen, n)
	wire.PutEth(b, &q.mac, &e.Rules.OurMAC, wire.EtherIPv6)
	wire.PutIP(b[wire.EthLen:], wire.UDPLen+n, wire.ProtoUDP, src, &q.src)
	wire.PutUDP(out.Bytes()[wire.EthLen+wire.IPv6Len:], serverPort, clientPort, src, &q.src)
	out.Offload = ring.Offload{}
	e.Out.Commit(1)
}

// options are being appended to b, up to its capacity; what does not fit is left
// out.
type options struct{ b []byte }

// add appends an option with n octets and returns them, for the caller to write;
// nil if they do not fit.
func (o *options) add(code uint16, n int) []byte {
	at := len(o.b)
	if at+4+n > cap(o.b) {
		return nil
	}
	o.b = o.b[:at+4+n]
	binary.BigEndian.PutUint16(o.b[at:], code)
	binary.BigEndian.PutUint16(o.b[at+2:], uint16(n))
	return o.b[at+4:]
}

// status writes a status code without text.
func (o *options) status(code uint16) {
	if v := o.add(optStatusCode, 2); v != nil {
		binary.BigEndian.PutUint16(v, code)
	}
}

// putAll writes all that the client gets: IAs first, then what else fits.
func (o *options) putAll(q *request, a *answer, guest *wire.Addr, c *Config) {
	if q.msgType == msgSolicit && a.msgType == msgReply {
		o.add(optRapidCommit, 0)
	}
	o.putIAs(q, guest)
	o.dns(c.DNS)
	if q.wantFQDN {
		o.fqdn(c.FQDN, q.fqdnFlag)
	}
	o.search(c.Search)
}

// putIAs answers each IA of q. The first that can have the address gets it.
func (o *options) putIAs(q *request, guest *wire.Addr) {
	given := guest.IsZero() || guest.IsLinkLocal()
	for c := (cursor{rest: q.options}); c.next(); {
		head := lenIA(c.code)
		if head == 0 {
			continue
		}
		_, fits := iaHolds(c.v[head:], guest)
		switch {
		case c.code != optIANA || given:
			o.refuseIA(c.code, c.v, q.refusal(c.code))
		case q.msgType == msgRequest && !fits:
			o.refuseIA(c.code, c.v, statusNotOnLink)
		default:
			o.assignIA(q, c.v, guest)
			given = true
		}
	}
}

// refusal is the status code for an IA that gets nothing.
func (q *request) refusal(code uint16) uint16 {
	switch {
	case q.msgType == msgRenew, q.msgType == msgRebind:
		return statusNoBinding
	case code == optIAPD:
		return statusNoPrefix
	}
	return statusNoAddrs
}

// refuseIA writes the IA v, of option code, with a status code in it.
func (o *options) refuseIA(code uint16, v []byte, status uint16) {
	head := lenIA(code)
	w := o.add(code, head+6)
	if w == nil {
		return
	}
	clear(w)
	copy(w, v[:4])
	binary.BigEndian.PutUint16(w[head:], optStatusCode)
	binary.BigEndian.PutUint16(w[head+2:], 2)
	binary.BigEndian.PutUint16(w[head+4:], status)
}

// assignIA writes the IA_NA v with the guest's address and infinite lifetimes, so
// that it is never renewed. Other addresses that a renewing client has follow,
// with lifetimes of zero (RFC 8415 sections 18.3.4 and 18.3.5).
func (o *options) assignIA(q *request, v []byte, guest *wire.Addr) {
	at := len(o.b)
	w := o.add(optIANA, lenIANA)
	if w == nil {
		return
	}
	copy(w, v[:4])
	binary.BigEndian.PutUint32(w[4:], forever)
	binary.BigEndian.PutUint32(w[8:], forever)
	o.address(guest, forever)
	if q.msgType == msgRenew || q.msgType == msgRebind {
		for c := (cursor{rest: v[lenIANA:]}); c.next(); {
			if c.code != optIAAddr {
				continue
			}
			if old := wire.Addr6(c.v); old != *guest {
				o.address(&old, 0)
			}
		}
	}
	binary.BigEndian.PutUint16(o.b[at+2:], uint16(len(o.b)-at-4))
}

func (o *options) address(a *wire.Addr, lifetime uint32) {
	if v := o.add(optIAAddr, lenIAAddr); v != nil {
		copy(v, a[:])
		binary.BigEndian.PutUint32(v[16:], lifetime)
		binary.BigEndian.PutUint32(v[20:], lifetime)
	}
}

func (o *options) dns(list []wire.Addr) {
	n := 0
	for i := range list {
		if !list[i].Is4() && !list[i].IsZero() {
			n++
		}
	}
	if n == 0 {
		return
	}
	v := o.add(optDNS, 16*n)
	for i := range list {
		if !list[i].Is4() && !list[i].IsZero() && v != nil {
			v = v[copy(v, list[i][:]):]
		}
	}
}

// Flags of the Client FQDN option (RFC 4704 section 4.1).
const (
	fqdnServer   = 1 // S: the server updates the address record
	fqdnOverride = 2 // O: the server does not do as S asked
	fqdnNone     = 4 // N: the server updates nothing
)

// fqdn tells the client its FQDN, and that we do not update the DNS. asked are the
// flags that the client sent.
func (o *options) fqdn(name string, asked uint8) {
	n, ok := wire.NameLen(name)
	if !ok {
		return
	}
	v := o.add(optFQDN, 1+n)
	if v == nil {
		return
	}
	v[0] = fqdnNone
	if asked&fqdnServer != 0 {
		v[0] |= fqdnOverride
	}
	wire.PutName(v[1:1], name)
}

// search writes as many domains as fit.
func (o *options) search(domains []string) {
	at := len(o.b)
	if o.add(optSearch, 0) == nil {
		return
	}
	for _, d := range domains {
		if n, ok := wire.NameLen(d); ok && len(o.b)+n <= cap(o.b) {
			o.b = wire.PutName(o.b, d)
		}
	}
	if len(o.b) == at+4 {
		o.b = o.b[:at]
		return
	}
	binary.BigEndian.PutUint16(o.b[at+2:], uint16(len(o.b)-at-4))
}
