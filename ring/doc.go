// Package ring holds the memory of the packet path: frames, the arena they lie
// in, the batches they travel in, and the ring that hands them from one shard
// to another.
//
// Words, from small to large:
//
//   - frame: one Ethernet frame in one slot of an arena. It may be a superpacket:
//     up to 64 KiB of payload, which segmentation offload cuts.
//   - slot: SlotSize octets of arena; a frame's memory for all its life.
//   - pool: the free frames of one shard. One owner, no locks.
//   - batch: frames that cross a package border together.
//   - hand-off: a bounded single-producer, single-consumer ring between two
//     shards.
//
// A frame is in exactly one place at a time: a pool, a batch, a flow's tail or
// out-of-order queue, or a hand-off ring. Whoever takes it out of its pool sees
// to it that it comes back.
package ring
