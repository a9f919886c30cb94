// Package nl reads the host's links, addresses and routes, and sets a
// namespace's, over rtnetlink (rtnetlink(7)).
//
// It works in three steps. A [Snapshot] is what the kernel said, one dump per
// kind of object. A [Template] is what of it the guest shall have: chosen by
// pure functions from a Snapshot and [Options]. [Conn.Configure] brings a
// Template into a namespace, best effort: what the kernel refuses is left out
// and told in the [Report]. A [Monitor] repeats the first two steps when the
// host changes, and [Conn.Apply] brings the difference into the namespace.
//
// All of it belongs to the control plane: it allocates freely and is never
// called from a shard. The socket work is vishvananda/netlink/nl's; messages
// are read and written here, so that route metrics travel untouched and values
// compare.
//
// A [Conn] acts on the network namespace of the thread that dialled it, for
// life. The kernel checks capabilities of the caller at each request, not only
// when the socket is made: changing a namespace takes CAP_NET_ADMIN over it at
// that moment.
package nl
