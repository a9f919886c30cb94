package tcpx

import (
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
)

// keep puts n octets of f's payload, from skip on, behind what the flow has
// taken. The frame itself joins the tail (then it is tailEnd), but while the
// socket is blocked and the payload fits behind that of the last frame it is
// copied there: so two frames in a row hold more than one slot's worth
// together, and small segments cannot pin a slot each. It returns false when
// memory is too short to take anything.
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

// sendTail gives the socket what the flow has taken, as much as it accepts, and
// the guest's FIN behind it.
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

// gathered is what one sendmsg is asked to take.
type gathered struct {
	iov    []sys.Iovec
	octets int
}

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

// sent lets go of the first n octets of the tail.
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

// store keeps what the socket refused. When the pool is down to what the tap
// needs to go on, a tail that is not acknowledged is dropped instead: the guest
// will repeat it, and one slow remote cannot stop the others.
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

// compact is called when the socket has refused part of the tail: from now on
// frames of it may stay for long, so small ones are put together.
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
