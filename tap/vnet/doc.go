// Package vnet is the pure half of segmentation and checksum offload: bytes
// in, bytes out, no descriptor anywhere. It encodes and decodes the virtio-net
// header (virtio 1.2, section 5.1.6), cuts a superpacket into segments for a
// peer without offload, and completes a checksum that was left partial.
//
// Words, from small to large:
//
//   - segment: one frame as a wire with the flow's MSS would carry it.
//   - run: consecutive segments of one flow whose payloads join, all of one
//     size but for a shorter last one.
//   - superpacket: a run in one frame: one set of headers, the payloads behind
//     each other, up to 65535 octets of IP packet.
//
// The back-ends under tap call it, each from its shard's thread. Splitter
// owns its scratch memory; nothing here allocates after construction.
package vnet
