// Package wheel is a hierarchical timer wheel (Varghese and Lauck, 1987) for
// the flows of one shard: one timer for each id, ids being slot numbers. Setting,
// moving and cancelling a timer costs a few loads and stores; nothing is
// allocated after New. Owned by one shard; time comes from the caller.
//
// Five levels of 64 buckets, those of the lowest level one Tick wide, reach 39
// hours. A later deadline waits in the last bucket and is then inserted again. No
// timer fires early, nor more than a Tick late if Expire is called at Next.
package wheel

import "math/bits"

// Tick is the resolution, in nanoseconds: 2^17 ns, about 131 µs.
const Tick = 1 << tickShift

const (
	tickShift = 17
	levels    = 5
	buckets   = 64
	none      = -1
)

type node struct {
	next, prev int32
	at         int64 // deadline, in ticks
	bucket     int32 // 1 + index into head; 0: not armed
}

// Wheel holds at most one timer for each id.
type Wheel struct {
	nodes   []node
	head    [levels * buckets]int32
	pending [levels]uint64
	now     int64 // in ticks: all timers up to it have fired
}

// New makes a wheel for ids 0 <= id < ids, with its clock at now (nanoseconds,
// any origin).
func New(ids int, now int64) *Wheel {
	w := &Wheel{nodes: make([]node, ids), now: now >> tickShift}
	for i := range w.head {
		w.head[i] = none
	}
	return w
}

// Set sets id's timer to deadline (nanoseconds), whatever it was before. One that
// has passed fires at the next Expire.
func (w *Wheel) Set(id int32, deadline int64) {
	at := max((deadline+Tick-1)>>tickShift, w.now+1)
	n := &w.nodes[id]
	if n.bucket > 0 && n.at == at {
		return
	}
	w.Cancel(id)
	n.at = at
	w.insert(id)
}

// Cancel disarms id's timer, if it is armed.
func (w *Wheel) Cancel(id int32) {
	n := &w.nodes[id]
	if n.bucket == 0 {
		return
	}
	p := n.bucket - 1
	if n.prev == none {
		w.head[p] = n.next
	} else {
		w.nodes[n.prev].next = n.next
	}
	if n.next != none {
		w.nodes[n.next].prev = n.prev
	}
	if w.head[p] == none {
		w.pending[p/buckets] &^= 1 << (p % buckets)
	}
	n.bucket = 0
}

// insert links id, whose at is later than now, into its bucket.
func (w *Wheel) insert(id int32) {
	n := &w.nodes[id]
	// The level is where at and now first differ, seen from the top.
	diff := uint64(n.at ^ w.now)
	level := int32(max(0, (bits.Len64(diff)-1)/6))
	p := int32(n.at >> (6 * level) & (buckets - 1))
	if level >= levels {
		// Beyond the wheel's reach a timer waits in the last bucket of the
		// top level, and is inserted again from there.
		level = levels - 1
		turn := min(n.at>>(6*level), w.now>>(6*level)+buckets-1)
		p = int32(turn & (buckets - 1))
	}
	p += level * buckets
	n.bucket, n.prev, n.next = p+1, none, w.head[p]
	if n.next != none {
		w.nodes[n.next].prev = id
	}
	w.head[p] = id
	w.pending[p/buckets] |= 1 << (p % buckets)
}

// Expire advances the clock to now (nanoseconds), disarms the timers that are due
// and writes their ids to out. When out is full, call again.
func (w *Wheel) Expire(now int64, out []int32) int {
	target := now >> tickShift
	count := 0
	for {
		if count += w.takeDue(out[count:]); count == len(out) {
			return count
		}
		next, ok := w.nextBucket()
		if !ok || next > target {
			w.now = max(w.now, target)
			return count
		}
		w.now = next
		w.cascade()
	}
}

// takeDue empties level 0's bucket of the current tick, as far as out has room.
func (w *Wheel) takeDue(out []int32) int {
	p := int32(w.now & (buckets - 1))
	count := 0
	for count < len(out) && w.head[p] != none {
		id := w.head[p]
		w.Cancel(id)
		out[count] = id
		count++
	}
	return count
}

// nextBucket is the first tick after now at which a bucket is due: to fire at level
// 0, to cascade above.
func (w *Wheel) nextBucket() (tick int64, ok bool) {
	for l := range levels {
		shift := 6 * l
		cur := w.now >> shift & (buckets - 1)
		// Buckets after the current one, in this turn of the level, ...
		if ahead := w.pending[l] &^ (1<<cur<<1 - 1); ahead != 0 {
			return (w.now>>shift&^(buckets-1) + int64(bits.TrailingZeros64(ahead))) << shift, true
		}
		// ... and, at the top only, those of the next turn.
		if l == levels-1 && w.pending[l] != 0 {
			return (w.now>>shift&^(buckets-1) + buckets + int64(bits.TrailingZeros64(w.pending[l]))) << shift, true
		}
	}
	return 0, false
}

// cascade moves the timers of the upper levels' buckets that begin at now down.
func (w *Wheel) cascade() {
	for l := levels - 1; l > 0; l-- {
		shift := 6 * l
		if w.now&(1<<shift-1) != 0 {
			continue
		}
		p := int32(l*buckets) + int32(w.now>>shift&(buckets-1))
		// Empty the bucket first: a far timer may come back to it.
		id := w.head[p]
		w.head[p] = none
		w.pending[l] &^= 1 << (p % buckets)
		for id != none {
			n := &w.nodes[id]
			next := n.next
			n.bucket = 0
			w.reinsert(id)
			id = next
		}
	}
}

// reinsert inserts id by the present clock. A timer due this very tick goes to
// level 0's current bucket, which takeDue empties next.
func (w *Wheel) reinsert(id int32) {
	if n := &w.nodes[id]; n.at < w.now {
		n.at = w.now
	}
	w.insert(id)
}

// Next is the time (nanoseconds) at which Expire should be called; ok is false
// when nothing is armed. It may be early for far timers, never late.
func (w *Wheel) Next() (at int64, ok bool) {
	if w.head[w.now&(buckets-1)] != none {
		return w.now << tickShift, true
	}
	tick, ok := w.nextBucket()
	return tick << tickShift, ok
}
