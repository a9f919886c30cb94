// Package env is what a shard shares with its translators and responders: its
// memory, its epoll instance, its clock, the address rules in force. An Env is used
// by its shard's thread only; Guest, Directory and Seed point to what all shards
// share.
package env

import (
	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/ring"
	"penne/shard/flow"
)

// Env is given to each translator when it is made. The shard writes Now and Rules
// between passes of its loop; the other fields never change.
type Env struct {
	// Shard is the shard's number, from 0.
	Shard uint8
	// Now is the time at the start of this pass (sys.Now, nanoseconds).
	Now int64
	// Rules are the address rules in force; replaced, never changed.
	Rules *fwd.Rules
	// Guest is what has been learned of the guest, by all shards.
	Guest *fwd.Guest
	// Epoll watches the translators' sockets; the data is a flow.Token.
	Epoll *sys.Epoll
	// Pool is where frames from the tap come from and go back to.
	Pool *ring.Pool
	// Out collects frames for the guest.
	Out *ring.Out
	// Count are the shard's counters.
	Count *stats.Counters
	// Seed is the flow hash's key.
	Seed *flow.Seed
	// Directory tells the owners of flows; nil with a single shard.
	Directory *flow.Directory
	// HandOff gives a frame to the shard that owns its flow, or drops and
	// counts it if the ring to that shard is full. Not for frames that were
	// handed off before (Frame.Handed). Nil with a single shard.
	HandOff func(f *ring.Frame, owner uint8)
}

// HandToOwner hands f, whose flow the caller does not have, to the shard that has
// it. It returns false, and f stays the caller's, if no other shard has.
func (e *Env) HandToOwner(f *ring.Frame, hash uint64) bool {
	if e.Directory == nil || f.Handed {
		return false
	}
	owner, ok := e.Directory.Owner(hash)
	if !ok || owner == e.Shard {
		return false
	}
	e.HandOff(f, owner)
	return true
}

// Claim registers the flow that the caller is about to make for the frame f. It
// returns false if another shard has claimed the flow: f was then handed to that
// one, or dropped if it was handed off before.
func (e *Env) Claim(f *ring.Frame, hash uint64) bool {
	owner := e.ClaimFlow(hash)
	switch {
	case owner == e.Shard:
		return true
	case f.Handed:
		e.Count.Drop(stats.NoFlow)
		e.Pool.Put(f)
	default:
		e.HandOff(f, owner)
	}
	return false
}

// ClaimFlow registers a flow that the caller is about to make, and returns the shard that
// has it then: the caller, or the one that claimed it before.
func (e *Env) ClaimFlow(hash uint64) (owner uint8) {
	if e.Directory == nil {
		return e.Shard
	}
	return e.Directory.Claim(hash, e.Shard)
}

// Release ends a Claim or ClaimFlow.
func (e *Env) Release(hash uint64) {
	if e.Directory != nil {
		e.Directory.Release(hash, e.Shard)
	}
}
