// Package tap defines the interface between a shard and the guest's link: one queue
// of a tap device. The back-end is tun, below it. One Port serves one shard and is
// used by its thread only.
package tap

import (
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/ring"
)

// Port is one queue pair of a Layer-2 back-end.
//
// Offload is in ring.Frame.Offload. A Port encodes it for its peer, or does in
// software what the peer does not offer, so that translators always build
// superpackets with partial checksums.
type Port interface {
	// Send sends frames to the guest: see ring.Sink. It never blocks; frames
	// that the queue does not take are counted as TapFull or TapError.
	ring.Sink
	// Receive reads frames of pool from the queue into b, which must be
	// empty. It never blocks. more means that the queue may hold further
	// frames; errno is set, and never EAGAIN, when the device is gone for
	// good (EBADF, EIO, ENODEV...).
	Receive(b *ring.Batch, pool *ring.Pool) (more bool, errno sys.Errno)
	// FD is the descriptor that is readable while frames wait; the shard
	// watches it level-triggered.
	FD() int
	// SetCounters sets where the Port counts; call it before any other use.
	SetCounters(c *stats.Counters)
	// Close closes the descriptor. A Port keeps no frames between calls.
	Close() error
}
