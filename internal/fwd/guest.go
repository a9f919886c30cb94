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
	v4  atomic.Pointer[wire.Addr]
	v6  atomic.Pointer[wire.Addr] // global
	ll6 atomic.Pointer[wire.Addr] // link-local
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
	p := g.place(a)
	if cur := p.Load(); cur == nil || *cur != *a {
		seen := *a
		p.Store(&seen)
	}
}

func (g *Guest) place(a *wire.Addr) *atomic.Pointer[wire.Addr] {
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
	if a := g.place(peer).Load(); a != nil {
		return *a
	}
	if !peer.Is4() && peer.IsLinkLocal() {
		if a := g.v6.Load(); a != nil {
			return *a
		}
	}
	return r.Of(peer).Guest
}
