// Package tcpx translates TCP between a guest's frames and host sockets. There
// is no TCP stack of our own for the outer side: the host kernel's socket is
// the peer's end, and this package is only the guest's.
//
// Guest to host, payload goes from the frame it came in straight to the socket.
// What the socket refuses stays in its frame, in the flow's tail. Host to guest,
// bytes are peeked from the socket into frames behind headers that were made
// with the flow, and leave the socket when the guest acknowledges them: the
// socket is the retransmission queue.
//
// Words:
//
//   - remote: the other end as the guest sees it; its socket is the host's.
//   - taken: in sequence from the guest and in our hands (rcvNxt is behind it).
//   - tail: taken, but not yet in the socket: frames that belong to the flow.
//   - stray: a frame that came before its turn, kept until the gap closes.
//   - edge: the first sequence number beyond the window we advertised. It never
//     moves left.
//   - allowance: how many octets beyond the taken ones we are ready to hold.
//   - reflect: acknowledge to the guest what the remote has acknowledged.
//   - hold: the time for which reflecting may keep an acknowledgment back.
//   - drain: go on with a flow whose guest is gone behind its FIN, until the
//     socket has the tail.
//   - settle: the work on one flow at the end of a pass: discard what the guest
//     acknowledged, fill the window, acknowledge.
//
// A TCP and all its flows are owned by one shard: no locks, no allocation after
// New. One pass of the shard's loop is Input, Event for each ready socket,
// Expire, Flush.
//
// Files: input.go, receive.go and tail.go follow a segment inwards; output.go
// and peek.go bytes outwards; ack.go and window.go decide what the guest is
// told; handshake.go and finish.go begin and end flows; retransmit.go holds the
// timers. segment.go, hold.go and window.go are functions of values only.
//
// Sources: RFC 9293 (TCP), RFC 5961 (blind attacks), RFC 6298 (retransmission
// timer), RFC 6528 (initial sequence numbers), RFC 7323 (window scale),
// RFC 2018 (SACK), RFC 5382 (NAT behaviour for TCP).
package tcpx
