package shard

import (
	"slices"

	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard/flow"
	"penne/tcpx"
)

// Listener is a bound socket whose connections or datagrams cross to the other
// side. All shards watch the same descriptor, and the kernel wakes one of them
// for a connection (EPOLLEXCLUSIVE), so that a port costs one socket however
// many shards there are. Datagrams must stay in order: their socket is one
// shard's, or a SO_REUSEPORT group has one for each (see Group.spread).
type Listener struct {
	// FD is non-blocking, bound, and listening if it is a stream. It stays
	// the control thread's, which closes it after Group.Unlisten.
	FD int
	// Proto is wire.ProtoTCP or wire.ProtoUDP.
	Proto uint8
	// Inside is set for a socket in the namespace (-T, -U), whose peers are
	// connected to the host. Else they are connected to the guest.
	Inside bool
	// Target is the port on the other side.
	Target uint16
	// ToAddr is the address on the other side; zero means the default one.
	ToAddr wire.Addr
	// Device is the interface that FD is bound to, if any.
	Device string
	// members are the sockets of shards 1, 2, ... in FD's SO_REUSEPORT group,
	// if it has one; FD is then shard 0's alone. The Group closes them.
	members []int
}

// Bypass says how traffic that is local on both sides avoids the tap.
type Bypass struct {
	// Off sends them through the tap as well (--no-splice).
	Off bool
	// Only means that there is no tap: nothing else is forwarded
	// (--splice-only).
	Only bool
	// ToLoopback connects them to the guest's loopback instead of its address
	// (--host-lo-to-ns-lo).
	ToLoopback bool
	// Socket returns a new non-blocking socket made inside the namespace.
	// EAGAIN means that none is there right now: Group.SocketsReady tells
	// when to ask again; another error, that there never will be one. Safe
	// for concurrent use.
	Socket func(v4 bool, proto uint8) (fd int, errno sys.Errno)
	// Scope is the interface inside of link-local IPv6 targets.
	Scope uint32
}

// scopeOf is the sin6_scope_id that an address inside needs.
func (b *Bypass) scopeOf(to *wire.Addr) uint32 {
	if to.IsLinkLocal() {
		return b.Scope
	}
	return 0
}

const (
	// acceptBatch bounds the connections taken from one listener in a pass.
	acceptBatch = 64
	// retryDelay is how long to wait, in nanoseconds, before trying again
	// after there was no descriptor or no memory. Connections stay in the
	// listeners' backlogs meanwhile.
	retryDelay = 50_000_000
)

// parked is an accepted connection that waits for a socket on the other side,
// which is to be connected to an address there.
type parked struct {
	fd int
	to wire.Addr
	l  *Listener // nil: no connection
}

// listening is a shard's view of all listeners. A slot is not reused while events
// of its last listener may be pending.
type listening struct {
	all     []*Listener  // by token slot; nil after Unlisten
	udp     []udpServing // by the same slot, for UDP listeners
	paused  []int32      // slots of TCP listeners not watched until retryAt
	parked  parked       // while there is one, nothing else is accepted
	retryAt int64        // Env.Now
}

// watch serves a listener under the slot, as far as it concerns this shard.
func (s *Shard) watch(l *Listener, slot int32) {
	for int(slot) >= len(s.listen.all) {
		s.listen.all, s.listen.udp = append(s.listen.all, nil), append(s.listen.udp, udpServing{})
	}
	s.listen.all[slot] = l
	if l.Proto == wire.ProtoUDP {
		s.watchUDP(l, slot)
		return
	}
	if !s.arm(slot) {
		s.count.Drop(stats.NoSocket)
	}
}

// arm adds a TCP listener to the epoll instance, and tells whether that worked.
func (s *Shard) arm(slot int32) bool {
	l := s.listen.all[slot]
	return s.env.Epoll.Add(l.FD, sys.EPOLLIN|sys.EPOLLEXCLUSIVE, uint64(flow.NewToken(flow.KindListenTCP, 0, slot))) == 0
}

// unwatch ends serving the listener of the slot.
func (s *Shard) unwatch(slot int32) {
	l := s.listen.all[slot]
	switch {
	case l == nil:
		return
	case l.Proto == wire.ProtoUDP:
		s.unwatchUDP(slot)
	default:
		s.env.Epoll.Del(l.FD)
		s.listen.paused = slices.DeleteFunc(s.listen.paused, func(r int32) bool { return r == slot })
	}
	s.listen.all[slot] = nil
}

// accept takes connections from a TCP listener.
func (s *Shard) accept(slot int32) {
	l := s.listen.all[slot]
	if l == nil {
		return
	}
	var peer sys.Sockaddr
	for taken := range acceptBatch {
		if s.listen.parked.l != nil {
			s.pauseListener(slot)
			return
		}
		fd, errno := sys.Accept(l.FD, &peer)
		switch errno {
		case 0:
			s.route(fd, &peer, l)
		case sys.ECONNABORTED: // this one is gone; try the next
		case sys.EAGAIN:
			if taken > 0 {
				s.yield(slot)
			}
			return
		default:
			s.count.Drop(stats.NoSocket)
			s.pauseListener(slot)
			return
		}
	}
	s.yield(slot)
}

// yield gives the other shards a turn: the kernel wakes the first waiting shard, in
// the order in which they added the listener, which would get all connections that
// come one at a time. So it goes to the end of that order.
func (s *Shard) yield(slot int32) {
	if len(s.group.shards) == 1 {
		return
	}
	s.env.Epoll.Del(s.listen.all[slot].FD)
	if !s.arm(slot) {
		s.pauseListener(slot)
	}
}

