package shard

import (
	"penne/internal/fwd"
	"penne/ring"
	"penne/shard/flow"
	"penne/tap"
)

// Sizes; MaxFlows and maxSpliced are a process's, divided among its shards, the
// others each shard's.
const (
	// MaxFlows is the most flows of TCP, and as many of UDP.
	MaxFlows = 1 << 17
	// maxSpliced is the most connections that bypass the tap, and as many
	// UDP flows.
	maxSpliced = 1 << 16
	// maxPings is the most ICMP echo identifiers at once.
	maxPings = 4096
	// framesPerShard is the arena of each: 144 MiB of address space, of
	// which only what is in use becomes resident.
	framesPerShard = 2048
	// keepFrames stay resident when an idle shard returns memory.
	keepFrames = 32
	// outFrames is the set of frames that is reused for all that goes to the
	// guest. A row of datagrams fills it; TCP sends after a few, which stay
	// in the L2 cache.
	outFrames = ring.BatchSize
	// eventBatch is the most readiness reports taken in one wait.
	eventBatch = 128
	// handoffFrames bounds each ring between two shards.
	handoffFrames = 1024
)

// Config says what a Group is made of.
type Config struct {
	// Ports are the tap's queues, one a shard, 1 to 16.
	Ports []tap.Port
	// Rules are the first address rules; SetRules replaces them.
	Rules *fwd.Rules
	// Guest is shared with the control thread.
	Guest *fwd.Guest
	// Seed keys the hash of flows; the tap's steering program, if there is
	// one, has the same.
	Seed flow.Seed
	// Flows bounds the flows of TCP and of UDP over all shards; 0 means
	// MaxFlows. The caller lowers it to what RLIMIT_NOFILE can serve.
	Flows int
	// Pin pins shard i to the i-th CPU that the process may use, starting
	// over where there are fewer CPUs than shards.
	Pin bool
	// Services are what the guest is told; SetServices replaces them. Nil
	// stands for the zero Services.
	Services *Services
	// Bypass is for traffic that is local on both sides.
	Bypass Bypass
	// Warn is called from a shard's thread, once by each shard, when the
	// kernel refuses ping sockets.
	Warn func(err error)
	// Failed is called once, from a shard's thread, when its Port is gone
	// for good; the Group should then be closed.
	Failed func(err error)
}
