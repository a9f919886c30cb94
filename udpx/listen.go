package udpx

import (
	"fmt"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard/flow"
)

// Listener says where the datagrams of a listening socket go.
type Listener struct {
	// GuestPort is the port in the guest.
	GuestPort uint16
	// Guest is the address in the guest; zero means the one it uses.
	Guest wire.Addr
	// Device is the interface the socket is bound to, if any.
	Device string
	// Local, if set, gets each received row first: n messages in in. It
	// forwards those that bypass the tap, and returns which they were: bit i
	// is the i-th message.
	Local func(in *sys.RecvRow, n int) (taken uint64)
}

// listener is one listening socket. Its id is its index in UDP.listeners and the
// slot of its token; ids are used again, with the next generation.
type listener struct {
	Listener
	fd   int // -1: unused
	id   int32
	gen  uint32
	port uint16
	addr wire.Addr // unspecified for a wildcard
	v6   bool
	dual bool // an IPv6 socket that serves IPv4 as well
	// exclusive: no other socket may be bound to the port, so flows share
	// this one. sharers is how many do.
	exclusive bool
	sharers   int32
}

// Listen serves the bound UDP socket fd until Unlisten(id). The descriptor stays
// the caller's. One shard serves a socket (for the order of datagrams: see
// package relay); the shards may have one each of a SO_REUSEPORT group. A socket
// bound with SO_REUSEADDR may have a port that flows of the guest have already
// (see Ports.Holds).
func (u *UDP) Listen(fd int, l Listener) (id int32, err error) {
	n := listener{Listener: l, fd: fd}
	if err := n.describe(); err != nil {
		return 0, err
	}
	for _, errno := range []sys.Errno{sys.ReuseAddress(fd, true), sys.EnablePacketInfo(fd, n.v6)} {
		if errno != 0 {
			return 0, fmt.Errorf("prepare listening socket: %w", errno)
		}
	}
	sys.SetReceiveBuffer(fd, largeBuffer)
	if u.gro {
		sys.EnableUDPGRO(fd)
	}
	id = u.newListenerID()
	n.id, n.gen = id, u.listeners[id].gen
	tok := flow.NewToken(flow.KindListenUDP, n.gen, id)
	if errno := u.env.Epoll.Add(fd, sys.EPOLLIN, uint64(tok)); errno != 0 {
		u.freeIDs = append(u.freeIDs, id)
		return 0, fmt.Errorf("watch listening socket: %w", errno)
	}
	u.listeners[id] = n
	n.each(func(v6 bool) { u.ports.forward(v6, n.port, n.GuestPort) })
	return id, nil
}

// describe reads what the socket is bound to.
func (n *listener) describe() error {
	var sa sys.Sockaddr
	if errno := sys.Sockname(n.fd, &sa); errno != 0 {
		return fmt.Errorf("read address of listening socket: %w", errno)
	}
	ip, port, _, ok := sa.Inet()
	if !ok || port == 0 {
		return fmt.Errorf("read address of listening socket: not bound to an IP address and port")
	}
	n.addr, n.port = ip, port
	n.v6 = !n.addr.Is4()
	n.dual = n.v6 && !sys.IsV6Only(n.fd)
	return nil
}

// each calls fn for each family that n serves.
func (n *listener) each(fn func(v6 bool)) {
	fn(n.v6)
	if n.dual {
		fn(false)
	}
}

// newListenerID is a free index into listeners.
func (u *UDP) newListenerID() int32 {
	if n := len(u.freeIDs); n > 0 {
		id := u.freeIDs[n-1]
		u.freeIDs = u.freeIDs[:n-1]
		return id
	}
	u.listeners = append(u.listeners, listener{fd: -1})
	return int32(len(u.listeners) - 1)
}

// Unlisten ends what Listen began; call it before closing the descriptor. Flows
// that it made go on, except those that share its socket.
func (u *UDP) Unlisten(id int32) {
	if id < 0 || int(id) >= len(u.listeners) || u.listeners[id].fd < 0 {
		return
	}
	n := &u.listeners[id]
	u.dropSharers(id)
	u.env.Epoll.Del(n.fd)
	n.each(func(v6 bool) { u.ports.unforward(v6, n.port) })
	*n = listener{fd: -1, gen: n.gen + 1}
	u.freeIDs = append(u.freeIDs, id)
}

// listenerOn finds a listener on the host port, or nil.
func (u *UDP) listenerOn(port uint16, v6 bool) *listener {
	for i := range u.listeners {
		n := &u.listeners[i]
		if n.fd >= 0 && n.port == port && (n.v6 == v6 || n.dual) {
			return n
		}
	}
	return nil
}

// listenerEvent receives the datagrams that wait at a listener.
func (u *UDP) listenerEvent(tok flow.Token, bits uint32) {
	id := tok.Slot()
	if int(id) >= len(u.listeners) || u.listeners[id].fd < 0 || u.listeners[id].gen&0xffffff != tok.Gen() {
		return
	}
	l := &u.listeners[id]
	if bits&sys.EPOLLERR != 0 {
		sys.SocketError(l.fd)
	}
	for range maxRounds {
		asked := u.prepareRow(recvRow)
		n, errno := u.recv.Recv(l.fd, asked)
		if errno != 0 {
			return
		}
		u.guest = u.env.Guest.MAC()
		u.lastInbound.slot = -1
		taken := uint64(0)
		if l.Local != nil {
			taken = l.Local(u.recv, n)
		}
		for i := range n {
			if taken>>i&1 == 0 {
				u.inbound(l, i)
			}
		}
		u.finish()
		if n < asked {
			return
		}
	}
}

