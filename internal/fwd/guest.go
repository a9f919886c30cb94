package fwd

import (
	"encoding/binary"
	"sync/atomic"

	"penne/internal/wire"
)

// Guest is what has been observed of the guest, shared by all shards: its
// Ethernet address and the last source addresses it used. Reads are one atomic
// load; a shard writes only on a change, which is rare. Safe for concurrent
// use; the zero Guest knows nothing.
type Guest struct {
	mac atomic.Uint64 // low 48 bits; 0: not known
	v4  seen
	v6  seen // global
	ll6 seen // link-local
}

// seen is the last address of a kind. A few earlier ones are kept, so that a
// guest that uses several by turns makes no garbage.
type seen struct {
	last atomic.Pointer[wire.Addr]
	kept [8]atomic.Pointer[wire.Addr]
	next atomic.Uint32
}

// note makes a the last one.
func (s *seen) note(a *wire.Addr) {
	if cur := s.last.Load(); cur != nil && *cur == *a {
		return
	}
	for i := range s.kept {
		if p := s.kept[i].Load(); p != nil && *p == *a {
			s.last.Store(p)
			return
		}
	}
	fresh := *a
	s.kept[s.next.Add(1)%uint32(len(s.kept))].Store(&fresh)
	s.last.Store(&fresh)
}

// MAC is the guest's Ethernet address, or broadcast while none is known.
func (g *Guest) MAC() wire.MAC {
	v := g.mac.Load()
	if v == 0 {
		return wire.Broadcast
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], v)
	return wire.MAC(b[2:])
}

// SawMAC notes the source of a frame; group addresses are ignored.
func (g *Guest) SawMAC(m *wire.MAC) {
	if m.IsMulticast() {
		return
	}
	var b [8]byte
	copy(b[2:], m[:])
	if v := binary.BigEndian.Uint64(b[:]); g.mac.Load() != v {
		g.mac.Store(v)
	}
}

// SawAddr notes a source address the guest used. Addresses that cannot be
// answered (unspecified, loopback, multicast) are ignored.
func (g *Guest) SawAddr(a *wire.Addr) {
	if a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsBroadcast4() {
		return
	}
	g.place(a).note(a)
}

func (g *Guest) place(a *wire.Addr) *seen {
	switch {
	case a.Is4():
		return &g.v4
	case a.IsLinkLocal():
		return &g.ll6
	}
	return &g.v6
}

// Addr is where packets for the guest go that came from peer: the observed
// address of the family (for link-local IPv6 peers the observed link-local
// one), else the configured one. It may be zero while nothing is known.
func (g *Guest) Addr(peer *wire.Addr, r *Rules) wire.Addr {
	if a := g.place(peer).last.Load(); a != nil {
		return *a
	}
	if !peer.Is4() && peer.IsLinkLocal() {
		if a := g.v6.last.Load(); a != nil {
			return *a
		}
	}
	return r.Of(peer).Guest
}

// OnLink is Addr for frames: they reach the guest's link-local address without a
// scope, and in local mode it has no other of IPv6.
func (g *Guest) OnLink(peer *wire.Addr, r *Rules) wire.Addr {
	to := g.Addr(peer, r)
	if a := g.ll6.last.Load(); a != nil && to.IsZero() && !peer.Is4() {
		return *a
	}
	return to
}
