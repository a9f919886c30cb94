// Package nl reads the host's links, addresses and routes, and sets a
// namespace's, over rtnetlink (rtnetlink(7)).
//
// It works in three steps. A [Snapshot] is the state of the host's network. A
// [Template] is the part of it that the guest gets, selected by pure functions from
// a Snapshot and [Options]. [Conn.Configure] applies a Template to a namespace,
// best effort: what the kernel refuses is left out and listed in the [Report]. A
// [Monitor] repeats the first two steps when the host's network changes, and
// [Conn.Apply] applies the difference.
//
// All of this is control plane: it allocates, and is never called from a shard.
// vishvananda/netlink/nl handles the socket; messages are parsed and built here, so
// that route metrics are copied unchanged and values can be compared.
//
// A [Conn] acts on the network namespace of the thread that dialled it. The kernel
// checks the caller's capabilities at each request, not only when the socket is
// made: changing a namespace takes CAP_NET_ADMIN over it at that time.
package nl
