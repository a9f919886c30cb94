// Package tcpx translates TCP between a guest's frames and host sockets. Towards
// the network the host kernel's TCP does the work, one socket for each flow;
// this package is the TCP that the guest talks to.
//
// Guest to host, payload goes from the frame it came in straight to the socket.
// What the socket does not take stays in its frame, in the flow's tail. Host to
// guest, bytes are peeked (MSG_PEEK) from the socket into frames, behind headers
// built once for each flow, and leave the socket when the guest acknowledges
// them: the socket's receive queue is the retransmission queue.
//
// Words:
//
//   - remote: the peer of the guest; the host's socket is connected to it.
//   - taken: received in sequence from the guest, that is, before rcvNxt.
//   - tail: the frames of octets that are taken but not yet in the socket.
//   - edge: the right edge of the window we advertised (rcvNxt + RCV.WND). It
//     never moves left.
//   - allowance: how many octets beyond rcvNxt we are ready to hold, as a
//     socket's receive buffer.
//   - reflect: acknowledge to the guest what the remote has acknowledged.
//   - hold: the time for which reflecting may delay an acknowledgment.
//   - drain: go on sending the tail of a guest that is gone after its FIN.
//   - settle: the work on one flow at the end of a pass: discard what the guest
//     acknowledged, fill its window, acknowledge.
//
// A TCP and all its flows are owned by one shard: no locks, no allocation after
// New. In one pass of its loop the shard calls Event for each ready socket,
// Input, Expire and Flush.
//
// Files: input.go, receive.go and tail.go follow a segment inwards; output.go
// and peek.go bytes outwards; ack.go and window.go decide what the guest is
// told; handshake.go, accept.go (those of remotes) and finish.go begin and end flows;
// retransmit.go holds the timers. segment.go, hold.go and window.go are functions of
// values only.
//
// Sources: RFC 9293 (TCP), RFC 5961 (blind attacks), RFC 6298 (retransmission
// timer), RFC 6528 (initial sequence numbers), RFC 7323 (window scale),
// RFC 2018 (SACK), RFC 5382 (NAT behaviour for TCP).
package tcpx
