package udpx

import (
	"penne/internal/sys"
	"penne/internal/wire"
)

// attach gives the flow at slot, whose first datagram came to l at at, a socket: one
// of its own if that can be bound there, else the listener's. The latter happens with
// low ports, whose listener was bound by a privileged process, or before the
// privilege was dropped.
func (u *UDP) attach(r *record, slot int32, l *listener, at *local) sys.Errno {
	if !l.exclusive {
		errno := u.connect(r, slot, at)
		if errno == 0 || !at.refused {
			return errno
		}
		sys.Close(r.fd)
		l.exclusive = errno == sys.EACCES // other errors are this flow's
	}
	u.share(r, l, at)
	return 0
}

// share lets r send through l's socket.
func (u *UDP) share(r *record, l *listener, at *local) {
	r.fd, r.via = l.fd, l.id+1
	r.hostPort, r.from, r.scope = at.port, at.addr, at.scope
	l.sharers++
}

// releaseSocket ends r's use of its socket.
func (u *UDP) releaseSocket(r *record) {
	if r.via == 0 {
		sys.Close(r.fd)
		return
	}
	u.listeners[r.via-1].sharers--
}

// dropSharers ends the flows that share the socket of the listener id.
func (u *UDP) dropSharers(id int32) {
	if u.listeners[id].sharers == 0 {
		return
	}
	u.table.All(func(slot int32) {
		if u.rec[slot].via == id+1 {
			u.drop(slot)
		}
	})
}

// setDest prepares the destination and source of what r sends through a listener's
// socket.
func (u *UDP) setDest(r *record) {
	var sa sys.Sockaddr
	v6 := u.listeners[r.via-1].v6 // an IPv6 socket wants IPv4 peers v4-mapped
	sa.SetInet((*[16]byte)(&r.peer), !v6, r.peerPort, r.scope)
	u.dest.Set(&sa, (*[16]byte)(&r.from))
}

// anySource lets the kernel choose the source address of r's datagrams, if errno may
// mean that r's is not possible, and tells whether that is a change. The peer may
// have written to a broadcast address, which a dual-stack socket does not tell from
// others. The errno is ENETUNREACH for IPv4, and EINVAL for IPv6, which for a message
// of several datagrams means their length first.
func (u *UDP) anySource(r *record, errno sys.Errno, single bool) bool {
	if r.via == 0 || r.from.IsZero() || errno != sys.ENETUNREACH && !(errno == sys.EINVAL && single) {
		return false
	}
	r.from = wire.Addr{}
	u.setDest(r)
	return true
}
