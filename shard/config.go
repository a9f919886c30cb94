// Package shard is the per-CPU worker: one locked OS thread with its own epoll
// instance, tap queue, flow tables, timers, frames and counters. A Group is the
// shards of one process and the rings between them.
//
// One pass of a shard's loop:
//
//	wait      until the tap, a socket, a peer shard or a message is there
//	messages  do what the control thread asks for
//	sockets   give socket events to their flows
//	handed    take the frames that peer shards passed on
//	tap       read a batch, classify each frame once (package wire), and hand
//	          each protocol its sub-batch (tcpx, udpx, ping)
//	timers    expire what is due
//	flush     one ACK a flow, frames out to the tap
//
// A flow belongs to the shard that made it. A frame that comes in at another
// shard is handed over (ring.Handoff), since affinity of the tap's queues is
// the rule but not guaranteed. Nothing else is shared on the packet path; the
// control thread talks to shards by messages taken at the top of the loop.
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
	// keepFrames stay resident when an idle shard gives memory back.
	keepFrames = 32
	// outFrames is the set that is filled again and again for the guest. A
	// row of datagrams fills it; TCP sends after a few, so that what it
	// fills stays in a second-level cache.
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
	// Pin ties shard i to the i-th CPU that the process may use, beginning
	// anew where there are fewer CPUs than shards.
	Pin bool
	// Services are what the guest is told; SetServices replaces them. Nil
	// stands for the zero Services.
	Services *Services
	// Bypass is for connections that are local on both sides.
	Bypass Bypass
	// Warn is called from a shard's thread, once by each shard, when the
	// kernel refuses ping sockets.
	Warn func(err error)
	// Failed is called once, from a shard's thread, when its Port is gone
	// for good; the Group should then be closed.
	Failed func(err error)
}
