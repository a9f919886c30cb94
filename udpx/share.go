package udpx

import (
	"penne/internal/sys"
	"penne/internal/wire"
)

// attach gives the flow at slot, which a listener heard of at at, a socket: one
// of its own where that may be bound there, else the listener's. The latter is
// so for low ports: the listener's socket was bound by a process that may bind
// them, or before the privilege was given up.
func (u *UDP) attach(r *record, slot int32, l *listener, at *local) sys.Errno {
	if !l.alone {
		errno := u.connect(r, slot, at)
		if errno == 0 || !at.refused {
			return errno
		}
		sys.Close(r.fd)
		l.alone = errno == sys.EACCES // of the others each has its own reason
	}
	u.share(r, l, at)
	return 0
}

// share lets r send through l's socket.
func (u *UDP) share(r *record, l *listener, at *local) {
	r.fd, r.via = l.fd, l.id+1
	r.hostPort, r.from, r.scope = at.port, at.addr, at.scope
	l.sharing++
}

// leave ends r's use of its socket.
func (u *UDP) leave(r *record) {
	if r.via == 0 {
		sys.Close(r.fd)
		return
	}
	u.listeners[r.via-1].sharing--
}

// evict ends the flows that share the socket of the listener id: their answers
// could not leave from its address and port any more.
func (u *UDP) evict(id int32) {
	if u.listeners[id].sharing == 0 {
		return
	}
	u.table.All(func(slot int32) {
		if u.rec[slot].via == id+1 {
			u.drop(slot)
		}
	})
}

// lead prepares the way of what r, which shares a listener's socket, sends.
func (u *UDP) lead(r *record) {
	var sa sys.Sockaddr
	v6 := u.listeners[r.via-1].v6 // an IPv6 socket wants IPv4 peers v4-mapped
	sa.SetInet((*[16]byte)(&r.peer), !v6, r.peerPort, r.scope)
	u.way.Set(&sa, (*[16]byte)(&r.from))
}

// anySource lets the kernel choose the address that r's datagrams leave from, if
// errno may mean that it does not take r's, and tells whether that is a change:
// the peer may have written to a broadcast address, which an IPv6 socket that
// serves IPv4 does not tell from others. It is ENETUNREACH for IPv4, and EINVAL
// for IPv6, which for a message of several datagrams means their length first.
func (u *UDP) anySource(r *record, errno sys.Errno, single bool) bool {
	if r.via == 0 || r.from.IsZero() || errno != sys.ENETUNREACH && !(errno == sys.EINVAL && single) {
		return false
	}
	r.from = wire.Addr{}
	u.lead(r)
	return true
}
