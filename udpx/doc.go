// Package udpx translates between the guest's UDP datagrams and sockets of the
// host. Every flow has a connected socket of its own, so that the kernel
// delivers its datagrams to the shard that owns it, caches its route, and
// reports ICMP errors for it alone.
//
// Words:
//
//   - flow: what the guest sees as (guest address:port, remote address:port).
//   - peer: the remote as the host sees it; the address rules may make it
//     another address than the guest's remote.
//   - superpacket: one frame with the payload of several datagrams of equal
//     length, the last maybe shorter, which segmentation offload cuts.
//   - message: what one entry of sendmmsg or recvmmsg carries: a datagram, or
//     a row of them (UDP_SEGMENT, UDP_GRO).
//   - burst: what one pass of the shard's loop finds of a flow, in one
//     direction.
//
// From the guest: the frames of a batch are sorted by flow and each flow's go
// out with one sendmmsg. Superpackets, and runs of datagrams of equal length,
// become one UDP_SEGMENT message; where the kernel refuses that, the same
// octets are sent again as single datagrams, and it is not asked again.
//
// To the guest: recvmmsg fills frames right where their headers will stand
// before them; what UDP_GRO merged goes on as a superpacket, and so do
// datagrams of equal length that came one by one: copying them together costs
// less than a write to the tap for each. Readiness is level-triggered and one
// call drains a bounded amount, so that a busy flow cannot starve the others and
// no epoll_ctl is needed after the first.
// Datagrams that are longer than the guest's MTU are cut into IP fragments, as
// a router on a real link would see them.
//
// Between bind and connect a socket catches datagrams of anybody. The source of
// every datagram is therefore compared with the peer, and a stray one goes to
// the flow or the listener it belongs to, or is dropped.
//
// A datagram that a listener (Listen) gets from an unknown peer makes a flow
// with a connected socket on the listener's very address and port. That costs a
// few system calls per peer where answering from the listener would cost none,
// but from then on the flow is like any other: the kernel steers it to its
// shard whatever socket group the listener is in, it can segment, and errors
// come back. Where no other socket may be bound to the listener's port, a low one
// that was bound before the privilege was given up, the flow shares the
// listener's socket both ways; ICMP errors do not come back to it.
//
// The package is driven by one shard and owned by it; only Ports is shared.
package udpx
