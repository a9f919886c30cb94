// Package shard is the per-CPU worker: one locked OS thread with its own epoll
// instance, tap queue, flow tables, timers, frames and counters. A Group is the
// shards of one process and the rings between them.
//
// One pass of a shard's loop:
//
//	wait      until the tap, a socket, a peer shard or a message is there
//	messages  do what the control thread asks for
//	sockets   give socket events to their flows
//	handed    take the frames that peer shards handed over
//	tap       read a batch, parse each frame once (package wire), and give each
//	          protocol its part of the batch (tcpx, udpx, ping)
//	timers    expire what is due
//	flush     one ACK a flow, frames out to the tap
//
// A flow belongs to the shard that made it. A frame that comes in at another
// shard is handed over (ring.Handoff), since the tap's queues
// usually keep a flow on one shard, but need not. Nothing else is shared on the packet path; the
// control thread talks to shards by messages taken at the top of the loop.
package shard
