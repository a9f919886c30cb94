package fwd

import (
	"encoding/binary"
	"sync/atomic"

	"penne/internal/wire"
)

// Guest is what has been observed of the guest: its Ethernet address and the
// source addresses it last used. All shards share it: reads are one atomic load,
// and writes happen only on a change, which is rare. The zero Guest is ready to
// use.
type Guest struct {
	mac atomic.Uint64 // low 48 bits; 0 if not known
	v4  lastAddr
	v6  lastAddr // global
	ll6 lastAddr // link-local
}

// lastAddr is the address of one kind that was used last. A few recent ones are
// kept, so that a guest that alternates between several does not allocate.
type lastAddr struct {
	last   atomic.Pointer[wire.Addr]
	recent [8]atomic.Pointer[wire.Addr]
	next   atomic.Uint32
}

// note makes a the last address.
func (s *lastAddr) note(a *wire.Addr) {
	if cur := s.last.Load(); cur != nil && *cur == *a {
		return
	}
	for i := range s.recent {
		if p := s.recent[i].Load(); p != nil && *p == *a {
			s.last.Store(p)
			return
		}
	}
	fresh := *a
	s.recent[s.next.Add(1)%uint32(len(s.recent))].Store(&fresh)
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

// SawMAC notes the source address of a frame; group addresses are ignored.
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

// SawAddr notes a source address the guest used. Those that are not a host's
// (unspecified, loopback, multicast, broadcast) are ignored.
func (g *Guest) SawAddr(a *wire.Addr) {
	if a.IsUnicastHost() {
		g.kindOf(a).note(a)
	}
}

// kindOf is where addresses of a's kind are kept.
func (g *Guest) kindOf(a *wire.Addr) *lastAddr {
	switch {
	case a.Is4():
		return &g.v4
	case a.IsLinkLocal():
		return &g.ll6
	}
	return &g.v6
}

// Addr is the guest's address for packets from peer: the one of that family it
// last used (a link-local one for link-local IPv6 peers), else the configured
// one. It is zero if neither is known.
func (g *Guest) Addr(peer *wire.Addr, r *Rules) wire.Addr {
	if a := g.kindOf(peer).last.Load(); a != nil {
		return *a
	}
	if !peer.Is4() && peer.IsLinkLocal() {
		if a := g.v6.last.Load(); a != nil {
			return *a
		}
	}
	return r.Of(peer).Guest
}

// OnLink is Addr for frames, which need no scope to reach a link-local address: in
// local mode, the guest may have no other IPv6 address.
func (g *Guest) OnLink(peer *wire.Addr, r *Rules) wire.Addr {
	to := g.Addr(peer, r)
	if a := g.ll6.last.Load(); a != nil && to.IsZero() && !peer.Is4() {
		return *a
	}
	return to
}
