package tcpx

import (
	"encoding/binary"

	"penne/csum"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
)

// ICMP destination unreachable: RFC 792, RFC 1812 section 5.2.7.1, RFC 4443
// section 3.1.
const (
	icmp4Unreach = 3
	icmp6Unreach = 1

	icmp4Net, icmp4Host            = 0, 1
	icmp6NoRoute, icmp6Prohibited  = 0, 1
	icmp6Address, icmp6BeyondScope = 3, 2
)

// cannotConnect tells the guest why connect failed, in the way that makes its
// own connect fail alike.
func (t *TCP) cannotConnect(c *conn, errno sys.Errno) {
	switch errno {
	case sys.ETIMEDOUT:
		// The guest's own SYN timer started before ours: it knows.
		t.endHost(c)
		return
	case sys.EMFILE, sys.ENFILE, sys.ENOBUFS, sys.ENOMEM, sys.ENOSPC, sys.EADDRNOTAVAIL:
		// Nothing on the wire means these. A RST ends the guest's wait at
		// once; silence would cost it two minutes.
		t.env.Count.Drop(stats.NoSocket)
	}
	if code, ok := unreachCode(errno, c.v4()); ok {
		t.sendUnreachable(c, code)
		t.endHost(c)
		return
	}
	t.resetGuest(c)
}

// unreachCode is the code of the ICMP message that makes connect in a Linux
// guest return errno. ok is false where none does, and a RST has to serve:
// ICMP for IPv4 has no code that means EACCES, for one.
func unreachCode(errno sys.Errno, v4 bool) (code uint8, ok bool) {
	switch {
	case (errno == sys.ENETUNREACH || errno == sys.ENETDOWN) && v4:
		return icmp4Net, true
	case (errno == sys.EHOSTUNREACH || errno == sys.EHOSTDOWN) && v4:
		return icmp4Host, true
	case v4:
		return 0, false
	case errno == sys.ENETUNREACH || errno == sys.ENETDOWN:
		return icmp6NoRoute, true
	case errno == sys.EHOSTUNREACH || errno == sys.EHOSTDOWN:
		return icmp6Address, true
	case errno == sys.EACCES || errno == sys.EPERM:
		return icmp6Prohibited, true
	}
	return 0, false
}

// sendUnreachable answers the guest's SYN with ICMP destination unreachable. It
// quotes the SYN's headers, made anew: addresses, ports and sequence number are
// what the guest looks at.
func (t *TCP) sendUnreachable(c *conn, code uint8) {
	key := t.table.Key(c.slot)
	ipLen := key.Guest.IPLen()
	const quoteTCP = wire.TCPLen
	icmpLen := wire.ICMPLen + ipLen + quoteTCP
	f := t.env.Out.Next()
	h := f.Build(wire.EthLen+ipLen+icmpLen, 0)
	copy(h, c.hdr[:wire.EthLen])
	src := t.icmpSource(&key.Remote)
	proto, typ := uint8(wire.ProtoICMPv6), uint8(icmp6Unreach)
	sum := uint32(0)
	if c.v4() {
		proto, typ = wire.ProtoICMP, icmp4Unreach
	} else {
		sum = wire.PseudoSum(&src, &key.Guest, proto, icmpLen)
	}
	wire.PutIP(h[wire.EthLen:], icmpLen, proto, &src, &key.Guest)
	msg := h[wire.EthLen+ipLen:]
	clear(msg)
	msg[0], msg[1] = typ, code
	wire.PutIP(msg[wire.ICMPLen:], quoteTCP, wire.ProtoTCP, &key.Guest, &key.Remote)
	th := msg[wire.ICMPLen+ipLen:]
	binary.BigEndian.PutUint16(th, key.GuestPort)
	binary.BigEndian.PutUint16(th[2:], key.RemotePort)
	binary.BigEndian.PutUint32(th[4:], c.rcvNxt-1)
	th[12], th[13] = wire.TCPLen<<2, wire.SYN
	binary.BigEndian.PutUint16(msg[2:], csum.Finish(csum.Sum(msg, sum)))
	f.Offload = ring.Offload{}
	t.env.Out.Commit(1)
}

// icmpSource is who tells the guest: our own address on its link, or else the
// destination itself.
func (t *TCP) icmpSource(remote *wire.Addr) wire.Addr {
	if a := t.env.Rules.Of(remote).Ours; !a.IsZero() {
		return a
	}
	return *remote
}