// pauseListener stops watching a listener until retryAt.
func (s *Shard) pauseListener(slot int32) {
	s.env.Epoll.Del(s.listen.all[slot].FD)
	s.listen.paused = append(s.listen.paused, slot)
	s.listen.retryAt = s.env.Now + retryDelay
}

// retrying tells whether there is something to try again at retryAt.
func (l *listening) retrying() bool { return len(l.paused) > 0 || l.parked.l != nil }

// expireListeners calls retryListeners if it is time.
func (s *Shard) expireListeners() {
	if s.listen.retrying() && s.env.Now >= s.listen.retryAt {
		s.retryListeners()
	}
}

// retryListeners tries again to get a socket for the parked connection. Once that
// has worked, paused listeners are watched again.
func (s *Shard) retryListeners() {
	if p := s.listen.parked; p.l != nil {
		s.listen.parked = parked{}
		s.dial(p)
	}
	if s.listen.parked.l != nil {
		return
	}
	slots := s.listen.paused
	s.listen.paused = slots[:0]
	for _, slot := range slots {
		if !s.arm(slot) {
			s.pauseListener(slot)
		}
	}
}

// route sends an accepted connection to the host, to the guest past the tap, or to
// the guest through it.
func (s *Shard) route(fd int, sa *sys.Sockaddr, l *Listener) {
	ip, port, _, ok := sa.Inet()
	peer := wire.Addr(ip)
	switch {
	case !ok:
		sys.Close(fd)
	case l.Inside:
		s.toHost(fd, &peer, l)
	case peer.IsLoopback() && !s.group.bypass.Off:
		s.toNamespace(fd, &peer, l)
	case s.group.bypass.Only:
		s.count.Drop(stats.BadSource)
		sys.Reset(fd)
	default:
		s.toTap(fd, &peer, port, l)
	}
}

// toHost joins a connection from inside to a socket on the host.
func (s *Shard) toHost(fd int, peer *wire.Addr, l *Listener) {
	to := l.ToAddr
	if to.IsZero() {
		to = fwd.Loopback(peer)
	}
	s.dial(parked{fd, to, l})
}

// toNamespace joins a local connection on the host to a socket inside.
func (s *Shard) toNamespace(fd int, peer *wire.Addr, l *Listener) {
	to := l.ToAddr
	if to.IsZero() {
		to = s.insideAddr(peer)
	}
	if to.IsZero() { // connect(2) would take it for the loopback
		s.count.Drop(stats.BadDest)
		sys.Reset(fd)
		return
	}
	s.dial(parked{fd, to, l})
}

// insideAddr is the address in the namespace that local peers are connected to:
// the guest's own, of IPv4 if it has none of IPv6, or its loopback.
func (s *Shard) insideAddr(peer *wire.Addr) wire.Addr {
	if s.group.bypass.ToLoopback {
		return fwd.Loopback(peer)
	}
	to := s.env.Guest.Addr(peer, s.env.Rules)
	if to.IsZero() && !peer.Is4() {
		any4 := wire.Unspecified(true)
		to = s.env.Guest.Addr(&any4, s.env.Rules)
	}
	return to
}

// dial connects p to its target on the other side, or parks it until there is
// a socket.
func (s *Shard) dial(p parked) {
	other, errno := s.dialSocket(&p)
	switch errno {
	case 0:
		s.connect(&p, other)
	case sys.EAGAIN, sys.EMFILE, sys.ENFILE, sys.ENOBUFS, sys.ENOMEM:
		// The process that makes sockets inside may be out of descriptors
		// itself, and never cause SocketsReady: try again by time, too.
		s.listen.parked, s.listen.retryAt = p, s.env.Now+retryDelay
	default:
		s.count.Drop(stats.NoSocket)
		sys.Reset(p.fd)
	}
}

// dialSocket returns a new socket on p's other side.
func (s *Shard) dialSocket(p *parked) (fd int, errno sys.Errno) {
	v4 := p.to.Is4()
	if p.l.Inside {
		return sys.Socket(sys.Family(v4), sys.SOCK_STREAM, sys.IPPROTO_TCP)
	}
	return s.group.bypass.Socket(v4, wire.ProtoTCP)
}

// connect connects the socket other to p's target and splices it to p's.
func (s *Shard) connect(p *parked, other int) {
	scope, errno := uint32(0), sys.Errno(0)
	if p.l.Inside {
		scope, errno = s.env.Rules.ScopeOf(&p.to), s.env.BindSource(other, &p.to)
	} else {
		scope = s.group.bypass.scopeOf(&p.to)
	}
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(&p.to), p.to.Is4(), p.l.Target, scope)
	if errno == 0 {
		errno = sys.Connect(other, &sa)
	}
	if errno != 0 && errno != sys.EINPROGRESS {
		s.count.Drop(stats.BadDest)
		sys.Reset(p.fd)
		sys.Close(other)
		return
	}
	s.splice.Open(p.fd, other)
}

// toTap opens the connection towards the guest as frames.
func (s *Shard) toTap(fd int, peer *wire.Addr, port uint16, l *Listener) {
	from, ok := s.env.Rules.ToGuest(peer, s.env.Guest)
	to := l.ToAddr
	if to.IsZero() {
		to = s.env.Guest.OnLink(peer, s.env.Rules)
	}
	if !ok || to.IsZero() {
		s.count.Drop(stats.BadSource)
		sys.Reset(fd)
		return
	}
	s.tcp.Accept(fd, tcpx.Inbound{Peer: from, PeerPort: port, Guest: to, GuestPort: l.Target})
}
