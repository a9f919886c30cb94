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
// a lock word and seven entries. Two flows that share those bits are taken for
// one (chance 2^-56 a pair): a frame of the second then goes to the wrong
// shard, which handles it itself, since a frame is handed on only once. A full
// bucket leaves a flow out; its stray frames are then handled where they come
// in. So correctness never depends on the directory.
//
// All methods are safe for concurrent use and do not allocate.
type Directory struct {
	buckets []bucket
}

const bucketEntries = 7

type bucket struct {
	lock  atomic.Uint64
	entry [bucketEntries]atomic.Uint64 // hash's upper 56 bits | shard+1; 0: empty
}

// NewDirectory makes a directory for about flows flows, at half load.
func NewDirectory(flows int) *Directory {
	n := 1
	for n*bucketEntries < 2*flows {
		n <<= 1
	}
	return &Directory{buckets: make([]bucket, n)}
}

const dirTag = ^uint64(0xff)

// Claim says that shard owns the flow with this hash and returns shard, unless
// another shard claimed it before: then it returns that one and changes
// nothing.
func (d *Directory) Claim(hash uint64, shard uint8) uint8 {
	b := &d.buckets[hash%uint64(len(d.buckets))]
	b.acquire()
	defer b.lock.Store(0)
	empty := -1
	for i := range b.entry {
		switch e := b.entry[i].Load(); {
		case e == 0:
			if empty < 0 {
				empty = i
			}
		case e&dirTag == hash&dirTag:
			return uint8(e) - 1
		}
	}
	if empty >= 0 {
		b.entry[empty].Store(hash&dirTag | uint64(shard+1))
	}
	return shard
}

// Release ends shard's claim; without one it does nothing.
func (d *Directory) Release(hash uint64, shard uint8) {
	b := &d.buckets[hash%uint64(len(d.buckets))]
	b.acquire()
	defer b.lock.Store(0)
	for i := range b.entry {
		if b.entry[i].Load() == hash&dirTag|uint64(shard+1) {
			b.entry[i].Store(0)
			return
		}
	}
}

// Owner returns the shard that claimed the flow; ok is false if none did. It
// takes no lock.
func (d *Directory) Owner(hash uint64) (shard uint8, ok bool) {
	b := &d.buckets[hash%uint64(len(d.buckets))]
	for i := range b.entry {
		if e := b.entry[i].Load(); e != 0 && e&dirTag == hash&dirTag {
			return uint8(e) - 1, true
		}
	}
	return 0, false
}

// acquire takes the bucket's lock: one compare-and-swap, since the holder is
// seven loads from letting go; it yields in case the holder was preempted.
func (b *bucket) acquire() {
	for !b.lock.CompareAndSwap(0, 1) {
		runtime.Gosched()
	}
}
