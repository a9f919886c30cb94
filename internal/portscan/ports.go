// Package portscan finds the ports that are bound on the other side, for
// automatic forwarding: TCP ports listened on and UDP ports bound, in the
// network namespace where a [Scanner] was opened.
//
// Nothing tells an unprivileged process of a bind, so it has to be polled. A
// scan asks sock_diag(7), four dumps that hold the sockets in question and no
// others, read into one buffer and straight into bitmaps: nothing is allocated,
// whatever the number of sockets. Where sock_diag is not to be had (a kernel
// without it, a seccomp filter around us), the tables under /proc/net serve,
// whose files are opened with the Scanner. [Policy] says when to scan.
//
// All of it belongs to the control thread; no shard calls it.
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

// Has tells whether a port is in the set.
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

// All walks over the ports in the set, in order.
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

// Families holds the ports of one protocol by the family that they serve. A
// socket bound to :: serves IPv4 too, unless it is IPV6_V6ONLY, and is in both
// sets.
type Families struct {
	V4, V6 Ports
}

// Result is what is bound in a namespace.
type Result struct {
	TCP, UDP Families
}
