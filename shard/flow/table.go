package flow

import "math/bits"

// Table maps keys to slots, for one translator of one shard. One owner, no locks,
// no allocation after NewTable.
//
// It is a hash table with open addressing and linear probing, at most half full. An
// entry packs the upper half of the hash with slot+1, so that a probe reads a key
// only when it very likely matches. Deletion shifts entries back and leaves no
// tombstones.
type Table struct {
	seed  *Seed
	index []uint64
	mask  uint64
	keys  []Key
	hash  []uint64
	gen   []uint32
	free  Slots
	used  int
}

// NewTable makes a table for up to capacity flows (at least 1).
func NewTable(capacity int, seed *Seed) *Table {
	size := 1 << bits.Len(uint(2*capacity-1))
	return &Table{
		seed: seed, index: make([]uint64, size), mask: uint64(size - 1),
		keys: make([]Key, capacity), hash: make([]uint64, capacity), gen: make([]uint32, capacity),
		free: NewSlots(capacity),
	}
}

// Hash is the table's hash of k, to be passed to the other methods.
func (t *Table) Hash(k *Key) uint64 { return t.seed.Hash(k) }

// Len is the number of flows.
func (t *Table) Len() int { return t.used }

// Find returns the slot of k, or -1.
func (t *Table) Find(k *Key, hash uint64) int32 {
	tag := hash >> 32 << 32
	for i := hash & t.mask; ; i = (i + 1) & t.mask {
		e := t.index[i]
		if e == 0 {
			return -1
		}
		if slot := int32(uint32(e)) - 1; e>>32<<32 == tag && t.keys[slot] == *k {
			return slot
		}
	}
}

// Insert gives k, which must not be in the table, the lowest free slot; -1
// means that the table is full.
func (t *Table) Insert(k *Key, hash uint64) int32 {
	slot := t.free.Take()
	if slot < 0 {
		return -1
	}
	t.keys[slot], t.hash[slot] = *k, hash
	i := hash & t.mask
	for t.index[i] != 0 {
		i = (i + 1) & t.mask
	}
	t.index[i] = hash>>32<<32 | uint64(uint32(slot+1))
	t.used++
	return slot
}

// Remove frees slot, which must be in use, and begins its next generation.
func (t *Table) Remove(slot int32) {
	i := t.hash[slot] & t.mask
	for uint32(t.index[i]) != uint32(slot+1) {
		i = (i + 1) & t.mask
	}
	t.gen[slot]++
	t.used--
	t.free.Put(slot)
	t.closeGap(i)
}

// closeGap removes entry i, and moves later ones of the same cluster back over it
// unless that is before their home position.
func (t *Table) closeGap(i uint64) {
	for j := i; ; {
		j = (j + 1) & t.mask
		e := t.index[j]
		if e == 0 {
			t.index[i] = 0
			return
		}
		home := t.hash[uint32(e)-1] & t.mask
		if (j-home)&t.mask >= (j-i)&t.mask {
			t.index[i], i = e, j
		}
	}
}

// Key is the key of the flow at slot; it is good until the slot's next Insert.
func (t *Table) Key(slot int32) *Key { return &t.keys[slot] }

// HashAt is the hash of the key at slot.
func (t *Table) HashAt(slot int32) uint64 { return t.hash[slot] }

// Gen is the generation of slot: how many flows have ended there.
func (t *Table) Gen(slot int32) uint32 { return t.gen[slot] }

// Live tells whether the flow a token was made for still exists.
func (t *Table) Live(tok Token) bool {
	s := tok.Slot()
	return int(s) < len(t.keys) && t.gen[s]&0xffffff == tok.Gen() && !t.free.Free(s)
}

// All calls fn for every slot in use, lowest first; fn may Remove that slot.
func (t *Table) All(fn func(slot int32)) {
	for s := range int32(len(t.keys)) {
		if !t.free.Free(s) {
			fn(s)
		}
	}
}
