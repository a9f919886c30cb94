package relay

import (
	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard/flow"
)

const (
	// firstRecv is what the first receive of a flow or a listener asks for.
	firstRecv = 4
	// raisedBuffer is the size that a receive buffer is raised to when the
	// default proves small; the kernel caps it at net.core.rmem_max.
	raisedBuffer = 4 << 20
)

// flowOf finds or makes the flow of the i-th message of in, which came to the
// listener id. If there can be none, it counts that and returns -1.
func (r *Relay) flowOf(id int32, in *sys.RecvRow, i int, peer *wire.Addr, port uint16) int32 {
	local, _ := in.Local(i)
	key := flow.Key{
		Guest: local, GuestPort: uint16(id), Proto: uint8(id >> 16),
		Remote: *peer, RemotePort: port,
	}
	if r.lastSlot >= 0 && key == r.lastKey {
		return r.lastSlot
	}
	r.lastKey = key // a field, since Side.Addr would let a local variable escape
	hash := r.table.Hash(&r.lastKey)
	slot := r.table.Find(&r.lastKey, hash)
	if slot < 0 {
		if slot = r.open(id, &r.lastKey, hash); slot < 0 {
			r.lastSlot = -1
			return -1
		}
		at := wire.Addr(local)
		in.ReplyDest(i, &r.rec[slot].back, !at.IsMulticast() && !at.IsBroadcast4())
	}
	r.lastSlot = slot
	return slot
}

// open makes the flow of key.
func (r *Relay) open(id int32, key *flow.Key, hash uint64) int32 {
	l := &r.listeners[id]
	to := l.ToAddr
	if to.IsZero() {
		to = l.To.Addr(&key.Remote)
	}
	if to.IsUnspecified() || key.RemotePort == 0 {
		return r.refuse(stats.BadDest)
	}
	slot := r.table.Insert(key, hash)
	if slot < 0 {
		return r.refuse(stats.TableFull)
	}
	fd := l.To.Socket(to.Is4())
	if fd < 0 {
		r.table.Remove(slot)
		return r.refuse(stats.NoSocket)
	}
	f := &r.rec[slot]
	*f = record{fd: fd, listener: id, to: to, toPort: l.Target, last: r.env.Now, recvNext: firstRecv, segMax: [2]uint16{65535, 65535}}
	if errno := r.connect(f, slot, key.RemotePort); errno != 0 {
		r.closeSocket(f)
		r.table.Remove(slot)
		return r.refuse(reasonOf(errno))
	}
	r.link(slot)
	r.wheel.Set(slot, f.end())
	r.env.Count.Spliced++
	return slot
}

// refuse counts a datagram that cannot have a flow.
func (r *Relay) refuse(why stats.Reason) int32 {
	r.env.Count.Drop(why)
	return -1
}

// connect binds f's socket to the peer's port if that is free there, connects it to
// the target, and watches it.
func (r *Relay) connect(f *record, slot int32, port uint16) sys.Errno {
	v4 := f.to.Is4()
	if !v4 {
		sys.V6Only(f.fd)
	}
	if r.gro {
		sys.EnableUDPGRO(f.fd)
	}
	side := r.listeners[f.listener].To
	if errno := r.bind(f, side, port); errno != 0 {
		return errno
	}
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(&f.to), v4, f.toPort, r.scope(side, &f.to))
	if errno := sys.Connect(f.fd, &sa); errno != 0 {
		return errno
	}
	tok := flow.NewToken(flow.KindRelayUDP, r.table.Gen(slot), slot)
	return r.env.Epoll.Add(f.fd, sys.EPOLLIN, uint64(tok))
}

// bind binds f's socket to port. If that is in use or privileged, connect(2) will
// choose another one; with an address of --outbound, bind(2) to port 0 does.
func (r *Relay) bind(f *record, side *Side, port uint16) sys.Errno {
	var outbound wire.Addr
	if side.Host && !f.to.IsLoopback() {
		out := r.env.Rules.Of(&f.to)
		if outbound = out.Bind; out.BindIf != "" && sys.BindToDevice(f.fd, out.BindIf) != nil {
			return sys.ENETUNREACH
		}
	}
	from := outbound
	if from.IsZero() {
		from = source(&f.to)
	}
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(&from), from.Is4(), port, r.scope(side, &from))
	if sys.Bind(f.fd, &sa) == 0 {
		r.hold(f, side, port)
		return 0
	}
	if outbound.IsZero() {
		return 0
	}
	sa.SetInet((*[16]byte)(&from), from.Is4(), 0, r.scope(side, &from))
	return sys.Bind(f.fd, &sa)
}

// hold notes that f's socket is bound to port, which a listener may share from
// now on.
func (r *Relay) hold(f *record, side *Side, port uint16) {
	if side.Held == nil {
		return
	}
	sys.ReuseAddress(f.fd, true)
	side.Held[port].Add(1)
	f.heldPort = port
}

// scope is the sin6_scope_id of an address on a side.
func (r *Relay) scope(side *Side, a *wire.Addr) uint32 {
	switch {
	case side.Host:
		return r.env.Rules.ScopeOf(a)
	case a.IsLinkLocal():
		return side.Scope
	}
	return 0
}

// source is the address to bind to for a target: loopback if the target is, so that
// ports in use on other addresses do not matter, else any.
func source(to *wire.Addr) wire.Addr {
	if to.IsLoopback() {
		return fwd.Loopback(to)
	}
	return wire.Unspecified(to.Is4())
}