// inbound sends the i-th message of the receive row, which came to l, to the guest,
// and makes its flow if there is none.
func (u *UDP) inbound(l *listener, i int) {
	ip, port, scope, ok := u.recv.From(i).Inet()
	peer := wire.Addr(ip)
	switch {
	case !ok:
		u.env.Count.Drop(stats.Malformed)
		return
	case u.recv.Truncated(i):
		u.env.Count.Drop(stats.TooLong)
		return
	}
	slot := u.lastInbound.slot
	if slot < 0 || u.lastInbound.peer != peer || u.lastInbound.port != port {
		at := u.localOf(l, i, scope)
		if slot = u.inboundFlow(l, &peer, port, &at); slot == refusedFlow {
			return
		}
	}
	if slot == otherShardsFlow {
		u.emit(&u.scratch, i)
		return
	}
	u.lastInbound = inboundCache{peer, port, slot}
	r := &u.rec[slot]
	u.touch(r, &r.fromHost)
	u.emit(&r.hdr, i)
}

// inboundCache is the flow of the last datagram that a listener got in this row.
type inboundCache struct {
	peer wire.Addr
	port uint16
	slot int32 // -1: none
}

// inboundFlow finds or makes the flow of a datagram from peer that came to l at at.
// If the flow is another shard's, it fills u.scratch with the headers.
func (u *UDP) inboundFlow(l *listener, peer *wire.Addr, port uint16, at *local) int32 {
	key, ok := u.inboundKey(l, peer, port)
	if !ok {
		u.env.Count.Drop(stats.BadSource)
		return refusedFlow
	}
	hash := u.table.Hash(&key)
	slot := u.table.Find(&key, hash)
	if slot < 0 && l.Guest.IsZero() {
		slot = u.findAnyAddr(l, &key)
	}
	if slot >= 0 && u.rec[slot].peer != *peer {
		// Two peers with one address in the guest's eyes: nobody could tell
		// which of them an answer is for.
		u.env.Count.Drop(stats.BadSource)
		return refusedFlow
	}
	if slot < 0 {
		slot = u.admit(l, &key, hash, peer, at)
	}
	if slot == otherShardsFlow {
		u.finish() // the run that uses the headers in scratch
		u.scratch.fill(&u.env.Rules.OurMAC, &key)
	}
	return slot
}

// Results of admit that are not slots.
const (
	refusedFlow = -1
	// otherShardsFlow: another shard has just made the flow. This shard only
	// delivers the datagram.
	otherShardsFlow = -2
)

// inboundKey is the key of a datagram from peer to l; false if the rules give none.
func (u *UDP) inboundKey(l *listener, peer *wire.Addr, port uint16) (key flow.Key, ok bool) {
	from, ok := u.env.Rules.ToGuest(peer, u.env.Guest)
	if !ok || u.env.Rules.NoUDP || port == 0 {
		return key, false
	}
	to := l.Guest
	if to.IsZero() {
		to = u.env.Guest.OnLink(peer, u.env.Rules)
	}
	if to.IsZero() || to.Is4() != from.Is4() {
		return key, false
	}
	return flow.Key{
		Guest: to, GuestPort: l.GuestPort, Remote: from, RemotePort: port, Proto: wire.ProtoUDP,
	}, true
}

// localOf is the address and port of l that the i-th message came to.
func (u *UDP) localOf(l *listener, i int, scope uint32) local {
	at := local{addr: l.addr, port: l.port, device: l.Device}
	if ip, ok := u.recv.Local(i); ok {
		at.addr = ip
	}
	at.scope = scope // which only link-local peers have
	return at
}

// admit makes the flow of a new peer, whose first datagram came to l at at.
func (u *UDP) admit(l *listener, key *flow.Key, hash uint64, peer *wire.Addr, at *local) int32 {
	if u.env.ClaimFlow(hash) != u.env.Shard {
		return otherShardsFlow
	}
	slot := u.table.Insert(key, hash)
	if slot < 0 {
		u.env.Release(hash)
		u.env.Count.Drop(stats.TableFull)
		return refusedFlow
	}
	r := &u.rec[slot]
	*r = record{peer: *peer, peerPort: key.RemotePort}
	if at.addr.Is4() != peer.Is4() || at.addr.IsMulticast() {
		at.addr = wire.Unspecified(peer.Is4())
	}
	if errno := u.attach(r, slot, l, at); errno != 0 {
		u.abandon(r, slot)
		u.env.Count.Drop(reasonOf(errno))
		return refusedFlow
	}
	u.begin(slot)
	u.indexAnyAddr(slot)
	return slot
}

// bindAt binds the socket of a flow that starts on the host to at, the local address
// of its first datagram, which it shares with the listener.
func (u *UDP) bindAt(r *record, key *flow.Key, at *local) sys.Errno {
	sys.ReuseAddress(r.fd, true)
	r.hostPort = at.port
	if at.device != "" {
		if err := sys.BindToDevice(r.fd, at.device); err != nil {
			return sys.ENETUNREACH
		}
	}
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(&at.addr), at.addr.Is4(), at.port, at.scope)
	errno := sys.Bind(r.fd, &sa)
	if errno == 0 {
		r.claimed = u.ports.join(!r.peer.Is4(), at.port, u.tagOf(key))
	}
	return errno
}
