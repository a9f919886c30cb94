package tcpx

import (
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
)

// keep appends n octets of f's payload, from skip on, to the tail. The frame itself
// joins it (then it is tailEnd); but while the socket is blocked, and if they fit,
// the octets are copied behind those of the last frame: so any two frames in a row
// hold more than fits into one slot, and small segments cannot pin a slot each. It
// returns false, and takes nothing, when free frames are short.
func (t *TCP) keep(c *conn, f *ring.Frame, skip, n uint32) bool {
	f.SetBounds(f.Offset()+int(skip), f.Len()-int(skip))
	f.H.PayloadLen = n
	if c.blocked && c.tailEnd != nil && absorb(c.tailEnd, f) {
		c.tailLen += n
		return true
	}
	if c.blocked && t.env.Pool.Free() < t.reserve {
		return false
	}
	f.Next = nil
	if c.tail == nil {
		c.tail, c.tailSkip = f, 0
	} else {
		c.tailEnd.Next = f
	}
	c.tailEnd = f
	c.tailLen += n
	if c.blocked {
		t.env.Count.TCPTailFrames++
	}
	return true
}

// absorb copies the payload of b behind that of a, if it fits.
func absorb(a, b *ring.Frame) bool {
	room, p := a.TailRoom(), b.L4Payload()
	if len(p) > len(room) {
		return false
	}
	copy(room, p)
	a.H.PayloadLen += uint32(len(p))
	return true
}

// sendTail sends the tail to the socket, as far as that has room, and then the
// guest's FIN.
func (t *TCP) sendTail(c *conn) {
	for c.tail != nil && !c.blocked && !c.failed {
		asked := t.gather(c)
		n, errno := sys.SendIov(int(c.fd), asked.iov)
		switch {
		case errno == sys.EAGAIN:
			n = 0
		case errno != 0:
			c.fail(errno)
			t.queue(c)
			return
		}
		t.sent(c, uint32(n))
		if n < asked.octets {
			c.blocked = true
			t.store(c)
		}
	}
	if c.tail == nil && c.guestFIN && !c.shut && !c.failed {
		c.shut = true
		sys.Shutdown(int(c.fd), sys.SHUT_WR)
	}
}

// gathered is what one sendmsg is to send.
type gathered struct {
	iov    []sys.Iovec
	octets int
}

// gather collects the first frames of the tail.
func (t *TCP) gather(c *conn) gathered {
	var g gathered
	skip := c.tailSkip
	n := 0
	for f := c.tail; f != nil && n < sendFrames; f = f.Next {
		p := f.L4Payload()[skip:]
		skip = 0
		sys.SetIovec(&t.iov[n], p)
		g.octets += len(p)
		n++
	}
	g.iov = t.iov[:n]
	return g
}

// sent removes the first n octets of the tail, and frees their frames.
func (t *TCP) sent(c *conn, n uint32) {
	c.tailLen -= n
	n += c.tailSkip
	for c.tail != nil && n >= c.tail.H.PayloadLen {
		f := c.tail
		n -= f.H.PayloadLen
		c.tail = f.Next
		t.env.Pool.Put(f)
	}
	c.tailSkip = n
	if c.tail == nil {
		c.tailEnd = nil
	}
}

// store keeps what the socket did not take. When the pool is down to what the tap
// needs, an unacknowledged tail is dropped instead: the guest will retransmit it,
// and one slow remote cannot stop the others.
func (t *TCP) store(c *conn) {
	t.compact(c)
	if t.env.Pool.Free() >= t.reserve || c.guestFIN || wire.SeqLT(c.inSocket(), c.ackTo) {
		return
	}
	t.env.Count.Drop(stats.NoFrame)
	t.env.Pool.PutAll(c.tail)
	c.rcvNxt -= c.tailLen
	c.tail, c.tailEnd, c.tailLen, c.tailSkip = nil, nil, 0, 0
	c.held.n = 0
}

// compact merges small frames of the tail, which may stay for long once the socket
// is full.
func (t *TCP) compact(c *conn) {
	for f := c.tail; f != nil; {
		next := f.Next
		if next == nil || !absorb(f, next) {
			t.env.Count.TCPTailFrames++
			f = next
			continue
		}
		f.Next = next.Next
		if c.tailEnd == next {
			c.tailEnd = f
		}
		t.env.Pool.Put(next)
	}
}
