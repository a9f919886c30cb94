package tcpx

import (
	"encoding/binary"

	"penne/internal/icmp"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
)

// cannotConnect ends a flow whose connect failed, and answers the guest so that its
// connect returns the same error.
func (t *TCP) cannotConnect(c *conn, errno sys.Errno) {
	switch errno {
	case sys.ETIMEDOUT:
		// The guest's own SYN timer started before ours.
		t.endHost(c)
		return
	case sys.EMFILE, sys.ENFILE, sys.ENOBUFS, sys.ENOMEM, sys.ENOSPC, sys.EADDRNOTAVAIL:
		// Nothing on the wire means these. With a RST the guest's connect fails
		// at once, without it only after two minutes.
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
// errno. For others a RST has to do: no ICMPv4 code means EACCES, for one.
func icmpTells(errno sys.Errno, v4 bool) bool {
	switch errno {
	case sys.ENETUNREACH, sys.ENETDOWN, sys.EHOSTUNREACH, sys.EHOSTDOWN:
		return true
	case sys.EACCES, sys.EPERM:
		return !v4
	}
	return false
}

// sendUnreachable answers the guest's SYN with ICMP destination unreachable. The
// quoted headers are rebuilt, as far as the guest looks at them: addresses, ports
// and sequence number.
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
