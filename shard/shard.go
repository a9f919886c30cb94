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

// Shard is one worker. All fields but wake, active, asleep and mail, which others
// use as well, belong to its thread once run has started.
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
	// relay joins connections that bypass the tap.
	relay *splice.Relay
	// datagramRelay does the same for datagrams, namespace is where it leads
	// those of the host.
	datagramRelay *relay.Relay
	namespace     relay.Side
	listen        listening

	rx, tcpIn, udpIn, pingIn ring.Batch
	guestMAC                 [6]byte // last source address seen, to notice a change
	events                   []sys.Event
	due                      bool // the tap may hold frames
	pushed                   []bool
	idle                     bool  // memory was given back since the last traffic
	restAt                   int64 // else when it will be
	done                     bool
	moved                    uint64 // octets counted at the last call of sparse
	brisk                    bool   // what was waited for last came within spinTime
	seen                     uint64 // what had been counted at the last noteActivity

	cpu    int          // the only one to run on; -1 for any
	wake   int          // eventfd
	active atomic.Int64 // when frames last came or went: for the control thread
	asleep atomic.Bool  // about to block, or blocked: peers must signal wake
	mail   mailbox
}

// mailbox carries the control thread's messages to a shard.
type mailbox struct {
	mu    sync.Mutex // guards queue, and wake at the end; held for a moment only
	queue []func(*Shard)
	flag  atomic.Bool // queue may be non-empty
}

func newShard(id int, cfg *Config, g *Group) (*Shard, error) {
	s := &Shard{group: g, port: cfg.Ports[id], cpu: -1, idle: true, events: make([]sys.Event, eventBatch), pushed: make([]bool, len(cfg.Ports))}
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
	return s, s.translators(cfg, g)
}

