package shard

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"penne/internal/fwd"
	"penne/internal/ndp"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/ring"
	"penne/shard/env"
	"penne/shard/flow"
	"penne/tap"
	"penne/tcpx"
	"penne/tcpx/splice"
	"penne/udpx"
	"penne/udpx/ping"
	"penne/udpx/relay"
)

// Shard is one worker. All fields belong to its thread once run has started, but
// wake, active, asleep and mail, which other threads use as well.
type Shard struct {
	env   env.Env
	arena *ring.Arena
	port  tap.Port
	group *Group
	count stats.Counters

	tcp  *tcpx.TCP
	udp  *udpx.UDP
	ping *ping.Ping
	ndp  *ndp.Responder
	// services are shared by all shards, and read only.
	services *Services
	// splice carries connections past the tap, relay datagrams.
	splice *splice.Relay
	relay  *relay.Relay
	// namespace is where the relay sends what local peers on the host send,
	// host where it sends what comes from inside.
	namespace, host relay.Side
	listen          listening

	rx, tcpIn, udpIn, pingIn ring.Batch
	guestMAC                 [6]byte // last source address seen, to notice a change
	events                   []sys.Event
	tapReady                 bool   // the tap may hold frames
	pushed                   []bool // by peer: frames were pushed to it in this pass
	done                     bool   // the loop ends with this pass

	trimmed    bool   // memory was returned since the last traffic
	trimAt     int64  // else when it will be
	shortWaits bool   // the last wait ended within spinTime
	lastOctets uint64 // octets counted at the last call of sparse
	activity   uint64 // traffic counted at the last call of noteActivity

	cpu    int          // the only one to run on; -1 for any
	wake   int          // eventfd
	active atomic.Int64 // when traffic was last seen, for the control thread
	asleep atomic.Bool  // blocked or about to block: peers must signal wake
	mail   mailbox
}

// mailbox carries the control thread's messages to a shard.
type mailbox struct {
	mu    sync.Mutex // guards queue, and wake against free
	queue []func(*Shard)
	flag  atomic.Bool // queue may be non-empty; read without mu
}

// newShard makes the shard of the id-th port. On error what it has made is left
// to the end of the process.
func newShard(id int, cfg *Config, g *Group) (*Shard, error) {
	s := &Shard{group: g, port: cfg.Ports[id], cpu: -1, trimmed: true, events: make([]sys.Event, eventBatch), pushed: make([]bool, len(cfg.Ports))}
	var err error
	if s.arena, err = ring.NewArena(framesPerShard, uint8(id)); err != nil {
		return nil, fmt.Errorf("make shard %d: %w", id, err)
	}
	if s.env.Epoll, err = sys.NewEpoll(eventBatch); err != nil {
		return nil, fmt.Errorf("make shard %d: %w", id, err)
	}
	if s.wake, err = sys.NewEventFD(); err != nil {
		return nil, fmt.Errorf("make shard %d: create event counter: %w", id, err)
	}
	s.env.Shard, s.env.Now = uint8(id), sys.Now()
	s.env.Rules, s.env.Guest = cfg.Rules, cfg.Guest
	s.env.Pool = ring.NewPool(s.arena)
	s.env.Out = ring.NewOut(s.env.Pool, outFrames, s.port)
	s.env.Count, s.env.Seed = &s.count, &g.seed
	if len(cfg.Ports) > 1 {
		s.env.Directory, s.env.HandOff = g.directory, s.handOff
	}
	s.port.SetCounters(&s.count)
	if err := s.makeTranslators(cfg, g); err != nil {
		return nil, err
	}
	return s, s.watchOwn()
}

func (s *Shard) makeTranslators(cfg *Config, g *Group) (err error) {
	flows := max(cfg.Flows/len(cfg.Ports), 1)
	if s.tcp, err = tcpx.New(tcpx.Config{Env: &s.env, Flows: flows, HandInbound: s.handInbound}); err != nil {
		return err
	}
	if s.udp, err = udpx.New(udpx.Config{Env: &s.env, Flows: flows, Ports: g.ports}); err != nil {
		return err
	}
	s.ping, err = ping.New(ping.Config{Env: &s.env, Flows: min(flows, maxPings), Warn: cfg.Warn})
	if err != nil {
		return err
	}
	s.services, s.ndp = cfg.Services, ndp.New(cfg.Services.NDP)
	s.splice = splice.New(&s.env, maxSpliced/len(cfg.Ports))
	s.relay, s.namespace = relay.New(&s.env, maxSpliced/len(cfg.Ports)), s.namespaceSide()
	s.host = relay.Host
	s.host.Held = &g.heldOnHost
	return nil
}

