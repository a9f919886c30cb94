// Package wheel is a hierarchical timer wheel (Varghese and Lauck, 1987) for
// the flows of one shard: one timer an id, ids are slot numbers. Setting,
// moving and cancelling cost a few loads and stores; nothing is allocated after
// New. Owned by one shard; time comes from the caller.
//
// Five levels of 64 places, the first of them Tick wide, reach 39 hours; later
// deadlines are kept at the far end and looked at again there. A timer never
// fires early, and at most one tick of its level's first place late.
package wheel

import "math/bits"

// Tick is the resolution, in nanoseconds: 2^17 ns, about 131 µs.
const Tick = 1 << tickShift

const (
	tickShift = 17
	levels    = 5
	places    = 64
	none      = -1
)

type node struct {
	next, prev int32
	at         int64 // deadline, in ticks
	place      int32 // 1 + index into head; 0: not armed
}

// Wheel holds at most one deadline for each id.
type Wheel struct {
	nodes []node
	head  [levels * places]int32
	busy  [levels]uint64
	now   int64 // in ticks: everything at or before has fired
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

// Set makes id expire at deadline (nanoseconds), instead of what it had. A
// deadline that has passed expires at the next Expire.
func (w *Wheel) Set(id int32, deadline int64) {
	at := max((deadline+Tick-1)>>tickShift, w.now+1)
	n := &w.nodes[id]
	if n.place > 0 && n.at == at {
		return
	}
	w.Cancel(id)
	n.at = at
	w.insert(id)
}

// Cancel takes id's deadline away, if it has one.
func (w *Wheel) Cancel(id int32) {
	n := &w.nodes[id]
	if n.place == 0 {
		return
	}
	p := n.place - 1
	if n.prev == none {
		w.head[p] = n.next
	} else {
		w.nodes[n.prev].next = n.next
	}
	if n.next != none {
		w.nodes[n.next].prev = n.prev
	}
	if w.head[p] == none {
		w.busy[p/places] &^= 1 << (p % places)
	}
	n.place = 0
}

// insert links id, whose at is later than now, into its place.
func (w *Wheel) insert(id int32) {
	n := &w.nodes[id]
	// The level is where at and now first differ, seen from the top.
	diff := uint64(n.at ^ w.now)
	level := int32(max(0, (bits.Len64(diff)-1)/6))
	p := int32(n.at >> (6 * level) & (places - 1))
	if level >= levels {
		// The top level turns round; beyond one turn a timer waits as far
		// out as the wheel reaches and is looked at again there.
		level = levels - 1
		turn := min(n.at>>(6*level), w.now>>(6*level)+places-1)
		p = int32(turn & (places - 1))
	}
	p += level * places
	n.place, n.prev, n.next = p+1, none, w.head[p]
	if n.next != none {
		w.nodes[n.next].prev = id
	}
	w.head[p] = id
	w.busy[p/places] |= 1 << (p % places)
}

// Expire moves the clock towards now (nanoseconds) and puts ids whose deadline
// has come into out, disarmed, until out is full: call again then.
func (w *Wheel) Expire(now int64, out []int32) int {
	target := now >> tickShift
	count := 0
	for {
		if count += w.takeDue(out[count:]); count == len(out) {
			return count
		}
		next, ok := w.nextPlace()
		if !ok || next > target {
			w.now = max(w.now, target)
			return count
		}
		w.now = next
		w.cascade()
	}
}

// takeDue empties level 0's place of the current tick.
func (w *Wheel) takeDue(out []int32) int {
	p := int32(w.now & (places - 1))
	count := 0
	for count < len(out) && w.head[p] != none {
		id := w.head[p]
		w.Cancel(id)
		out[count] = id
		count++
	}
	return count
}

// nextPlace is the first tick after now at which a place is due: at level 0 to
// fire, above to be spread over the level below.
func (w *Wheel) nextPlace() (tick int64, ok bool) {
	for l := range levels {
		shift := 6 * l
		cur := w.now >> shift & (places - 1)
		// Places after the current one, in this turn of the level, ...
		if ahead := w.busy[l] &^ (1<<cur<<1 - 1); ahead != 0 {
			return (w.now>>shift&^(places-1) + int64(bits.TrailingZeros64(ahead))) << shift, true
		}
		// ... and, at the top only, those of the next turn.
		if l == levels-1 && w.busy[l] != 0 {
			return (w.now>>shift&^(places-1) + places + int64(bits.TrailingZeros64(w.busy[l]))) << shift, true
		}
	}
	return 0, false
}

// cascade spreads the places of upper levels that begin at now.
func (w *Wheel) cascade() {
	for l := levels - 1; l > 0; l-- {
		shift := 6 * l
		if w.now&(1<<shift-1) != 0 {
			continue
		}
		p := int32(l*places) + int32(w.now>>shift&(places-1))
		// Take the chain out first: a far timer may come back to this place.
		id := w.head[p]
		w.head[p] = none
		w.busy[l] &^= 1 << (p % places)
		for id != none {
			n := &w.nodes[id]
			next := n.next
			n.place = 0
			w.relink(id)
			id = next
		}
	}
}

// relink puts id where it belongs now; a timer due this very tick goes to
// level 0's current place, which takeDue empties next.
func (w *Wheel) relink(id int32) {
	if n := &w.nodes[id]; n.at < w.now {
		n.at = w.now
	}
	w.insert(id)
}

// Next is the time (nanoseconds) at which Expire should be called; ok is false
// when nothing is armed. It may be early for a far timer, never late.
func (w *Wheel) Next() (at int64, ok bool) {
	if w.head[w.now&(places-1)] != none {
		return w.now << tickShift, true
	}
	tick, ok := w.nextPlace()
	return tick << tickShift, ok
}
