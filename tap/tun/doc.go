// Package tun is the tap back-end over /dev/net/tun: one interface with one
// queue per shard, superpackets and partial checksums both ways by a virtio-net
// header before each frame.
//
// Open and Adopt belong to start-up: they return a Device, whose Queues are
// handed to the shards. A Queue is a tap.Port; it is owned by one shard's
// thread, keeps no frames between calls, and takes one system call per frame:
// read straight into the frame's slot, write straight out of it. What the
// kernel did not grant (Caps) is done in software by package vnet, so that
// translators never need to know.
//
// The guest can reach the interface as well: it may set it down (writes then
// fail with EIO and are counted as TapError, which ends when it is set up
// again) or delete it (Receive then reports the queue gone for good).
package tun