func (s *Shard) translators(cfg *Config, g *Group) (err error) {
	flows := max(cfg.Flows/len(cfg.Ports), 1)
	if s.tcp, err = tcpx.New(tcpx.Config{Env: &s.env, Flows: flows}); err != nil {
		return err
	}
	if s.udp, err = udpx.New(udpx.Config{Env: &s.env, Flows: flows, Ports: g.ports}); err != nil {
		return err
	}
	s.ping, err = ping.New(ping.Config{Env: &s.env, Flows: min(flows, maxPings), Warn: cfg.Warn})
	if err != nil {
		return err
	}
	if cfg.Services == nil {
		cfg.Services = &Services{}
	}
	s.services, s.ndp = cfg.Services, ndp.New(cfg.Services.NDP)
	s.relay = splice.New(&s.env, maxSpliced/len(cfg.Ports))
	s.datagramRelay, s.namespace = relay.New(&s.env, maxSpliced/len(cfg.Ports)), s.side()
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

// run is the shard's thread.
func (s *Shard) run() {
	runtime.LockOSThread() // never unlocked: the thread ends with the shard
	sys.BlockThreadSignals()
	if s.cpu >= 0 {
		if err := sys.PinThread(s.cpu); err != nil {
			s.group.fail(err)
		}
	}
	for !s.done {
		n := s.wait()
		now := sys.Now()
		s.brisk = n > 0 && s.sparse() && (s.brisk || now-s.env.Now < spinTime)
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

const (
	// rawWait is how long a shard waits inside a raw system call, holding its
	// scheduler slot, before it waits the Go way: a wake-up from the raw call
	// is cheaper, and the runtime's own watcher thread stays awake for a
	// while after each of the other kind. Traffic that pauses for less than
	// this never pays the difference. The runtime has two slots more than
	// shards.
	rawWait = 50 * time.Millisecond
	// keepMemory is how long a shard keeps what a burst took, from its first
	// frame on, if it comes to wait at all. In the pauses of one it would take
	// the same again.
	keepMemory = 250 * time.Millisecond
)

// wait returns how many events it put into s.events. It blocks unless frames
// may be left in the tap or messages have arrived.
func (s *Shard) wait() int {
	if s.due || s.relay.Pending() || s.mail.flag.Load() {
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

// block waits for events or the timeout; negative means for ever. It may come
// back early, with none.
func (s *Shard) block(timeout time.Duration) int {
	if !s.idle {
		timeout = s.untilRest(timeout)
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

// untilRest gives memory back if it is time, else it shortens a timeout to that
// time.
func (s *Shard) untilRest(timeout time.Duration) time.Duration {
	left := time.Duration(s.restAt - sys.Now())
	switch {
	case left <= 0:
		s.env.Pool.Trim(keepFrames)
		s.idle = true
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

// spinTime is how long a shard polls before it sleeps, once what it waits for
// has lately come that soon, in nanoseconds.
const spinTime = 100_000

// othersRan is what a turn of polling takes, in nanoseconds, when others have
// run in it: the CPU does not go idle, and polling would only take from them.
const othersRan = 5_000

// bulk is what a pass moves, in octets, when its flows do not wait for answers;
// their ends need the CPU that polling would take.
const bulk = 16 << 10

// sparse tells whether fewer octets than bulk, past the tap included, have moved
// since its last call.
func (s *Shard) sparse() bool {
	moved := s.count.TapRxBytes + s.count.TapTxBytes + s.count.SplicedBytes
	few := moved-s.moved < bulk
	s.moved = moved
	return few
}

// spin polls for a short while, letting others run in between. It saves the
// wake-up, which costs more than the wait where the CPU would have gone idle. A
// shard that spun in vain does so again only after a wait that was short.
func (s *Shard) spin() int {
	if !s.brisk {
		return 0
	}
	last := sys.Now()
	for end := last + spinTime; last < end; {
		sys.Yield()
		if n := s.env.Epoll.Poll(s.events); n > 0 || s.mail.flag.Load() || s.group.pendingFor(s) {
			return n
		}
		now := sys.Now()
		if now-last > othersRan {
			return 0
		}
		last = now
	}
	s.brisk = false
	return 0
}

// timeout is the time to the next timer; negative means none.
func (s *Shard) timeout() time.Duration {
	next, any := int64(0), false
	for _, t := range [...]func() (int64, bool){s.tcp.Next, s.udp.Next, s.ping.Next, s.datagramRelay.Next} {
		if at, ok := t(); ok && (!any || at < next) {
			next, any = at, true
		}
	}
	if s.listen.waits() && (!any || s.listen.retryAt < next) {
		next, any = s.listen.retryAt, true
	}
	if !any {
		return -1
	}
	return time.Duration(max(0, next-sys.Now()))
}

func (s *Shard) dispatch(events []sys.Event) {
	for _, ev := range events {
		tok := flow.Token(ev.Token)
		switch tok.Kind() {
		case flow.KindTap:
			s.due = true
		case flow.KindWake:
			sys.Drain(s.wake)
		case flow.KindTCP:
			s.tcp.Event(tok, ev.Bits)
		case flow.KindUDP, flow.KindListenUDP:
			s.udp.Event(tok, ev.Bits)
		case flow.KindPing:
			s.ping.Event(tok, ev.Bits)
		case flow.KindRelayUDP:
			s.datagramRelay.Event(tok, ev.Bits)
		case flow.KindSplice:
			s.relay.Event(tok, ev.Bits)
		case flow.KindListenTCP:
			s.accept(tok.Slot())
		}
	}
}

func (s *Shard) expire() {
	s.tcp.Expire()
	s.udp.Expire()
	s.ping.Expire()
	s.datagramRelay.Expire()
	s.wakeListeners()
}

func (s *Shard) flush() {
	s.tcp.Flush()
	s.relay.Flush()
	s.env.Out.Flush()
	s.noteActivity()
	s.sendHome()
	s.signalPeers()
}

// noteActivity publishes that the pass moved something.
func (s *Shard) noteActivity() {
	if n := s.count.TapRxFrames + s.count.TapTxFrames + s.count.Spliced + s.count.SplicedBytes; n != s.seen {
		s.seen = n
		s.active.Store(s.env.Now)
	}
}

// close ends every flow, so that peers learn of it, and closes what no peer
// uses; free does the rest.
func (s *Shard) close() {
	s.tcp.Close()
	s.udp.Close()
	s.ping.Close()
	s.relay.Close()
	s.datagramRelay.Close()
	if p := s.listen.parked; p.l != nil {
		sys.Reset(p.fd)
	}
	s.env.Out.Flush()
	s.env.Epoll.Close()
	s.port.Close()
}

// free gives back what peers use as long as they run: they may still hold
// frames of ours, and wake us. All threads have ended; messages may still come.
func (s *Shard) free() {
	s.mail.mu.Lock()
	defer s.mail.mu.Unlock()
	sys.Close(s.wake)
	s.wake = -1
	s.arena.Close()
}

// takeMail runs the control thread's messages.
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
