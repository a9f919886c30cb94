package tcpx

import (
	"penne/internal/sys"
	"penne/ring"
)

// Without SO_PEEK_OFF every peek starts at the first octet in the socket, so what
// is in flight is copied once more, to be ignored: into the same scratch memory
// again and again, by prefixPieces iovecs. That bounds what may be in flight: the
// more there is, the more is copied in vain. One stream to the guest, at MTU 1500
// and 65520, Gbit/s: 5.3 and 6.6 with 4 MiB, 9.8 and 12.5 with 512 KiB, 9.2 and
// 8.4 with 256 KiB; with SO_PEEK_OFF, 7.8 and 9.0 (kernel 6.18, 2 busy cores).
const (
	prefixPiece  = 64 << 10
	prefixPieces = 8
	maxPrefix    = prefixPieces * prefixPiece
)

// peeker makes peeks start at the octet to be sent next.
type peeker struct {
	offset4, offset6 bool   // SO_PEEK_OFF works for the family
	scratch          []byte // nil if it works for both
}

// probe tries SO_PEEK_OFF on a socket of each family that the kernel has.
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

// offsets tells whether SO_PEEK_OFF works for c's socket, which is of the guest's
// family: addresses are translated within a family.
func (p *peeker) offsets(c *conn) bool {
	if c.v4() {
		return p.offset4
	}
	return p.offset6
}

// start turns SO_PEEK_OFF on for a new socket.
func (p *peeker) start(c *conn) {
	if p.offsets(c) {
		sys.SetInt(int(c.fd), sys.SOL_SOCKET, sys.SO_PEEK_OFF, 0)
	}
}

// seek makes the next peek start at c.nxt, after nxt was moved back; the kernel
// itself advances the offset when octets are peeked, and moves it back when they
// are discarded. Acknowledged octets must have been discarded before.
func (p *peeker) seek(c *conn) {
	if p.offsets(c) {
		sys.SetInt(int(c.fd), sys.SOL_SOCKET, sys.SO_PEEK_OFF, int(c.flight()))
	}
}

// prefix sets the iovecs that receive what is in flight, if SO_PEEK_OFF does not
// work, and returns their number and octets.
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

// peekInto peeks at up to room octets from c.nxt on, into the next frames of Out,
// chunk octets each. It returns how many there were and how many were asked for. One
// frame is enough, and cheaper, where the last peek did not fill one; there must be
// room for it.
func (t *TCP) peekInto(c *conn, room uint32) (n, asked int, errno sys.Errno) {
	pieces, skip := t.prefix(c)
	frames := 1
	if c.bulk {
		frames = min(peekFrames, t.env.Out.Room())
	}
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
		// Nothing follows what is in flight. With SO_PEEK_OFF the kernel says
		// EAGAIN then, or 0 at the end of the stream. A read that stops at an
		// urgent mark looks like the end.
		return 0, asked, sys.EAGAIN
	}
	c.bulk = n-skip >= int(c.chunk)
	return n - skip, asked, 0
}

// What the guest has acknowledged may stay in the socket for a while, which saves
// a flow of small answers a system call each. Only few octets of few segments may:
// the kernel frees a segment's memory when all of it is read, and the remote's
// window may never open again before that.
const (
	maxUndiscarded = 4 << 10
	maxDeferrals   = 24
)

// maybeDiscard discards what the guest has acknowledged, unless that can wait. It is
// called after everything there was to peek has been sent.
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

// discard reads what the guest has acknowledged from the socket, and notes whether
// that may leave part of a segment behind.
func (t *TCP) discard(c *conn) {
	if c.consume != 0 {
		c.deferrals, c.partialSkb = 0, c.flight() != 0 || c.readable
	}
	for c.consume > 0 {
		n, errno := sys.Discard(int(c.fd), int(c.consume))
		if errno != 0 || n <= 0 { // unexpected: they were peeked
			c.consume = 0
			c.fail(errno)
			t.queue(c)
			return
		}
		c.consume -= uint32(n)
	}
}

// chunkFor is the payload of a superpacket for a guest with this MSS: as many whole
// segments as a frame holds.
func chunkFor(mss uint16) uint16 {
	return max(ring.MaxPayload/mss, 1) * min(mss, ring.MaxPayload)
}
