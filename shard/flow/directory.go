package flow

import (
	"runtime"
	"sync/atomic"
)

// Directory tells which shard owns a flow. All shards share it. It is used when a
// flow is made or ends, and when a frame's flow is not in the shard that received
// the frame; never otherwise.
//
// It maps 56 bits of the key's hash to a shard, in buckets of one cache line:
// a lock word and seven entries. What does not fit into its bucket goes to a
// spill list, which has room for all: the shard that gets the frames of a flow
// that is missing here would refuse them. Two flows that share those bits are
// taken for one (probability 2^-56 a pair): a frame of the second may go to the
// wrong shard, which handles it itself, since a frame is handed off only once.
//
// All methods are safe for concurrent use and do not allocate.
type Directory struct {
	buckets []bucket

	// spill holds the entries that did not fit into their bucket; only the
	// first spillEnd were ever used. An entry does not move until it is
	// released.
	spill    []atomic.Uint64
	spillEnd lockedCount
}

const bucketEntries = 7

type bucket struct {
	// lock counts the bucket's entries in the spill list.
	lock  lockedCount
	entry [bucketEntries]atomic.Uint64 // hash's upper 56 bits | shard+1; 0: empty
}

// NewDirectory makes a directory for at most flows flows; its buckets are half
// full then.
func NewDirectory(flows int) *Directory {
	n := 1
	for n*bucketEntries < 2*flows {
		n <<= 1
	}
	return &Directory{buckets: make([]bucket, n), spill: make([]atomic.Uint64, flows)}
}

// claimHashMask is the part of an entry that comes from the hash.
const claimHashMask = ^uint64(0xff)

func (d *Directory) bucket(hash uint64) *bucket { return &d.buckets[hash%uint64(len(d.buckets))] }

// Claim says that shard owns the flow with this hash and returns shard, unless
// another shard claimed it before: then it returns that one and changes
// nothing.
func (d *Directory) Claim(hash uint64, shard uint8) uint8 {
	b := d.bucket(hash)
	spilled := b.lock.acquire()
	defer func() { b.lock.release(spilled) }()
	if owner, ok := d.Owner(hash); ok {
		return owner
	}
	claim := hash&claimHashMask | uint64(shard+1)
	for i := range b.entry {
		if b.entry[i].Load() == 0 {
			b.entry[i].Store(claim)
			return shard
		}
	}
	if d.addSpill(claim) {
		spilled++
	}
	return shard
}

// addSpill puts an entry into the first free element of the spill list. There is
// one unless there are more flows than NewDirectory was told of.
func (d *Directory) addSpill(claim uint64) bool {
	end := d.spillEnd.acquire()
	defer func() { d.spillEnd.release(end) }()
	for i := range d.spill {
		if d.spill[i].Load() == 0 {
			d.spill[i].Store(claim)
			end = max(end, uint64(i+1))
			return true
		}
	}
	return false
}

// Release ends shard's claim of the flow; without one it does nothing.
func (d *Directory) Release(hash uint64, shard uint8) {
	b := d.bucket(hash)
	spilled := b.lock.acquire()
	defer func() { b.lock.release(spilled) }()
	claim := hash&claimHashMask | uint64(shard+1)
	switch {
	case remove(b.entry[:], claim):
	case spilled > 0 && remove(d.spilled(), claim):
		spilled--
	}
}

// remove clears entry, and tells whether it was among entries.
func remove(entries []atomic.Uint64, entry uint64) bool {
	for i := range entries {
		if entries[i].CompareAndSwap(entry, 0) {
			return true
		}
	}
	return false
}

// Owner returns the shard that claimed the flow; ok is false if none did. It
// takes no lock.
func (d *Directory) Owner(hash uint64) (shard uint8, ok bool) {
	b := d.bucket(hash)
	if shard, ok = owner(b.entry[:], hash); ok || b.lock.count() == 0 {
		return shard, ok
	}
	return owner(d.spilled(), hash)
}

func owner(entries []atomic.Uint64, hash uint64) (shard uint8, ok bool) {
	for i := range entries {
		if e := entries[i].Load(); e != 0 && e&claimHashMask == hash&claimHashMask {
			return uint8(e) - 1, true
		}
	}
	return 0, false
}

// spilled is the part of the spill list that was ever used.
func (d *Directory) spilled() []atomic.Uint64 { return d.spill[:d.spillEnd.count()] }

// lockedCount is a spin lock, its lowest bit, and the count that it guards.
type lockedCount struct{ v atomic.Uint64 }

// acquire takes the lock and returns the count. The lock is held for a few loads
// only; acquire yields in case the holder was preempted.
func (w *lockedCount) acquire() (n uint64) {
	for {
		if v := w.v.Load(); v&1 == 0 && w.v.CompareAndSwap(v, v|1) {
			return v >> 1
		}
		runtime.Gosched()
	}
}

// release sets the count and releases the lock.
func (w *lockedCount) release(n uint64) { w.v.Store(n << 1) }

// count reads the count without the lock.
func (w *lockedCount) count() uint64 { return w.v.Load() >> 1 }
