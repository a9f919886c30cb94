// Package portscan finds the ports that are bound in a network namespace, for
// automatic forwarding: TCP ports that are listened on, and bound UDP ports.
//
// An unprivileged process is not notified of binds, so it has to poll. A scan is
// up to four sock_diag(7) dumps, filtered by protocol, family and state, which are
// parsed into bitmaps: nothing is allocated, however many sockets there are.
// Without sock_diag (a kernel that lacks it, a container's seccomp filter) the
// tables under /proc/net are read, which are opened with the [Scanner]. [Policy]
// says when to scan.
//
// It is for the control thread; no shard calls it.
package portscan

import (
	"iter"
	"math/bits"
)

// Ports is a set of port numbers, one bit each. The zero value is empty.
type Ports [1024]uint64

// Add puts a port into the set.
func (p *Ports) Add(port uint16) { p[port/64] |= 1 << (port % 64) }

// Remove takes a port out of the set.
func (p *Ports) Remove(port uint16) { p[port/64] &^= 1 << (port % 64) }

// Has reports whether a port is in the set.
func (p *Ports) Has(port uint16) bool { return p[port/64]&(1<<(port%64)) != 0 }

// RemoveAll takes the ports of o out of the set.
func (p *Ports) RemoveAll(o *Ports) {
	for i := range p {
		p[i] &^= o[i]
	}
}

// Len counts the ports in the set.
func (p *Ports) Len() (n int) {
	for _, w := range p {
		n += bits.OnesCount64(w)
	}
	return n
}

// All iterates over the ports in the set, in order.
func (p *Ports) All() iter.Seq[uint16] {
	return func(yield func(uint16) bool) {
		for i, w := range p {
			for ; w != 0; w &= w - 1 {
				if !yield(uint16(i*64 + bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}

// Families are the ports of one protocol by address family. A socket bound to ::
// without IPV6_V6ONLY serves IPv4 too, and is in both sets.
type Families struct {
	V4, V6 Ports
}

// Result is what is bound in a namespace.
type Result struct {
	TCP, UDP Families
}
