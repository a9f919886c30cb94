package tcpx

import "penne/internal/wire"

// holdMarks is how many marks a hold has.
const holdMarks = 4

// hold limits how long octets may stay unacknowledged. Its marks, oldest first,
// say: everything before seq had been taken at the time at.
type hold struct {
	seq [holdMarks]uint32
	at  [holdMarks]int64
	n   uint8
}

// acked removes the marks at or before seq.
func (h *hold) acked(seq uint32) {
	for h.n > 0 && wire.SeqLE(h.seq[0], seq) {
		h.shift()
	}
}

// shift removes the oldest mark.
func (h *hold) shift() {
	copy(h.seq[:], h.seq[1:h.n])
	copy(h.at[:], h.at[1:h.n])
	h.n--
}

// due is called with what is acknowledged and what is taken at time now. It
// returns how far must be acknowledged now, so that no octet waits for longer
// than limit nanoseconds, and when to call it again (0: nothing waits).
//
// Marks are at least limit/4 apart and come due 3/4 of limit after they were
// set, since an octet is at most limit/4 older than the mark that covers it.
func (h *hold) due(now, limit int64, acked, taken uint32) (force uint32, again int64) {
	h.acked(acked)
	force = acked
	if acked == taken {
		return force, 0
	}
	step := limit / 4
	for h.n > 0 && now >= h.at[0]+limit-step {
		force = h.seq[0]
		h.shift()
	}
	uncovered := h.n == 0 || wire.SeqLT(h.seq[h.n-1], taken)
	if uncovered && wire.SeqLT(force, taken) && (h.n == 0 || now >= h.at[h.n-1]+step) && h.n < holdMarks {
		h.seq[h.n], h.at[h.n] = taken, now
		h.n++
		uncovered = false
	}
	if h.n == 0 {
		return force, 0
	}
	again = h.at[0] + limit - step
	if uncovered {
		again = min(again, h.at[h.n-1]+step)
	}
	return force, again
}
