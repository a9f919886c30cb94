// Package splice joins two TCP sockets, one in each namespace, for connections
// that are local on both sides: bytes go from socket to socket through a pipe,
// by splice(2), and never see the tap. Half-closes and resets are passed on;
// urgent octets become ordinary ones in their place. Without a pipe bytes are
// copied, so that no connection ends for lack of descriptors.
//
// A Relay belongs to one shard. It owns both sockets of each connection from
// Open on.
package splice

import (
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/shard/env"
	"penne/shard/flow"
)

// Sides of a connection: the one that was accepted and the one we connect.
const (
	accepted = iota
	connected
)

// way is one direction: from the socket of its side to the other side's.
type way struct {
	pipe      pipe
	hasPipe   bool
	readable  bool // the source may have bytes: set by an event, cleared by EAGAIN
	writable  bool // the target of this way may take bytes
	hungUp    bool // an event told that the source's peer sends no more
	eof       bool // the source has sent its last byte
	finSent   bool // and the target was shut down
	corked    bool // the last bytes were sent with SPLICE_F_MORE
	urgent    bool // urgent data came, which splice(2) cannot carry
	resetSeen bool // a write reported the target's reset: reading from it will not
	inPipe    int
	taken     int // octets in this turn
}

// conn is one connection; ways[accepted] leads from the accepted socket.
type conn struct {
	fd         [2]int
	ways       [2]way
	next       int32 // in the busy list; -1 ends it
	gen        uint32
	live       bool
	connecting bool
	failed     bool // a socket has an error: carry what came before it, then reset both
	busy       bool // its turn was cut short: it goes on in the next pass
}

// Relay holds a shard's spliced connections.
type Relay struct {
	env   *env.Env
	conns []conn
	free  flow.Slots
	busy  int32 // the list of connections that go on in the next pass
	used  int
	pipes pipes

	// scratch is where bytes go that no pipe carries, and scratchIov points
	// to it. Nothing stays there past a call.
	scratch    []byte
	scratchIov [1]sys.Iovec
}

// New makes a relay for up to limit connections.
func New(e *env.Env, limit int) *Relay {
	return &Relay{
		env: e, conns: make([]conn, limit), free: flow.NewSlots(limit), busy: -1,
		pipes: newPipes(), scratch: make([]byte, scratchSize),
	}
}

// Len is the number of connections.
func (r *Relay) Len() int { return r.used }

// Pending tells whether some connection has more to move at once, so that the
// shard must not block before it has called Flush again.
func (r *Relay) Pending() bool { return r.busy >= 0 }

// Trim gives the empty pipes back to the kernel. Not for the packet path.
func (r *Relay) Trim() { r.pipes.close() }

// receiveBuffer bounds what queues in an accepted socket, in octets. Its peer is
// local, so there is no round-trip time to fill, and what has left the caches
// before it is read slows down everybody: the kernel would let it grow to tens of
// megabytes (tcp_rmem).
const receiveBuffer = 1 << 19

// Open joins the accepted socket a to the socket b, whose connect has begun and
// may still be in progress. Both are the relay's from now on; if it is
// full, a is reset and b closed.
func (r *Relay) Open(a, b int) {
	id := r.free.Take()
	if id < 0 {
		r.env.Count.Drop(stats.TableFull)
		sys.Reset(a)
		sys.Close(b)
		return
	}
	c := &r.conns[id]
	*c = conn{fd: [2]int{a, b}, gen: c.gen + 1, live: true, connecting: true, next: -1}
	r.used++
	r.env.Count.Spliced++
	sys.NoDelay(a)
	sys.NoDelay(b)
	sys.SetReceiveBuffer(a, receiveBuffer)
	for side, fd := range c.fd {
		const all = sys.EPOLLIN | sys.EPOLLOUT | sys.EPOLLRDHUP | sys.EPOLLPRI | sys.EPOLLET
		if errno := r.env.Epoll.Add(fd, all, r.token(id, side)); errno != 0 {
			r.env.Count.Drop(stats.NoSocket)
			r.reset(id)
			return
		}
	}
}

