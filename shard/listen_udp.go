package shard

import (
	"math/bits"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/udpx"
	"penne/udpx/relay"
)

// udpServing holds the ids of a UDP listener with udpx and with the relay; -1: it
// has none there.
type udpServing struct{ tap, relay int32 }

// namespaceSide is the namespace as the relay sees it.
func (s *Shard) namespaceSide() relay.Side {
	return relay.Side{
		Socket: func(v4 bool) int {
			fd, errno := s.group.bypass.Socket(v4, wire.ProtoUDP)
			if errno != 0 {
				return -1
			}
			return fd
		},
		Addr:  s.insideAddr,
		Scope: s.group.bypass.Scope,
		Held:  &s.group.heldInside,
	}
}

// watchUDP serves this shard's socket of a UDP listener, if it has one. One inside
// is the relay's; one on the host is udpx's, from which the relay takes what is
// local.
func (s *Shard) watchUDP(l *Listener, slot int32) {
	by := &s.listen.udp[slot]
	*by = udpServing{-1, -1}
	fd := l.socketOf(int(s.env.Shard), len(s.group.shards))
	if fd < 0 {
		return
	}
	err := s.serveUDP(l, fd, by)
	if err != nil {
		s.unwatchUDP(slot)
		s.count.Drop(stats.NoSocket)
	}
}

func (s *Shard) serveUDP(l *Listener, fd int, by *udpServing) (err error) {
	r := relay.Listener{FD: fd, Target: l.Target, ToAddr: l.ToAddr, To: &s.namespace}
	if l.Inside {
		r.To = &s.host
		id, err := s.relay.Serve(r)
		if err == nil {
			by.relay = id
		}
		return err
	}
	u := udpx.Listener{GuestPort: l.Target, Guest: l.ToAddr, Device: l.Device}
	if !s.group.bypass.Off {
		id := s.relay.Share(r)
		by.relay = id
		u.Local = func(in *sys.RecvRow, n int) uint64 { return s.local(id, in, n) }
	}
	id, err := s.udp.Listen(fd, u)
	if err == nil {
		by.tap = id
	}
	return err
}

// local is udpx.Listener.Local: the relay takes the datagrams of local peers.
// Without a tap the others are dropped.
func (s *Shard) local(id int32, in *sys.RecvRow, n int) (taken uint64) {
	taken = s.relay.Local(id, in, n)
	if !s.group.bypass.Only {
		return taken
	}
	all := ^uint64(0) >> (64 - n)
	s.count.Drops[stats.BadSource] += uint64(bits.OnesCount64(all &^ taken))
	return all
}

// unwatchUDP undoes watchUDP.
func (s *Shard) unwatchUDP(slot int32) {
	by := &s.listen.udp[slot]
	if by.tap >= 0 {
		s.udp.Unlisten(by.tap)
	}
	if by.relay >= 0 {
		s.relay.Remove(by.relay)
	}
	*by = udpServing{-1, -1}
}
