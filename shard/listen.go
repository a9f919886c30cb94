package shard

import (
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
// many shards there are. Datagrams must be kept in order: their socket is one
// shard's, or multiplied.
type Listener struct {
	// FD is non-blocking, bound, and listening if it is a stream. It stays
	// the control thread's, which closes it after Group.Unlisten.
	FD int
	// Proto is wire.ProtoTCP or wire.ProtoUDP.
	Proto uint8
	// Inside is set for a socket in the namespace (-T, -U): its peers are
	// led to the host. Else they are led to the guest.
	Inside bool
	// Target is the port on the other side.
	Target uint16
	// ToAddr is the address on the other side; zero means the default one.
	ToAddr wire.Addr
	// Device is the interface that FD is bound to, if any.
	Device string
	// twins are the sockets of shards 1, 2, ... where FD is shard 0's alone
	// (see Group.spread); the group's.
	twins []int
}

// Bypass says how connections that are local on both sides avoid the tap.
type Bypass struct {
	// Off sends them through the tap as well (--no-splice).
	Off bool
	// Only means that there is no tap: nothing else is forwarded
	// (--splice-only).
	Only bool
	// ToLoopback leads them to the guest's loopback instead of its address
	// (--host-lo-to-ns-lo).
	ToLoopback bool
	// Socket returns a fresh non-blocking socket made inside the namespace,
	// or -1 when none is there right now: Group.SocketsReady tells when to
	// ask again. Safe for concurrent use.
	Socket func(v4 bool, proto uint8) int
	// Scope is the interface inside of link-local IPv6 targets.
	Scope uint32
}

// scopeOf is the interface index that an address inside needs.
func (b *Bypass) scopeOf(to *wire.Addr) uint32 {
	if to.IsLinkLocal() {
		return b.Scope
	}
	return 0
}

const (
	// acceptBatch bounds the connections taken from one listener in a pass.
	acceptBatch = 64
	// maxParked bounds connections that wait for a socket inside.
	maxParked = 256
	// retryAccept is how long a listener rests after the kernel had no
	// descriptor left for a connection, unless a flow ends before; in
	// nanoseconds. Connections wait in the listener's backlog meanwhile.
	retryAccept = 50_000_000
)

// parked is an accepted connection that waits for a socket inside.
type parked struct {
	fd int
	to wire.Addr
	l  *Listener
}

// listening is a shard's view of all listeners; an index is never used for
// another listener again while its events may be under way.
type listening struct {
	all     []*Listener // by token slot; nil after Unlisten
	udp     []datagrams // by the same slot, for UDP listeners
	resting []int32     // listeners not watched until restUntil
	until   int64
	parked  []parked
}

func (s *Shard) watch(l *Listener, slot int32) {
	for int(slot) >= len(s.listen.all) {
		s.listen.all, s.listen.udp = append(s.listen.all, nil), append(s.listen.udp, datagrams{})
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

func (s *Shard) arm(slot int32) bool {
	l := s.listen.all[slot]
	return s.env.Epoll.Add(l.FD, sys.EPOLLIN|sys.EPOLLEXCLUSIVE, uint64(flow.NewToken(flow.KindListenTCP, 0, slot))) == 0
}

func (s *Shard) unwatch(slot int32) {
	l := s.listen.all[slot]
	switch {
	case l == nil:
		return
	case l.Proto == wire.ProtoUDP:
		s.unwatchUDP(slot)
	default:
		s.env.Epoll.Del(l.FD)
	}
	s.listen.all[slot] = nil
}

// accept takes what a TCP listener has.
func (s *Shard) accept(slot int32) {
	l := s.listen.all[slot]
	if l == nil {
		return
	}
	var peer sys.Sockaddr
	for taken := range acceptBatch {
		if len(s.listen.parked) == maxParked && !l.Inside {
			s.restListener(slot) // unpark ends this rest
			return
		}
		fd, errno := sys.Accept(l.FD, &peer)
		switch errno {
		case 0:
			s.route(fd, &peer, l)
		case sys.EMFILE, sys.ENFILE, sys.ENOBUFS, sys.ENOMEM:
			s.count.Drop(stats.NoSocket)
			s.restListener(slot)
			return
		case sys.EAGAIN:
			if taken > 0 {
				s.yield(slot)
			}
			return
		default: // the connection failed before we took it (accept(2)): the next one
		}
	}
	s.yield(slot)
}

// yield lets the other shards have the listener's next connections: the kernel
// wakes the first idle one in the order in which they came to watch it, so
// that one shard would get all that come one after the other.
func (s *Shard) yield(slot int32) {
	if len(s.group.shards) == 1 {
		return
	}
	s.env.Epoll.Del(s.listen.all[slot].FD)
	if !s.arm(slot) {
		s.listen.resting = append(s.listen.resting, slot)
		s.listen.until = s.env.Now + retryAccept
	}
}

// restListener stops watching a listener that cannot be served now.
func (s *Shard) restListener(slot int32) {
	s.env.Epoll.Del(s.listen.all[slot].FD)
	s.listen.resting = append(s.listen.resting, slot)
	s.listen.until = s.env.Now + retryAccept
}

// waits tells whether there is something to try again at listen.until.
func (l *listening) waits() bool { return len(l.resting) > 0 || len(l.parked) > 0 }

// wakeListeners watches resting listeners again, and asks again for parked
// connections, when their time has come.
func (s *Shard) wakeListeners() {
	if !s.listen.waits() || s.env.Now < s.listen.until {
		return
	}
	if len(s.listen.parked) > 0 {
		s.unpark()
	}
	for _, slot := range s.listen.resting {
		if s.listen.all[slot] != nil {
			s.arm(slot)
		}
	}
	s.listen.resting = s.listen.resting[:0]
}

// route sends an accepted connection its way: to the host, to the guest past
// the tap, or to the guest through it.
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
	out, errno := sys.Socket(sys.Family(to.Is4()), sys.SOCK_STREAM, sys.IPPROTO_TCP)
	if errno != 0 {
		s.count.Drop(stats.NoSocket)
		sys.Reset(fd)
		return
	}
	if errno := s.env.BindSource(out, &to); errno != 0 {
		s.count.Drop(stats.BadDest)
		sys.Close(out)
		sys.Reset(fd)
		return
	}
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(&to), to.Is4(), l.Target, s.env.Rules.ScopeOf(&to))
	s.join(fd, out, &sa)
}

// toNamespace joins a local connection on the host to a socket inside.
func (s *Shard) toNamespace(fd int, peer *wire.Addr, l *Listener) {
	to := l.ToAddr
	switch {
	case !to.IsZero():
	case s.group.bypass.ToLoopback:
		to = fwd.Loopback(peer)
	default:
		to = s.env.Guest.Addr(peer, s.env.Rules)
	}
	s.inside(parked{fd, to, l})
}

// inside connects p to its target in the namespace, or parks it until a socket
// is there.
func (s *Shard) inside(p parked) {
	in := s.group.bypass.Socket(p.to.Is4(), wire.ProtoTCP)
	if in >= 0 {
		var sa sys.Sockaddr
		sa.SetInet((*[16]byte)(&p.to), p.to.Is4(), p.l.Target, s.group.bypass.scopeOf(&p.to))
		s.join(p.fd, in, &sa)
		return
	}
	if len(s.listen.parked) == maxParked {
		s.count.Drop(stats.NoSocket)
		sys.Reset(p.fd)
		return
	}
	// SocketsReady tells when there are sockets again, but who makes them may
	// have no descriptor left himself: ask again then as well.
	s.listen.parked = append(s.listen.parked, p)
	s.listen.until = s.env.Now + retryAccept
}

// unpark tries parked connections again, oldest first. Listeners that rest may
// go on at once.
func (s *Shard) unpark() {
	waiting := s.listen.parked
	s.listen.parked = make([]parked, 0, maxParked)
	for _, p := range waiting {
		s.inside(p)
	}
	if len(s.listen.parked) == 0 {
		s.listen.until = s.env.Now
	}
}

// join connects b to its target and to the connection a.
func (s *Shard) join(a, b int, to *sys.Sockaddr) {
	if errno := sys.Connect(b, to); errno != 0 && errno != sys.EINPROGRESS {
		sys.Reset(a)
		sys.Close(b)
		return
	}
	s.relay.Open(a, b)
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
