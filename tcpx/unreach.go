package tcpx

import (
	"encoding/binary"

	"penne/internal/icmp"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
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
	if icmpTells(errno, c.v4()) {
		t.sendUnreachable(c, errno)
		t.endHost(c)
		return
	}
	t.resetGuest(c)
}

// icmpTells tells whether an ICMP message makes connect in a Linux guest return
// errno. Where none does a RST has to serve: ICMP for IPv4 has no code that means
// EACCES, for one.
func icmpTells(errno sys.Errno, v4 bool) bool {
	switch errno {
	case sys.ENETUNREACH, sys.ENETDOWN, sys.EHOSTUNREACH, sys.EHOSTDOWN:
		return true
	case sys.EACCES, sys.EPERM:
		return !v4
	}
	return false
}

// sendUnreachable answers the guest's SYN with ICMP destination unreachable. It
// quotes the SYN's headers, made anew: addresses, ports and sequence number are
// what the guest looks at.
func (t *TCP) sendUnreachable(c *conn, errno sys.Errno) {
	key := t.table.Key(c.slot)
	q := t.quote[:]
	n := wire.PutIP(q, wire.TCPLen, wire.ProtoTCP, &key.Guest, &key.Remote)
	th := q[n : n+wire.TCPLen]
	clear(th)
	binary.BigEndian.PutUint16(th, key.GuestPort)
	binary.BigEndian.PutUint16(th[2:], key.RemotePort)
	binary.BigEndian.PutUint32(th[4:], c.rcvNxt-1)
	th[12], th[13] = wire.TCPLen<<2, wire.SYN
	m := &t.notice
	m.From, m.To, m.Quote = icmp.Ours(t.env, &key.Remote), key.Guest, q[:n+wire.TCPLen]
	if m.Unreachable(errno) {
		m.Send(t.env)
	}
}
