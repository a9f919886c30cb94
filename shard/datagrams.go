package shard

import (
	"math/bits"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/udpx"
	"penne/udpx/relay"
)

// datagrams says who serves a UDP listener, and under which number; -1 stands
// for nobody.
type datagrams struct{ tap, relay int32 }

// side is that of the namespace, for datagrams that bypass the tap.
func (s *Shard) side() relay.Side {
	return relay.Side{
		Socket: func(v4 bool) int {
			fd, errno := s.group.bypass.Socket(v4, wire.ProtoUDP)
			if errno != 0 {
				return -1
			}
			return fd
		},
		Addr:  s.inside,
		Scope: s.group.bypass.Scope,
	}
}

// watchUDP serves this shard's socket of a UDP listener, if it has one: one
// inside by the relay, one on the host by the tap path, with the relay taking
// from it what is local.
func (s *Shard) watchUDP(l *Listener, slot int32) {
	by := &s.listen.udp[slot]
	*by = datagrams{-1, -1}
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

func (s *Shard) serveUDP(l *Listener, fd int, by *datagrams) (err error) {
	r := relay.Listener{FD: fd, Target: l.Target, ToAddr: l.ToAddr, To: &s.namespace}
	if l.Inside {
		r.To = &relay.Host
		id, err := s.datagramRelay.Serve(r)
		if err == nil {
			by.relay = id
		}
		return err
	}
	u := udpx.Listener{GuestPort: l.Target, Guest: l.ToAddr, Device: l.Device}
	if !s.group.bypass.Off {
		id := s.datagramRelay.Share(r)
		by.relay = id
		u.Local = func(in *sys.RecvRow, n int) uint64 { return s.local(id, in, n) }
	}
	id, err := s.udp.Listen(fd, u)
	if err == nil {
		by.tap = id
	}
	return err
}

// local takes the datagrams of local peers. Without a tap it takes all, and the
// rest are dropped, as connections of others are reset.
func (s *Shard) local(id int32, in *sys.RecvRow, n int) (taken uint64) {
	taken = s.datagramRelay.Local(id, in, n)
	if !s.group.bypass.Only {
		return taken
	}
	all := ^uint64(0) >> (64 - n)
	s.count.Drops[stats.BadSource] += uint64(bits.OnesCount64(all &^ taken))
	return all
}

// unwatchUDP ends what watchUDP began.
func (s *Shard) unwatchUDP(slot int32) {
	by := &s.listen.udp[slot]
	if by.tap >= 0 {
		s.udp.Unlisten(by.tap)
	}
	if by.relay >= 0 {
		s.datagramRelay.Remove(by.relay)
	}
	*by = datagrams{-1, -1}
}
