// Package tun is the tap back-end over /dev/net/tun: one interface with one
// queue per shard, and a virtio-net header before each frame, for superpackets
// and partial checksums both ways.
//
// Open and Adopt return a Device, whose Queues go to the shards. A Queue is a
// tap.Port, owned by one shard. It makes one system call per frame: read straight
// into the frame's slot, write straight out of it. What the kernel did not grant
// (Caps) is done in software by package vnet.
//
// The guest can configure the interface as well: while it is down, writes fail with
// EIO and are counted as TapError; once it is deleted, Receive reports the queue
// gone for good.
package tun
