// Package relay is the loopback bypass for UDP: datagrams that come to a bound
// socket on one side (the host's loopback, the namespace) are relayed to a
// socket on the other side, and the replies back, by recvmmsg and sendmmsg and
// without the tap.
//
// Words:
//
//   - peer: who sends to a listener.
//   - target: the address and port on the other side that a listener relays
//     to.
//   - flow: one peer, the local address it sent to, and the listener. It has
//     one connected socket on the other side, bound to the peer's own port
//     where that is free there, so that the target sees it.
//   - message: what one entry of sendmmsg or recvmmsg carries: a datagram, or a
//     row of them (UDP_SEGMENT, UDP_GRO).
//
// What UDP_GRO merged goes out as one UDP_SEGMENT message, and so do datagrams
// of equal length that follow each other, whatever the sender did: on loopback
// that carried 1.3 times as much to a receiver without UDP_GRO, and 1.6 times
// as much to one with it. Replies leave by the listener's socket, from the
// address the peer sent to (IP_PKTINFO), so that a flow costs one socket and a
// listener none beyond its own.
//
// # One socket, two consumers
//
// A listener inside the namespace (-U) is the relay's alone: Serve. One on the
// host (-u) is shared: datagrams of loopback peers are relayed, all others go
// through the tap. Package udpx receives them and gives each row to Local,
// which relays its own, straight from the row's memory, and says which these
// were. That costs one call a row, no copy, and no socket. The alternative,
// sockets bound to 127.0.0.1 and ::1 beside the wildcard one (the kernel
// prefers the more specific address), costs two more sockets for each port,
// 2,000 at 1,000 ports; it misses 127.0.0.2, and fails where a service of the
// host holds 127.0.0.1 itself.
//
// # Order, and several shards
//
// A listener is received from by one shard only, the one that Owner names. All
// datagrams of a peer then go through one flow in the order they came, and the
// target sees one source port. Were all shards to watch it, each burst would
// spread a peer's datagrams over them: out of order, and from as many sockets.
// (One sender of 1400-octet datagrams, two CPUs, 220,000 a second: one shard 0
// late, two shards up to 0.16% late and none more delivered.) The price: the
// flows of one port cannot use more than one shard, unless the shards have a
// socket each for it, among which the kernel distributes the peers (package
// shard, spread.go).
//
// # Errors
//
// A target that does not listen answers with an ICMP message, which the kernel
// reports on the connected socket. It ends the flow and is counted as a bad
// destination. The peer is not told, since no socket can send it the ICMP
// message that it would have received. Its next datagram makes a new flow.
//
// Memory: receive buffers are borrowed from the frames of the tap's output
// (ring.Out), which are warm in the cache and empty between two calls. All else
// is made by New, but for the listeners' table, which grows with them.
package relay