// watchOwn watches the shard's own descriptors.
func (s *Shard) watchOwn() error {
	for _, w := range [...]struct {
		fd   int
		kind flow.Kind
	}{{s.port.FD(), flow.KindTap}, {s.wake, flow.KindWake}} {
		if errno := s.env.Epoll.Add(w.fd, sys.EPOLLIN, uint64(flow.NewToken(w.kind, 0, 0))); errno != 0 {
			return fmt.Errorf("watch descriptor %d: %w", w.fd, errno)
		}
	}
	return nil
}

// run is the body of the shard's thread: see the package doc for the order.
func (s *Shard) run() {
	runtime.LockOSThread() // never unlocked: the thread ends with the shard
	sys.BlockThreadSignals()
	if s.cpu >= 0 {
		if err := sys.PinThread(s.cpu); err != nil {
			s.group.fail(err)
		}
	}
	_ = sys.SetSlice(slice) // only faster
	for !s.done {
		n := s.wait()
		now := sys.Now()
		s.shortWaits = n > 0 && s.sparse() && (s.shortWaits || now-s.env.Now < spinTime)
		s.env.Now = now
		s.takeMail()
		s.dispatch(s.events[:n])
		s.takeHanded()
		s.drainTap()
		s.expire()
		s.flush()
	}
	s.close()
}

// slice is the shortest slice that the kernel grants (sched_setattr(2), Linux 6.12).
// A shard that has yielded its CPU is charged a slice: after a long one, each peer
// that it wakes takes the CPU at once, amid its batch.
const slice = 100 * time.Microsecond

const (
	// rawWait is how long a shard waits in a raw system call, keeping its P,
	// before it tells the Go scheduler: waking up from the raw call is
	// cheaper, and the runtime's monitor thread (sysmon) stays awake for a
	// while after each of the other kind. Traffic that pauses for less never
	// pays the difference. GOMAXPROCS is two more than there are shards.
	rawWait = 50 * time.Millisecond
	// keepMemory is how long after the begin of a burst a shard returns memory
	// and pipes, at the earliest, when it next waits: after a pause within the
	// burst it would need the same again.
	keepMemory = 250 * time.Millisecond
)

// wait puts events into s.events and returns how many. It blocks unless there is
// something else to do.
func (s *Shard) wait() int {
	if s.tapReady || s.splice.Pending() || s.mail.flag.Load() {
		return s.env.Epoll.Poll(s.events)
	}
	if n := s.env.Epoll.Poll(s.events); n > 0 {
		return n
	}
	if n := s.spin(); n > 0 {
		return n
	}
	timeout := s.timeout()
	if timeout == 0 {
		return 0
	}
	s.asleep.Store(true)
	defer s.asleep.Store(false)
	if s.group.pendingFor(s) || s.mail.flag.Load() {
		return 0
	}
	s.count.Wakeups++
	return s.block(timeout)
}

// block waits for events or the timeout; negative means for ever. It may return
// early, without any.
func (s *Shard) block(timeout time.Duration) int {
	if !s.trimmed {
		timeout = s.trimOrShorten(timeout)
	}
	if timeout >= 0 && timeout <= rawWait {
		return s.waitRaw(timeout)
	}
	if n := s.waitRaw(rawWait); n > 0 {
		return n
	}
	if timeout > 0 {
		timeout -= rawWait
	}
	return s.env.Epoll.Wait(s.events, timeout)
}

// trimOrShorten returns memory to the kernel if it is time to, else it shortens
// the timeout to when it is.
func (s *Shard) trimOrShorten(timeout time.Duration) time.Duration {
	left := time.Duration(s.trimAt - sys.Now())
	switch {
	case left <= 0:
		s.env.Pool.Trim(keepFrames)
		s.splice.Trim()
		s.trimmed = true
	case timeout < 0 || left < timeout:
		return left
	}
	return timeout
}

// waitRaw waits in a raw system call, which the runtime interrupts every 10 ms
// to see whether the thread is alive.
func (s *Shard) waitRaw(d time.Duration) int {
	for end := sys.Now() + int64(d); ; {
		n := s.env.Epoll.WaitRaw(s.events, d)
		if d = time.Duration(end - sys.Now()); n > 0 || d <= 0 {
			return n
		}
	}
}

// spinTime is how long a shard polls before it blocks, in nanoseconds, as long as
// its waits have been that short.
const spinTime = 100_000

// contended is how long one poll takes at least, in nanoseconds, when others have
// run meanwhile: the CPU would not go idle, and polling would slow them down.
const contended = 5_000

// bulk is what a pass carries at least, in octets, when its flows do not wait for
// replies; their endpoints then need the CPU more.
const bulk = 16 << 10

// sparse tells whether fewer octets than bulk were carried, past the tap included,
// since its last call.
func (s *Shard) sparse() bool {
	octets := s.count.TapRxBytes + s.count.TapTxBytes + s.count.SplicedBytes
	few := octets-s.lastOctets < bulk
	s.lastOctets = octets
	return few
}

