package tcpx

import (
	"penne/internal/sys"
	"penne/ring"
)

// Without SO_PEEK_OFF every peek starts at the first octet that the guest has
// not acknowledged, so what is in flight is copied again, into a scratch area
// that is thrown away. The pieces of that area bound what may be in flight.
const (
	prefixPiece  = 64 << 10
	prefixPieces = 64
	maxPrefix    = prefixPieces * prefixPiece
)

// peeker knows how to peek at the place where the guest's stream goes on.
type peeker struct {
	offset4, offset6 bool   // SO_PEEK_OFF works for the family
	scratch          []byte // nil if it works for both
}

// probe tries SO_PEEK_OFF on a socket of each family. A family that has no
// sockets needs none.
func (p *peeker) probe(never bool) {
	p.offset4 = !never && hasPeekOff(sys.AF_INET)
	p.offset6 = !never && hasPeekOff(sys.AF_INET6)
	if !p.offset4 || !p.offset6 {
		p.scratch = make([]byte, prefixPiece)
	}
}

func hasPeekOff(family int) bool {
	fd, errno := sys.Socket(family, sys.SOCK_STREAM, sys.IPPROTO_TCP)
	if errno != 0 {
		return errno == sys.EAFNOSUPPORT
	}
	defer sys.Close(fd)
	return sys.SetInt(fd, sys.SOL_SOCKET, sys.SO_PEEK_OFF, 0) == 0
}

// offsets tells whether SO_PEEK_OFF works for c's socket. Its family is the
// guest's: addresses are translated within a family.
func (p *peeker) offsets(c *conn) bool {
	if c.v4() {
		return p.offset4
	}
	return p.offset6
}

// start readies a new socket.
func (p *peeker) start(c *conn) {
	if p.offsets(c) {
		sys.SetInt(int(c.fd), sys.SOL_SOCKET, sys.SO_PEEK_OFF, 0)
	}
}

// seek makes the next peek start at c.nxt. It is called when nxt has gone back;
// else the kernel's offset moves with us, forward when octets are peeked and
// back when they are consumed. Octets acknowledged must have left the socket.
func (p *peeker) seek(c *conn) {
	if p.offsets(c) {
		sys.SetInt(int(c.fd), sys.SOL_SOCKET, sys.SO_PEEK_OFF, int(c.flight()))
	}
}

// prefix puts the pieces in front that take what is in flight, where the kernel
// has no offset, and returns their number and size.
func (t *TCP) prefix(c *conn) (pieces, octets int) {
	if t.peeker.offsets(c) {
		return 0, 0
	}
	octets = int(c.flight())
	for left := octets; left > 0; pieces++ {
		n := min(left, prefixPiece)
		sys.SetIovec(&t.iov[pieces], t.peeker.scratch[:n])
		left -= n
	}
	return pieces, octets
}

// peekInto peeks the octets that follow c.nxt, up to room of them, into the
// next frames to build, chunk octets each, and returns how many there were and
// how many were asked for.
func (t *TCP) peekInto(c *conn, room uint32) (n, asked int, errno sys.Errno) {
	pieces, skip := t.prefix(c)
	frames := min(peekFrames, t.env.Out.Room())
	for i := 0; i < frames && room > 0; i++ {
		size := min(uint32(c.chunk), room)
		sys.SetIovec(&t.iov[pieces], t.env.Out.Peek(i).PayloadArea()[:size])
		room -= size
		asked += int(size)
		pieces++
	}
	n, errno = sys.PeekIov(int(c.fd), t.iov[:pieces])
	if errno != 0 {
		return 0, asked, errno
	}
	if n < skip || n == skip && skip > 0 && (!c.rdhup || c.urgent) {
		// Nothing behind what is in flight: with an offset the kernel would
		// have said so, or 0 for the end. An urgent mark looks like the end.
		return 0, asked, sys.EAGAIN
	}
	return n - skip, asked, 0
}

// What the guest has acknowledged may stay in the socket for a while, which
// saves a flow of small answers a system call each; but only few octets of few
// segments, and nothing else: a piece of a large segment holds its whole memory,
// and the remote's window may then never open again.
const (
	maxUndiscarded = 4 << 10
	maxDeferrals   = 24
)

// maybeDiscard is discard for a flow that goes on, after everything there was to
// peek has been sent.
func (t *TCP) maybeDiscard(c *conn) {
	if c.consume == 0 {
		return
	}
	c.deferrals++
	few := c.consume+c.flight() < maxUndiscarded && c.deferrals < maxDeferrals && !c.readable && !c.partialSkb
	if few && !c.rdhup && !c.finSent && !c.urgent {
		return
	}
	t.discard(c)
}

// discard takes what the guest has acknowledged out of the socket, and notes
// whether that may leave a piece of a segment behind.
func (t *TCP) discard(c *conn) {
	if c.consume != 0 {
		c.deferrals, c.partialSkb = 0, c.flight() != 0 || c.readable
	}
	for c.consume > 0 {
		n, errno := sys.Discard(int(c.fd), int(c.consume))
		if errno != 0 || n <= 0 { // cannot be: it was peeked
			c.consume = 0
			c.fail(errno)
			t.queue(c)
			return
		}
		c.consume -= uint32(n)
	}
}

// chunkFor is the payload of a frame for a guest with this MSS: as many whole
// segments as fit.
func chunkFor(mss uint16) uint16 {
	return max(ring.MaxPayload/mss, 1) * min(mss, ring.MaxPayload)
}
