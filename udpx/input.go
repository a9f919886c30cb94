package udpx

import (
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
)

// Input takes UDP frames of the guest that wire.Parse found whole, at most
// ring.BatchSize of them, and sends their datagrams. The frames become the
// UDP's: when it returns, all are back in the pool or with another shard.
func (u *UDP) Input(frames []*ring.Frame) {
	for _, f := range frames {
		if slot := u.find(f); slot >= 0 {
			u.queue(slot, f)
		}
	}
	for _, slot := range u.active[:u.nactive] {
		r := &u.rec[slot]
		u.transmit(r)
		u.touch(r, &r.fromGuest)
	}
	u.nactive = 0
}

// queue adds f to the frames that slot's flow sends at the end of this Input.
func (u *UDP) queue(slot int32, f *ring.Frame) {
	r := &u.rec[slot]
	f.Next = nil
	if r.head == nil {
		r.head = f
		u.active[u.nactive] = slot
		u.nactive++
	} else {
		r.tail.Next = f
	}
	r.tail = f
}

// touch notes a burst in one direction, which bursts counts.
func (u *UDP) touch(r *record, bursts *uint8) {
	r.last = u.env.Now
	if *bursts < 255 {
		*bursts++
	}
}

// find returns the slot of f's flow, which it makes if need be; -1 means that f is
// no longer the caller's.
func (u *UDP) find(f *ring.Frame) int32 {
	if size := superSize(f); size != 0 && f.H.PayloadLen/size > maxPieces {
		u.refuse(f, stats.Malformed)
		return -1
	}
	key := flow.KeyOf(&f.H)
	if u.lastSlot >= 0 && key == u.lastKey {
		return u.lastSlot
	}
	hash := u.table.Hash(&key)
	slot := u.table.Find(&key, hash)
	if slot < 0 {
		if slot = u.findOrOpen(f, &key, hash); slot < 0 {
			return -1
		}
	}
	u.lastKey, u.lastSlot = key, slot
	return slot
}

// findOrOpen hands f to the shard that has its flow and returns -1; or returns the
// flow that f answers from another address; or makes one.
func (u *UDP) findOrOpen(f *ring.Frame, key *flow.Key, hash uint64) int32 {
	if u.env.HandToOwner(f, hash) {
		return -1
	}
	anyKey, anyHash := u.anyAddrKey(key)
	if slot := u.anyAddr.find(&anyKey, anyHash); slot >= 0 {
		return slot
	}
	if u.env.HandToOwner(f, anyHash) {
		return -1
	}
	return u.open(f, key, hash)
}

// open makes the flow of f, or gets rid of f and returns -1.
func (u *UDP) open(f *ring.Frame, key *flow.Key, hash uint64) int32 {
	to, reason := u.route(key)
	if reason != stats.NumReasons {
		u.refuse(f, reason)
		return -1
	}
	if !u.env.Claim(f, hash) {
		return -1
	}
	slot := u.table.Insert(key, hash)
	if slot < 0 {
		u.env.Release(hash)
		u.notice.Reject(u.env, f, sys.EACCES)
		u.refuse(f, stats.TableFull)
		return -1
	}
	r := &u.rec[slot]
	*r = record{peer: to, peerPort: key.RemotePort}
	if errno := u.connect(r, slot, nil); errno != 0 {
		u.abandon(r, slot)
		u.notice.Reject(u.env, f, errno)
		u.refuse(f, reasonOf(errno))
		return -1
	}
	u.begin(slot)
	u.env.Guest.SawAddr(&key.Guest)
	return slot
}

// refuse drops the guest's frame f.
func (u *UDP) refuse(f *ring.Frame, why stats.Reason) {
	u.env.Count.Drop(why)
	u.env.Pool.Put(f)
}

// route is the address that a flow's datagrams are sent to, or the reason to drop
// them; NumReasons is none.
func (u *UDP) route(key *flow.Key) (to wire.Addr, why stats.Reason) {
	rules := u.env.Rules
	switch {
	case rules.NoUDP, !rules.Of(&key.Remote).On:
		return to, stats.FamilyOff
	case !key.Guest.IsUnicastHost():
		return to, stats.BadSource
	case key.RemotePort == 0:
		return to, stats.BadDest
	}
	to, ok := rules.ToHost(&key.Remote, key.RemotePort)
	if !ok {
		return to, stats.BadDest
	}
	return to, stats.NumReasons
}

