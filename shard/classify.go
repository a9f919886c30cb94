package shard

import (
	"fmt"

	"penne/internal/arp"
	"penne/internal/ndp"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
)

// tapPasses bounds the batches read from the tap before sockets and timers get
// their turn.
const tapPasses = 4

// drainTap reads batches from the tap and gives them to the translators. tapReady
// stays set while frames may be left.
func (s *Shard) drainTap() {
	for range tapPasses {
		if !s.tapReady {
			return
		}
		s.rx.N = 0
		more, errno := s.port.Receive(&s.rx, s.env.Pool)
		s.tapReady = more
		if errno != 0 {
			s.portFailed(errno)
			return
		}
		s.classify(s.rx.Frames())
		s.translate()
	}
}

// portFailed reports that the port is gone and stops watching it.
func (s *Shard) portFailed(errno sys.Errno) {
	s.tapReady = false
	s.env.Epoll.Del(s.port.FD())
	s.group.fail(fmt.Errorf("read from the tap: %w", errno))
}

// classify parses each frame once and sorts them by protocol. Frames that go no
// further return to the pool.
func (s *Shard) classify(frames []*ring.Frame) {
	for _, f := range frames {
		verdict := wire.Parse(f.Bytes(), &f.H)
		if b := f.Bytes(); len(b) >= wire.EthLen && [6]byte(b[6:12]) != s.guestMAC {
			s.sawMAC(wire.MAC(b[6:12]))
		}
		if verdict != wire.OK {
			s.count.Drop(dropReason(verdict))
			s.env.Pool.Put(f)
			continue
		}
		s.sortFrame(f)
	}
}

func (s *Shard) sawMAC(m wire.MAC) {
	s.guestMAC = m
	s.env.Guest.SawMAC(&m)
}

func dropReason(v wire.Verdict) stats.Reason {
	switch v {
	case wire.Truncated:
		return stats.Truncated
	case wire.Fragment:
		return stats.FragmentIn
	case wire.Unknown:
		return stats.UnknownProto
	}
	return stats.Malformed
}

// sortFrame puts a valid frame into its protocol's batch, or answers it here.
func (s *Shard) sortFrame(f *ring.Frame) {
	r := s.env.Rules
	switch {
	case f.H.EtherType == wire.EtherARP:
		if r.V4.On {
			arp.Input(&s.env, f)
		}
		s.env.Pool.Put(f)
	case !r.Of(&f.H.Src).On:
		s.drop(f, stats.FamilyOff)
	case f.H.Src.IsLoopback() || f.H.Src.IsMulticast():
		s.drop(f, stats.BadSource)
	case f.H.Proto == wire.ProtoTCP:
		s.admit(&s.tcpIn, f, r.NoTCP)
	case f.H.Proto == wire.ProtoUDP:
		s.inputUDP(f)
	case ndp.Handles(&f.H):
		s.ndp.Input(&s.env, f)
		s.env.Pool.Put(f)
	default:
		s.admit(&s.pingIn, f, r.NoICMP)
	}
}

// admit puts f into b unless its protocol is off.
func (s *Shard) admit(b *ring.Batch, f *ring.Frame, off bool) {
	if off {
		s.drop(f, stats.FamilyOff)
		return
	}
	b.Add(f) // never full: b is as large as the batch that f came in
}

// drop counts f as dropped and returns it to the pool.
func (s *Shard) drop(f *ring.Frame, why stats.Reason) {
	s.count.Drop(why)
	s.env.Pool.Put(f)
}

// translate gives each protocol its part of the batch.
func (s *Shard) translate() {
	if s.tcpIn.N > 0 {
		s.tcp.Input(s.tcpIn.Frames())
		s.tcpIn.N = 0
	}
	if s.udpIn.N > 0 {
		s.udp.Input(s.udpIn.Frames())
		s.udpIn.N = 0
	}
	if s.pingIn.N > 0 {
		s.ping.Input(s.pingIn.Frames())
		s.pingIn.N = 0
	}
}
