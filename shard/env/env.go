// Package env is what a shard lends to its translators and responders: its
// memory, its epoll instance, its clock and the rules of the moment. An Env is
// owned by one shard; nothing in it may be used from another thread.
package env

import (
	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/ring"
	"penne/shard/flow"
)

// Env is handed to each translator when it is made. The shard writes Now and
// Rules between passes of its loop; the rest never changes.
type Env struct {
	// Shard is the shard's number, from 0.
	Shard uint8
	// Now is the clock at the start of this pass (sys.Now, nanoseconds).
	Now int64
	// Rules are the address rules in force; swapped whole.
	Rules *fwd.Rules
	// Guest is what has been seen of the guest, shared by all shards.
	Guest *fwd.Guest
	// Epoll takes the translators' sockets; tokens are flow.Token.
	Epoll *sys.Epoll
	// Pool is where frames from the tap come from and go back to.
	Pool *ring.Pool
	// Out collects frames for the guest.
	Out *ring.Out
	// Count are the shard's counters.
	Count *stats.Counters
	// Seed keys the flow hash, the same for all shards.
	Seed *flow.Seed
	// Directory names the owners of flows; nil with a single shard.
	Directory *flow.Directory
	// HandOff passes a frame to the shard that owns its flow, frame and
	// all; a full ring drops and counts it. Never called for a frame that
	// was handed on already (Frame.Handed). Nil with a single shard.
	HandOff func(f *ring.Frame, owner uint8)
}

// Elsewhere hands f on if its flow, which the caller does not have, belongs to
// another shard, and tells whether it did; f is then no longer the caller's.
func (e *Env) Elsewhere(f *ring.Frame, hash uint64) bool {
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

// Claim registers a flow that the caller is about to make for the frame f (nil
// for a flow that starts on the host). It returns false if another shard was
// first; f has then been handed to it, or dropped if it was handed on before.
func (e *Env) Claim(f *ring.Frame, hash uint64) bool {
	if e.Directory == nil {
		return true
	}
	owner := e.Directory.Claim(hash, e.Shard)
	if owner == e.Shard {
		return true
	}
	if f != nil && !f.Handed {
		e.HandOff(f, owner)
	} else if f != nil {
		e.Count.Drop(stats.NoFlow)
		e.Pool.Put(f)
	}
	return false
}

// Release ends a Claim.
func (e *Env) Release(hash uint64) {
	if e.Directory != nil {
		e.Directory.Release(hash, e.Shard)
	}
}
