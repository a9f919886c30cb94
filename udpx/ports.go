package udpx

import (
	"runtime"
	"sync/atomic"

	"penne/internal/sys"
	"penne/internal/wire"
)

// Ports maps the guest's ports to ports of the host, in both families. All shards
// share it; it is used when a flow is made and when it ends, not for datagrams.
//
// A guest port has one host port whatever the destination, as NAT traversal needs
// (endpoint-independent mapping, RFC 4787): the same number where that is free,
// else one of a few candidates, which are a function of the guest's address and
// port, so that every shard tries the same ones and no table is needed. A host port
// serves only one guest address and port, else two flows to the same peer would
// have the same addresses and ports on the host.
//
// The first socket of a port is bound without SO_REUSEADDR, so that no other program
// shares the port; the option is set afterwards, so that further flows can bind to
// it.
type Ports struct {
	// claim is, by family and host port: lock bit, number of flows, and the
	// tag of the guest's address and port (see tagOf). It is a megabyte, of
	// which only pages in use are resident.
	claim [2][1 << 16]atomic.Uint64
	// listen is, by family and host port, the number of listeners and the
	// guest's port they forward to.
	listen [2][1 << 16]atomic.Uint32
	// substituted counts the claims of ports other than the guest's own number.
	substituted atomic.Int64
}

const (
	portLock   = 1 << 63
	portOne    = 1 << 32 // one flow more
	listenOne  = 1 << 16 // one listener more
	candidates = 8
	// Candidates lie in the usual range of ephemeral ports.
	candidateLow, candidateSpan = 32768, 28232
)

// NewPorts makes a table with all ports free.
func NewPorts() *Ports { return &Ports{} }

func family(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

// tagOf is the tag of an address and port of the guest: 16 bits of their hash, then
// the port.
func tagOf(hash uint64, guest uint16) uint32 { return uint32(hash)<<16 | uint32(guest) }

// binding is a socket to be bound to the host port of a guest port.
type binding struct {
	fd    int
	addr  wire.Addr // local address, unspecified for any
	scope uint32
	guest uint16 // the guest's port
	tag   uint32 // see tagOf
	v6    bool
	// reuse: SO_REUSEADDR is set on fd.
	reuse bool
}

// bind binds b.fd to the host port of b's guest port, claims that and returns it. If
// all candidates are taken, the kernel chooses a port for this flow alone; then port
// is 0, and nothing is claimed.
func (p *Ports) bind(b *binding) (port uint16, errno sys.Errno) {
	if p.substituted.Load() != 0 {
		for i := range candidates {
			if h := b.candidate(i); p.holds(b, h) {
				if errno = p.try(b, h); errno == 0 {
					return h, 0
				}
			}
		}
	}
	for i := range candidates {
		h := b.candidate(i)
		if h == 0 {
			continue
		}
		switch errno = p.try(b, h); errno {
		case 0:
			return h, 0
		case sys.EADDRINUSE, sys.EACCES: // taken, or below ip_unprivileged_port_start
		default:
			return 0, errno
		}
	}
	return 0, b.bind(0)
}

// candidate is the i-th candidate for b's host port.
func (b *binding) candidate(i int) uint16 {
	if i == 0 {
		return b.guest
	}
	return candidateLow + uint16((uint64(b.tag)+uint64(i)*7919)%candidateSpan)
}

// bind is bind(2) to port.
func (b *binding) bind(port uint16) sys.Errno {
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(&b.addr), !b.v6, port, b.scope)
	return sys.Bind(b.fd, &sa)
}

// share turns SO_REUSEADDR on or off.
func (b *binding) share(on bool) {
	if b.reuse != on {
		sys.ReuseAddress(b.fd, on)
		b.reuse = on
	}
}

// holds tells whether b's guest port has host port h already.
func (p *Ports) holds(b *binding, h uint16) bool {
	w := p.claim[family(b.v6)][h].Load() &^ portLock
	return w >= portOne && uint32(w) == b.tag
}

// try binds to h, and claims it, if b's guest port may have it.
func (p *Ports) try(b *binding, h uint16) sys.Errno {
	fam := family(b.v6)
	listen := p.listen[fam][h].Load()
	if listen >= listenOne && uint16(listen) != b.guest {
		return sys.EADDRINUSE
	}
	w := p.acquire(fam, h)
	errno := b.join(h, w, listen >= listenOne)
	if errno == 0 {
		w = (w+portOne)>>32<<32 | uint64(b.tag)
		if h != b.guest {
			p.substituted.Add(1)
		}
	}
	p.claim[fam][h].Store(w)
	return errno
}

// join binds to h, whose claim is w, exclusively or together with other flows and
// listeners.
func (b *binding) join(h uint16, w uint64, listened bool) sys.Errno {
	if w >= portOne && uint32(w) != b.tag {
		return sys.EADDRINUSE
	}
	b.share(w >= portOne || listened)
	errno := b.bind(h)
	if errno == 0 {
		b.share(true)
	}
	return errno
}

// join claims host port h for a flow whose socket was bound together with a
// listener's, unless it is claimed for another port of the guest, and tells
// whether it did.
func (p *Ports) join(v6 bool, h uint16, tag uint32) bool {
	fam := family(v6)
	w := p.acquire(fam, h)
	ok := w < portOne || uint32(w) == tag
	if ok {
		w = (w+portOne)>>32<<32 | uint64(tag)
		if h != uint16(tag) {
			p.substituted.Add(1)
		}
	}
	p.claim[fam][h].Store(w)
	return ok
}

// Holds tells whether flows of the guest's port have the host port of the same
// number, in either family. Then no other program has it, and a listener may be
// bound to it with SO_REUSEADDR. Safe for concurrent use.
func (p *Ports) Holds(port uint16) bool {
	for fam := range p.claim {
		if w := p.claim[fam][port].Load() &^ portLock; w >= portOne && uint16(w) == port {
			return true
		}
	}
	return false
}

// release ends one flow's claim of port for the guest's port guest, after the
// flow's socket was closed.
func (p *Ports) release(v6 bool, port, guest uint16) {
	fam := family(v6)
	w := p.acquire(fam, port) - portOne
	if w < portOne {
		w = 0
	}
	if port != guest {
		p.substituted.Add(-1)
	}
	p.claim[fam][port].Store(w)
}

// acquire takes the lock of a port and returns its claim. The lock is held for three
// system calls at most; storing the claim releases it.
func (p *Ports) acquire(fam int, port uint16) uint64 {
	w := &p.claim[fam][port]
	for {
		v := w.Load()
		if v&portLock == 0 && w.CompareAndSwap(v, v|portLock) {
			return v
		}
		runtime.Gosched()
	}
}

// forward notes one more listener on host port h that serves the guest's port.
// With listeners on several addresses the first one's port counts.
func (p *Ports) forward(v6 bool, h, guest uint16) {
	w := &p.listen[family(v6)][h]
	for {
		v := w.Load()
		next := v + listenOne
		if v < listenOne {
			next = listenOne | uint32(guest)
		}
		if w.CompareAndSwap(v, next) {
			return
		}
	}
}

// unforward ends what forward noted.
func (p *Ports) unforward(v6 bool, h uint16) {
	w := &p.listen[family(v6)][h]
	for v := w.Load(); v >= listenOne; v = w.Load() {
		if w.CompareAndSwap(v, v-listenOne) {
			return
		}
	}
}
