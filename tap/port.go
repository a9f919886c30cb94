// Package tap defines the contract between a shard and the Layer-2 side: a
// network namespace's tap queue, or a virtual machine's socket or virtqueue
// pair. The back-ends are below it: tun, stream, vhost. One Port serves one
// shard and belongs to its thread.
package tap

import (
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/ring"
)

// Port is one queue pair of a Layer-2 back-end.
//
// Offload travels in ring.Frame.Offload, by meaning: each Port encodes it its
// own way, or does in software what its peer does not offer, so that
// translators always build superpackets with partial checksums.
type Port interface {
	// Send delivers frames to the guest: see ring.Sink. It never blocks;
	// what the guest's queue does not take is counted as TapFull or
	// TapError.
	ring.Sink
	// Receive takes frames out of pool, fills them, and puts them into b,
	// which must be empty, until b is full, the queue is empty or the pool
	// is. It never blocks. more tells that the queue may hold further
	// frames; errno is set when the back-end is gone for good (EBADF, EIO,
	// ENODEV...), never EAGAIN.
	Receive(b *ring.Batch, pool *ring.Pool) (more bool, errno sys.Errno)
	// FD is the descriptor that becomes readable when frames wait; the
	// shard watches it level-triggered.
	FD() int
	// SetCounters tells where the Port counts, before its first use.
	SetCounters(c *stats.Counters)
	// Close closes the descriptors. It does not give frames back: there
	// are none that the Port keeps between calls.
	Close() error
}
