// Package udpx translates between the guest's UDP datagrams and sockets of the
// host. Every flow has a connected socket of its own, so that the kernel
// delivers its datagrams to the shard that owns it, caches its route, and
// reports ICMP errors for it alone.
//
// Words:
//
//   - flow: what the guest sees as (guest address:port, remote address:port).
//   - peer: the remote as the host sees it; the address rules may translate its
//     address.
//   - superpacket: a run in one frame, which segmentation offload cuts.
//   - message: one entry of sendmmsg or recvmmsg: a datagram, or several of equal
//     length (UDP_SEGMENT, UDP_GRO).
//   - row: the messages of one sendmmsg or recvmmsg.
//   - run: consecutive datagrams that can make one message or superpacket: all of
//     one length, the last maybe shorter.
//   - burst: what one pass of the shard's loop finds of a flow, in one direction.
//   - stray: a datagram in a flow's socket that is not from the flow's peer.
//
// From the guest: the frames of a batch are sorted by flow and each flow's go
// out with one sendmmsg. Superpackets, and runs of datagrams of equal length,
// become one UDP_SEGMENT message; where the kernel refuses that, the
// datagrams are sent one by one, then and from then on.
//
// To the guest: recvmmsg fills frames, leaving room for their headers. What UDP_GRO
// merged stays a superpacket, and datagrams of equal length that came one by one
// become one: copying them together costs less than a write to the tap for each. Readiness is level-triggered and one
// call receives a bounded amount, so that a busy flow cannot starve the others and
// no epoll_ctl is needed after the first.
// Datagrams longer than the guest's MTU are sent as IP fragments, as a router would.
//
// Between bind and connect a socket receives datagrams from anybody. The source of
// every datagram is therefore compared with the peer, and a stray goes to the flow
// or the listener it belongs to, or is dropped.
//
// A datagram that a listener (Listen) gets from an unknown peer makes a flow with a
// connected socket bound to the listener's address and port. That costs a
// few system calls per peer where answering from the listener would cost none, but
// from then on the flow is like any other: the kernel delivers its datagrams to its
// shard whatever SO_REUSEPORT group the listener is in, it can segment, and ICMP
// errors come back. Where no other socket may be bound to the listener's port, as to
// a low one that was bound before the privilege was dropped, the flow shares the
// listener's socket both ways; ICMP errors do not come back to it then.
//
// A UDP is owned by one shard; all share one Ports.
package udpx
