package flow

import "math/bits"

// Slots gives out the numbers 0 to n-1, lowest free one first. One owner, no
// allocation after NewSlots.
//
// It is a bitmap of free numbers with two summary levels above it: a bit there is
// set if the word below has a bit set.
type Slots struct{ level [3][]uint64 }

// NewSlots makes a set of n numbers, all free; n is at least 1.
func NewSlots(n int) Slots {
	var s Slots
	for l := range s.level {
		words := (n + 63) / 64
		s.level[l] = make([]uint64, words)
		for i := range s.level[l] {
			s.level[l][i] = ^uint64(0)
		}
		if rest := n % 64; rest != 0 {
			s.level[l][words-1] = 1<<rest - 1
		}
		n = words
	}
	return s
}

// Take takes the lowest free number into use and returns it, or -1 if none is free.
func (s *Slots) Take() int32 {
	for top, w := range s.level[2] {
		if w == 0 {
			continue
		}
		mid := top*64 + bits.TrailingZeros64(w)
		low := mid*64 + bits.TrailingZeros64(s.level[1][mid])
		slot := low*64 + bits.TrailingZeros64(s.level[0][low])
		s.clear(slot)
		return int32(slot)
	}
	return -1
}

func (s *Slots) clear(i int) {
	for l := range s.level {
		s.level[l][i/64] &^= 1 << (i % 64)
		if s.level[l][i/64] != 0 {
			return
		}
		i /= 64
	}
}

// Put frees slot, which must be in use.
func (s *Slots) Put(slot int32) {
	i := int(slot)
	for l := range s.level {
		s.level[l][i/64] |= 1 << (i % 64)
		i /= 64
	}
}

// Free tells whether slot is free.
func (s *Slots) Free(slot int32) bool { return s.level[0][slot/64]>>(slot%64)&1 != 0 }
