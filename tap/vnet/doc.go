// Package vnet does segmentation and checksum offload on bytes, without system
// calls. It encodes and decodes the virtio-net header (virtio 1.2, section 5.1.6),
// cuts a superpacket into segments for a peer without offload, and completes a
// partial checksum.
//
// Words, from small to large:
//
//   - segment: a frame with one TCP segment of at most the MSS, or one UDP datagram.
//   - run: consecutive segments of one flow, all of one size but the last, which
//     may be shorter.
//   - superpacket: a run in one frame: one set of headers, then all the payloads,
//     up to 65535 octets of IP packet.
//
// Nothing here allocates.
package vnet
