package tcpx

import (
	"errors"
	"time"

	"penne/internal/icmp"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/env"
	"penne/shard/flow"
	"penne/shard/wheel"
)

// Config is what New needs.
type Config struct {
	Env *env.Env
	// Flows is the most flows at a time.
	Flows int
	// MaxTail is the most octets in one flow's tail; 0: 4 MiB.
	MaxTail int
	// ShortPath: with a round-trip time to the remote below it, octets are
	// acknowledged once they are in the socket, else once the remote has
	// acknowledged them; 0: 1 ms, negative: always the latter.
	ShortPath time.Duration
	// NoPeekOff does without SO_PEEK_OFF, which TCP sockets have since Linux
	// 6.9 (IPv4) and 6.11 (IPv6).
	NoPeekOff bool
	// HandInbound has another shard accept the connection of fd. Unused with a single
	// shard (without Env.Directory).
	HandInbound func(fd int, in Inbound, owner uint8)
}

// Tuning of the two directions.
const (
	// sendFrames is the most frames that one sendmsg gathers.
	sendFrames = 128
	// peekFrames is the most frames one recvmsg fills: half a megabyte, so
	// that it is still in the L2 cache when the tap copies it out.
	peekFrames = 8
	// peekRounds bounds the recvmsg calls for one flow in one pass.
	peekRounds = 8
)

// TCP is the translator of one shard. Owned by it.
type TCP struct {
	env   *env.Env
	table *flow.Table
	conns []conn
	wheel *wheel.Wheel
	due   [64]int32

	// work and workEnd are the first and last flow to settle, as slot+1.
	work, workEnd int32
	// The flow of the last frame: frames come in runs.
	lastKey  flow.Key
	lastSlot int32

	peeker     peeker
	iov        []sys.Iovec
	secret     flow.Seed // of initial sequence numbers
	maxTail    uint32
	shortPath  int64
	reserve    int // frames of the pool that tails must leave to the tap
	evictHand  int // clock hand of insert's search for a TIME-WAIT slot
	challenges limiter
	handOn     func(fd int, in Inbound, owner uint8) // Config.HandInbound
	opts       [40]byte
	notice     icmp.Error
	quote      [wire.IPv6Len + wire.TCPLen]byte
	blocks     [maxBlocks][2]uint32
}

// New makes a translator and allocates all that it needs.
func New(cfg Config) (*TCP, error) {
	if cfg.Flows < 1 || cfg.Env == nil {
		return nil, errors.New("make TCP translator: no room for a flow")
	}
	t := &TCP{
		env: cfg.Env, table: flow.NewTable(cfg.Flows, cfg.Env.Seed), conns: make([]conn, cfg.Flows),
		wheel: wheel.New(cfg.Flows, cfg.Env.Now), lastSlot: -1,
		secret: flow.NewSeed(), maxTail: uint32(cfg.MaxTail), shortPath: int64(cfg.ShortPath),
		reserve: min(2*ring.BatchSize, cfg.Env.Pool.Size()/4), handOn: cfg.HandInbound,
		iov: make([]sys.Iovec, max(sendFrames, prefixPieces+peekFrames)),
	}
	if t.maxTail == 0 {
		t.maxTail = defaultMaxTail
	}
	if t.shortPath == 0 {
		t.shortPath = defaultShortPath
	}
	t.peeker.probe(cfg.NoPeekOff)
	return t, nil
}

// Len is the number of flows.
func (t *TCP) Len() int { return t.table.Len() }

// Close ends every flow: the guest gets a RST, and so does the remote, unless it
// was sent the guest's FIN; then the kernel delivers what is in the socket.
func (t *TCP) Close() {
	t.table.All(func(slot int32) {
		c := &t.conns[slot]
		if c.heir >= 0 {
			sys.Reset(int(c.heir))
			c.heir = -1
		}
		t.sendReset(c)
		t.endHost(c)
	})
}

// queue appends c to the work list, unless it is there.
func (t *TCP) queue(c *conn) {
	if c.queued {
		return
	}
	c.queued, c.next = true, 0
	if t.work == 0 {
		t.work = c.slot + 1
	} else {
		t.conns[t.workEnd-1].next = c.slot + 1
	}
	t.workEnd = c.slot + 1
}

// Flush settles the flows in the work list. The frames it builds are left in
// Env.Out; flows with more to do are in the work list of the next pass (see
// Next).
func (t *TCP) Flush() {
	slot := t.work
	t.work, t.workEnd = 0, 0
	for slot != 0 {
		c := &t.conns[slot-1]
		slot = c.next
		c.queued = false
		t.settle(c)
	}
}

// settle does for one flow what is done once a pass.
func (t *TCP) settle(c *conn) {
	if c.state == draining {
		t.drain(c)
	}
	if c.state == open {
		t.sendTail(c)
	}
	// If the remote resets before the guest has answered our SYN, the guest
	// gets what came first, unless it does not answer that SYN.
	if c.failed && (c.state == open || c.tries > 0) {
		t.hostFailed(c)
	}
	if c.state == open {
		if c.consume >= maxUndiscarded || !t.peeker.offsets(c) {
			t.discard(c)
		}
		t.reviewAck(c)
		t.pump(c)
		t.maybeDiscard(c)
	}
	if c.state == open && !t.finished(c) {
		t.acknowledge(c)
		t.finished(c)
	}
	if c.state != unused {
		t.arm(c)
	}
}

// Next is when Flush or Expire next has work (on the clock of Env.Now); ok is
// false if only the guest or a socket can cause any.
func (t *TCP) Next() (deadline int64, ok bool) {
	if t.work != 0 {
		return t.env.Now, true
	}
	return t.wheel.Next()
}

// limiter lets through rate events a second (RFC 5961 section 7: challenge
// acknowledgments are limited).
type limiter struct {
	second int64
	n      int
}

const challengeRate = 1000

func (l *limiter) allow(now int64) bool {
	if s := now / 1e9; s != l.second {
		l.second, l.n = s, 0
	}
	l.n++
	return l.n <= challengeRate
}
