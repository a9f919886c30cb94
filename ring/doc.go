// Package ring holds the memory of the packet path: frames, the arena they lie
// in, the batches they travel in, and the ring that hands them from one shard
// to another.
//
// Words, from small to large:
//
//   - frame: one Ethernet frame, maybe a superpacket of up to 64 KiB of payload
//     that segmentation offload will cut, in one slot of an arena.
//   - slot: SlotSize octets of arena; a frame's memory for all its life.
//   - pool: the free frames of one shard. One owner, no locks.
//   - batch: frames that cross a package border together.
//   - hand-off: a bounded single-producer, single-consumer ring between two
//     shards.
//
// A frame is in exactly one place at a time: in its pool, in a batch, in a
// flow's tail, or in a hand-off ring. Whoever takes it out puts it back.
package ring
