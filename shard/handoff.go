package shard

import (
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/tcpx"
)

// handOff passes f to the shard that owns its flow. It is Env.HandOff.
func (s *Shard) handOff(f *ring.Frame, owner uint8) {
	f.Handed = true
	if !s.group.ring(s.env.Shard, owner).Push(f) {
		s.drop(f, stats.HandoffFull)
		return
	}
	s.count.HandedOut++
	s.pushed[owner] = true
}

// handInbound passes an accepted connection to the shard that has, or had, a flow of its
// addresses and ports. That is rare. It is tcpx.Config.HandInbound.
func (s *Shard) handInbound(fd int, in tcpx.Inbound, owner uint8) {
	s.group.shards[owner].post(func(s *Shard) { s.tcp.Accept(fd, in) })
}

// takeHanded translates what peers handed over, and takes back own frames that
// they return.
func (s *Shard) takeHanded() {
	if s.env.Directory == nil {
		return
	}
	for from := range s.group.shards {
		if from != int(s.env.Shard) {
			s.takeFrom(uint8(from))
		}
	}
}

func (s *Shard) takeFrom(from uint8) {
	in := s.group.ring(from, s.env.Shard)
	for n := 0; n < ring.BatchSize; {
		f := in.Pop()
		if f == nil {
			break
		}
		if f.Home() == s.env.Shard { // one of ours, returned
			s.env.Pool.Put(f)
			continue
		}
		s.count.HandedIn++
		s.receiveHanded(f)
		n++
	}
	s.translate()
}

// receiveHanded sorts a frame that the sender has parsed and admitted.
func (s *Shard) receiveHanded(f *ring.Frame) {
	switch f.H.Proto {
	case wire.ProtoTCP:
		s.tcpIn.Add(f)
	case wire.ProtoUDP:
		s.udpIn.Add(f)
	default:
		s.pingIn.Add(f)
	}
}

// sendHome returns frames of other shards' arenas. Those that find the ring full
// stay here until the next pass.
func (s *Shard) sendHome() {
	list := s.env.Pool.Foreign
	s.env.Pool.Foreign = nil
	for list != nil {
		f := list
		list = f.Next
		f.Next = nil
		if s.group.ring(s.env.Shard, f.Home()).Push(f) {
			s.pushed[f.Home()] = true
			continue
		}
		f.Next, s.env.Pool.Foreign = s.env.Pool.Foreign, f
	}
}

// signalPeers wakes the blocked shards that frames were pushed to in this pass. A
// shard sets asleep before it looks at its rings for the last time, so either it
// sees the frame or we see that it is asleep.
func (s *Shard) signalPeers() {
	for i, pushed := range s.pushed {
		if !pushed {
			continue
		}
		s.pushed[i] = false
		if peer := s.group.shards[i]; peer.asleep.Load() {
			sys.Signal(peer.wake)
		}
	}
}