// reasonOf is the drop reason for a socket's errno.
func reasonOf(errno sys.Errno) stats.Reason {
	switch errno {
	case sys.EMFILE, sys.ENFILE, sys.ENOBUFS, sys.ENOMEM, sys.EADDRINUSE:
		return stats.NoSocket
	case sys.EMSGSIZE:
		return stats.TooLong
	}
	return stats.BadDest
}

// local is the address and port a listener got a flow's first datagram on.
type local struct {
	addr   wire.Addr
	port   uint16
	scope  uint32
	device string
	// refused is set when a flow's socket could not be bound there.
	refused bool
}

// connect makes the socket of the flow at slot: bound to the host port of the
// guest's port, or to at for a flow that starts on the host.
func (u *UDP) connect(r *record, slot int32, at *local) sys.Errno {
	v6 := !r.peer.Is4()
	fd, errno := sys.Socket(sys.Family(!v6), sys.SOCK_DGRAM, 0)
	if errno != 0 {
		r.fd = -1
		return errno
	}
	r.fd = fd
	if v6 {
		sys.V6Only(fd)
	}
	sys.QueueErrors(fd, v6)
	sys.SetReceiveBuffer(fd, largeBuffer)
	if u.gro {
		sys.EnableUDPGRO(fd)
	}
	scope := u.env.Rules.ScopeOf(&r.peer)
	if at != nil {
		errno = u.bindAt(r, u.table.Key(slot), at)
		at.refused, scope = errno != 0, at.scope
	} else {
		errno = u.bindOut(r, u.table.Key(slot))
	}
	if errno != 0 {
		return errno
	}
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(&r.peer), !v6, r.peerPort, scope)
	if errno = sys.Connect(fd, &sa); errno != 0 {
		return errno
	}
	tok := flow.NewToken(flow.KindUDP, u.table.Gen(slot), slot)
	return u.env.Epoll.Add(fd, sys.EPOLLIN, uint64(tok))
}

// bindOut binds the socket of a flow that starts in the guest.
func (u *UDP) bindOut(r *record, key *flow.Key) sys.Errno {
	addr, ok := u.env.Source(r.fd, &r.peer)
	if !ok {
		return sys.ENETUNREACH
	}
	b := binding{fd: r.fd, addr: addr, scope: u.env.Rules.ScopeOf(&addr), guest: key.GuestPort, v6: !r.peer.Is4()}
	if u.sameHostPeer(key, &r.peer) {
		return b.bind(0)
	}
	b.tag = u.tagOf(key)
	port, errno := u.ports.bind(&b)
	r.hostPort, r.claimed = port, port != 0
	return errno
}

// tagOf is the tag of the guest's address and port in key.
func (u *UDP) tagOf(key *flow.Key) uint32 {
	side := flow.Key{Guest: key.Guest, GuestPort: key.GuestPort, Proto: key.Proto}
	return tagOf(u.table.Hash(&side), key.GuestPort)
}

// sameHostPeer tells whether the guest's port has a flow to the same peer under
// another address already, say to a resolver's own and to the one it is forwarded
// from. With a port in common they would be the same flow on the host.
func (u *UDP) sameHostPeer(key *flow.Key, peer *wire.Addr) bool {
	fam := u.env.Rules.Of(&key.Remote)
	for _, name := range [...]wire.Addr{*peer, fam.HostLoopback, fam.GuestMap, fam.DNSForward} {
		if name == key.Remote || name.IsZero() {
			continue
		}
		k := *key
		k.Remote = name
		if slot := u.table.Find(&k, u.table.Hash(&k)); slot >= 0 && u.rec[slot].peer == *peer {
			return true
		}
	}
	return false
}

// begin completes the record of a flow that has its socket.
func (u *UDP) begin(slot int32) {
	r, key := &u.rec[slot], u.table.Key(slot)
	r.last, r.segMax, r.want = u.env.Now, 65535, firstWant
	r.hdr.fill(&u.env.Rules.OurMAC, key)
	u.wheel.Set(slot, u.env.Now+u.idle)
	u.env.Count.UDPOpened++
	u.env.Count.UDPFlows = uint64(u.table.Len())
}

// abandon removes a flow whose socket could not be made.
func (u *UDP) abandon(r *record, slot int32) {
	if r.fd >= 0 {
		sys.Close(r.fd)
	}
	key := u.table.Key(slot)
	if r.claimed {
		u.ports.release(!r.peer.Is4(), r.hostPort, key.GuestPort)
	}
	u.env.Release(u.table.HashAt(slot))
	u.table.Remove(slot)
	*r = record{}
	u.lastSlot = -1
}