// spin polls for a short while, letting others run in between: where the CPU would
// have gone idle, a wake-up costs more. A shard that spun in vain does not spin
// again before a wait was short.
func (s *Shard) spin() int {
	if !s.shortWaits {
		return 0
	}
	last := sys.Now()
	for end := last + spinTime; last < end; {
		sys.Yield()
		if n := s.env.Epoll.Poll(s.events); n > 0 || s.mail.flag.Load() || s.group.pendingFor(s) {
			return n
		}
		now := sys.Now()
		if now-last > contended {
			return 0
		}
		last = now
	}
	s.shortWaits = false
	return 0
}

// timeout is the time until the next timer; negative means none.
func (s *Shard) timeout() time.Duration {
	next, any := int64(0), false
	for _, t := range [...]func() (int64, bool){s.tcp.Next, s.udp.Next, s.ping.Next, s.relay.Next} {
		if at, ok := t(); ok && (!any || at < next) {
			next, any = at, true
		}
	}
	if s.listen.retrying() && (!any || s.listen.retryAt < next) {
		next, any = s.listen.retryAt, true
	}
	if !any {
		return -1
	}
	return time.Duration(max(0, next-sys.Now()))
}

// dispatch gives each event to the owner of its descriptor.
func (s *Shard) dispatch(events []sys.Event) {
	for _, ev := range events {
		tok := flow.Token(ev.Token)
		switch tok.Kind() {
		case flow.KindTap:
			s.tapReady = true
		case flow.KindWake:
			sys.Drain(s.wake)
		case flow.KindTCP:
			s.tcp.Event(tok, ev.Bits)
		case flow.KindUDP, flow.KindListenUDP:
			s.udp.Event(tok, ev.Bits)
		case flow.KindPing:
			s.ping.Event(tok, ev.Bits)
		case flow.KindRelayUDP:
			s.relay.Event(tok, ev.Bits)
		case flow.KindSplice:
			s.splice.Event(tok, ev.Bits)
		case flow.KindListenTCP:
			s.accept(tok.Slot())
		}
	}
}

// expire runs the timers that are due.
func (s *Shard) expire() {
	s.tcp.Expire()
	s.udp.Expire()
	s.ping.Expire()
	s.relay.Expire()
	s.expireListeners()
}

// flush ends a pass: what it made for others goes out.
func (s *Shard) flush() {
	s.tcp.Flush()
	s.splice.Flush()
	s.env.Out.Flush()
	s.noteActivity()
	s.sendHome()
	s.signalPeers()
}

// noteActivity publishes that the pass carried something, and sees to it that the
// memory this took is returned.
func (s *Shard) noteActivity() {
	n := s.count.TapRxFrames + s.count.TapTxFrames + s.count.Spliced + s.count.SplicedBytes
	if n == s.activity {
		return
	}
	s.activity = n
	s.active.Store(s.env.Now)
	if s.trimmed {
		s.trimmed, s.trimAt = false, s.env.Now+int64(keepMemory)
	}
}

// close ends every flow, so that its ends learn of it, and closes what no other
// shard uses; free does the rest.
func (s *Shard) close() {
	s.tcp.Close()
	s.udp.Close()
	s.ping.Close()
	s.splice.Close()
	s.relay.Close()
	if p := s.listen.parked; p.l != nil {
		sys.Reset(p.fd)
	}
	s.env.Out.Flush()
	s.env.Epoll.Close()
	s.port.Close()
}

// free releases what other shards use as long as they run: they may hold frames
// of ours, and wake us. All threads have ended; messages may still be posted.
func (s *Shard) free() {
	s.mail.mu.Lock()
	defer s.mail.mu.Unlock()
	sys.Close(s.wake)
	s.wake = -1
	s.arena.Close()
}

// takeMail runs what was posted.
func (s *Shard) takeMail() {
	if !s.mail.flag.Load() {
		return
	}
	s.mail.mu.Lock()
	queue := s.mail.queue
	s.mail.queue = nil
	s.mail.flag.Store(false)
	s.mail.mu.Unlock()
	for _, fn := range queue {
		fn(s)
	}
}

// post queues fn for the shard's thread and wakes it.
func (s *Shard) post(fn func(*Shard)) {
	s.mail.mu.Lock()
	defer s.mail.mu.Unlock()
	s.mail.queue = append(s.mail.queue, fn)
	s.mail.flag.Store(true)
	sys.Signal(s.wake)
}

// setRules takes over new rules, between two passes.
func (s *Shard) setRules(r *fwd.Rules) {
	s.ndp.Renumber(&s.env.Rules.V6, &r.V6)
	s.env.Rules = r
}
