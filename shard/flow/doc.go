// Package flow keeps the flows of one shard: a fixed-size hash table from a
// flow's key to a slot number, and the directory that tells the shards which of
// them owns a flow. It does no I/O and allocates only when it is made.
//
// The translators keep their records in arrays of their own, indexed by slot.
// The lowest free slot is given out first, so that memory is touched in
// proportion to the flows that exist.
package flow
