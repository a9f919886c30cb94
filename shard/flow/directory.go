package flow

import (
	"runtime"
	"sync/atomic"
)

// Directory tells every shard which shard owns a flow. It is shared, and
// touched only when a flow is made, ends, or is not found where its frame came
// in; never for the packets of a flow that is where it should be.
//
// It maps 56 bits of the key's hash to a shard, in buckets of one cache line:
// a lock word and seven entries. What does not fit into its bucket goes to a
// common list, which has room for all: a flow that was left out would be
// unknown to the shard that its frames come to, which would refuse them. Two
// flows that share those bits are taken for one (chance 2^-56 a pair): a frame
// of the second then goes to the wrong shard, which handles it itself, since a
// frame is handed on only once.
//
// All methods are safe for concurrent use and do not allocate.
type Directory struct {
	buckets []bucket

	// spill holds the entries that full buckets had no place for; only the
	// first spillEnd were ever used. An entry stays where it is until it is
	// released.
	spill    []atomic.Uint64
	spillEnd word
}

const bucketEntries = 7

type bucket struct {
	// lock also counts the bucket's entries in the spill list.
	lock  word
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

const dirTag = ^uint64(0xff)

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
	claim := hash&dirTag | uint64(shard+1)
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

// addSpill puts an entry into the lowest free place of the spill list. That
// there is none cannot be with no more flows than NewDirectory was told of.
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

// Release ends shard's claim; without one it does nothing.
func (d *Directory) Release(hash uint64, shard uint8) {
	b := d.bucket(hash)
	spilled := b.lock.acquire()
	defer func() { b.lock.release(spilled) }()
	claim := hash&dirTag | uint64(shard+1)
	switch {
	case remove(b.entry[:], claim):
	case spilled > 0 && remove(d.spilled(), claim):
		spilled--
	}
}

// remove empties the place of an entry, and tells whether there was one.
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
		if e := entries[i].Load(); e != 0 && e&dirTag == hash&dirTag {
			return uint8(e) - 1, true
		}
	}
	return 0, false
}

// spilled is the part of the spill list that was ever used.
func (d *Directory) spilled() []atomic.Uint64 { return d.spill[:d.spillEnd.count()] }

// word is a lock in its lowest bit and a number, guarded by it, above.
type word struct{ v atomic.Uint64 }

// acquire takes the lock and returns the number. Its holder is a few loads from
// letting go; it yields in case the holder was preempted.
func (w *word) acquire() (n uint64) {
	for {
		if v := w.v.Load(); v&1 == 0 && w.v.CompareAndSwap(v, v|1) {
			return v >> 1
		}
		runtime.Gosched()
	}
}

// release sets the number and lets go of the lock.
func (w *word) release(n uint64) { w.v.Store(n << 1) }

// count reads the number without the lock.
func (w *word) count() uint64 { return w.v.Load() >> 1 }
