package ring

import "sync/atomic"

// cacheLine keeps the two indices apart (64 octets on amd64 and arm64).
const cacheLine = 64

// Handoff is a bounded ring of frames from one shard to another: one producer,
// one consumer, no lock. The producer publishes a frame by storing tail, the
// consumer frees its entry by storing head. Go's atomics are sequentially
// consistent, so the consumer sees the frame's contents too.
type Handoff struct {
	entry []*Frame // a power of two
	_     [cacheLine]byte
	head  atomic.Uint32 // next to take; written by the consumer
	_     [cacheLine]byte
	tail  atomic.Uint32 // next to fill; written by the producer
}

// NewHandoff makes a ring for capacity frames, rounded up to a power of two.
func NewHandoff(capacity int) *Handoff {
	n := 1
	for n < capacity {
		n <<= 1
	}
	return &Handoff{entry: make([]*Frame, n)}
}

// Push passes f on, or returns false when the ring is full and f is still the
// caller's. Called by the producer only.
func (h *Handoff) Push(f *Frame) bool {
	t := h.tail.Load()
	if t-h.head.Load() == uint32(len(h.entry)) {
		return false
	}
	h.entry[t&uint32(len(h.entry)-1)] = f
	h.tail.Store(t + 1)
	return true
}

// Pop takes the oldest frame, or nil. Called by the consumer only.
func (h *Handoff) Pop() *Frame {
	i := h.head.Load()
	if i == h.tail.Load() {
		return nil
	}
	f := h.entry[i&uint32(len(h.entry)-1)]
	h.head.Store(i + 1)
	return f
}

// Empty tells whether there is nothing to Pop.
func (h *Handoff) Empty() bool { return h.head.Load() == h.tail.Load() }