// token is for the socket on a side of the connection.
func (r *Relay) token(id int32, side int) uint64 {
	return uint64(flow.NewToken(flow.KindSplice, r.conns[id].gen, id<<1|int32(side)))
}

// Event handles an event of one of the sockets. Stale tokens are ignored.
func (r *Relay) Event(tok flow.Token, bits uint32) {
	id, side := tok.Slot()>>1, int(tok.Slot()&1)
	c := &r.conns[id]
	if !c.live || c.gen&0xffffff != tok.Gen() {
		return
	}
	if bits&sys.EPOLLERR != 0 {
		c.fail() // refused, or reset by the peer: pass it on
	}
	if c.connecting && side == connected {
		if bits&(sys.EPOLLOUT|sys.EPOLLERR) == 0 {
			return
		}
		c.connecting = false
	}
	if bits&sys.EPOLLPRI != 0 && !c.ways[side].urgent {
		c.ways[side].urgent = true
		sys.SetInt(c.fd[side], sys.SOL_SOCKET, sys.SO_OOBINLINE, 1)
	}
	if bits&(sys.EPOLLRDHUP|sys.EPOLLHUP) != 0 {
		c.ways[side].hungUp = true
	}
	if bits&(sys.EPOLLIN|sys.EPOLLRDHUP|sys.EPOLLHUP) != 0 {
		c.ways[side].readable = true
	}
	if bits&sys.EPOLLOUT != 0 {
		c.ways[1-side].writable = true
	}
	if !c.connecting {
		r.move(id)
	}
}

// Flush gives connections whose turn was cut short another turn.
func (r *Relay) Flush() {
	list := r.busy
	r.busy = -1
	for list >= 0 {
		id := list
		c := &r.conns[id]
		list, c.next, c.busy = c.next, -1, false
		if c.live {
			r.move(id)
		} else {
			r.free.Put(id)
		}
	}
}

// fail notes that a socket has an error. What its peer sent before is still there,
// and goes to the other peer, as it would if the two were connected. What does not
// fit that one's receive buffer would be lost then as well.
func (c *conn) fail() {
	c.failed = true
	for i := range c.ways {
		c.ways[i].readable, c.ways[i].writable, c.ways[i].hungUp = true, true, true
	}
}

// move carries what it can in both directions.
func (r *Relay) move(id int32) {
	c := &r.conns[id]
	more := false
	for side := range c.ways {
		again, ok := r.carry(c, side)
		r.env.Count.SplicedBytes += uint64(c.ways[side].taken)
		if !ok && !c.failed {
			c.fail()
			again = true // the other way may have had its turn
		}
		more = more || again
	}
	switch {
	case c.ways[0].finSent && c.ways[1].finSent:
		r.close(id)
	case more && !c.busy:
		c.busy, c.next, r.busy = true, r.busy, id
	case !more && c.failed:
		r.reset(id)
	}
}

// reset ends a connection so that both peers see an RST.
func (r *Relay) reset(id int32) {
	c := &r.conns[id]
	for _, fd := range c.fd {
		sys.Reset(fd)
	}
	r.release(id)
}

// close ends a connection that both peers have closed.
func (r *Relay) close(id int32) {
	for _, fd := range r.conns[id].fd {
		sys.Close(fd)
	}
	r.release(id)
}

// release frees the connection whose sockets are closed.
func (r *Relay) release(id int32) {
	c := &r.conns[id]
	c.live = false
	for i := range c.ways {
		if w := &c.ways[i]; w.hasPipe { // bytes may be left in it: not reusable
			w.pipe.close()
			w.hasPipe = false
		}
	}
	r.used--
	if !c.busy { // else Flush frees the slot
		r.free.Put(id)
	}
}

// Close resets all connections.
func (r *Relay) Close() {
	for id := range r.conns {
		if r.conns[id].live {
			r.reset(int32(id))
		}
	}
	r.pipes.close()
}
