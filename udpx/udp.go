package udpx

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

// Lifetimes of flows since their last datagram, the defaults of the kernel's
// connection tracking (net.netfilter.nf_conntrack_udp_timeout and
// _udp_timeout_stream).
const (
	DefaultIdle    = 30 * time.Second
	DefaultAssured = 180 * time.Second
)

// The most messages of one recvmmsg and of one sendmmsg.
const (
	recvRow = ring.BatchSize
	sendRow = ring.BatchSize
)

// Config is what New needs. Env must outlive the UDP.
type Config struct {
	Env *env.Env
	// Flows is the most flows at once, at least 1.
	Flows int
	// Idle is the lifetime of a flow until both sides have spoken more than
	// once, Assured from then on; zero means the default.
	Idle, Assured time.Duration
	// Ports maps guest ports to host ports. All shards share one; nil makes
	// one of the UDP's own.
	Ports *Ports
}

// UDP is the UDP translator of one shard. Owned by the shard; no method may be
// called from another thread.
type UDP struct {
	env           *env.Env
	idle, assured int64 // nanoseconds
	ports         *Ports
	table         *flow.Table
	anyAddr       anyAddrIndex
	wheel         *wheel.Wheel
	rec           []record
	listeners     []listener
	freeIDs       []int32 // unused ids

	// segment and gro: UDP_SEGMENT and UDP_GRO work. segment is cleared for
	// good when a device refuses it.
	segment, gro bool
	probed       int // the socket that probe keeps; -1: none

	// The flows of the last frame from the guest and of the last datagram to a
	// listener: both come in runs.
	lastKey     flow.Key
	lastSlot    int32
	lastInbound inboundCache

	// Flows with frames queued by the running Input.
	active  [ring.BatchSize]int32
	nactive int

	recv   *sys.RecvRow
	shift  int // see prepareRow
	run    run
	send   *sys.SendRow
	replay *sys.SendRow
	msgs   [sendRow]message
	dest   sys.Dest // of what is being sent through a listener's socket
	faults *sys.ErrorQueue
	fault  sys.SocketFault
	due    [64]int32

	guest   wire.MAC // refreshed once a burst
	scratch header   // of datagrams whose flow another shard owns
	notice  icmp.Error
	quote   [icmp.QuoteMax]byte
	ipID    uint32 // identification of the next fragmented datagram
}

// record is one flow's state; its key is in the table.
type record struct {
	fd         int
	last       int64 // when the last datagram passed, either way
	head, tail *ring.Frame
	peer       wire.Addr
	peerPort   uint16
	hostPort   uint16 // 0: the kernel's choice, of no concern to others
	claimed    bool   // hostPort is claimed in Ports
	anyAddr    int32  // 1 + its slot in UDP.anyAddr; 0: none
	// via is 1 + the id of the listener whose socket fd is; 0: fd is the
	// flow's own. Flows of the former kind need from, the source address of
	// what they send, and scope, the peer's.
	via           int32
	scope         uint32
	from          wire.Addr
	segMax        uint16 // longest UDP_SEGMENT size not refused yet
	want          uint8  // messages to ask for at the next receive
	ttl           uint8  // as set on the socket; 0: the kernel's default
	fromGuest     uint8  // bursts, saturating
	fromHost      uint8
	sendBufRaised bool // the send buffer has been raised
	hdr           header
}

// New makes the translator and probes the kernel's features.
func New(cfg Config) (*UDP, error) {
	if cfg.Flows < 1 {
		return nil, errors.New("make UDP translator: no room for any flow")
	}
	u := &UDP{
		env: cfg.Env, idle: int64(cfg.Idle), assured: int64(cfg.Assured), ports: cfg.Ports,
		table: flow.NewTable(cfg.Flows, cfg.Env.Seed), anyAddr: newAnyAddrIndex(cfg.Flows, cfg.Env.Seed),
		wheel: wheel.New(cfg.Flows, cfg.Env.Now),
		rec:   make([]record, cfg.Flows), lastSlot: -1, lastInbound: inboundCache{slot: -1}, probed: -1,
		recv:   sys.NewRecvRow(recvRow),
		send:   sys.NewSendRow(sendRow, 2*sendRow),
		replay: sys.NewSendRow(sendRow, sendRow),
		faults: sys.NewErrorQueue(),
	}
	if u.idle == 0 {
		u.idle = int64(DefaultIdle)
	}
	if u.assured == 0 {
		u.assured = int64(DefaultAssured)
	}
	if u.ports == nil {
		u.ports = NewPorts()
	}
	u.ipID = uint32(u.table.Hash(&flow.Key{Proto: wire.ProtoUDP}))
	u.probe()
	return u, nil
}

// probe tries UDP_SEGMENT and UDP_GRO on a socket of its own.
//
// The socket stays open: with the first UDP_GRO socket, and after the last, the
// kernel patches its code on all CPUs (udp_encap_needed_key), which would make a
// single flow cost 140 µs instead of 9 (kernel 6.18).
func (u *UDP) probe() {
	fd, errno := sys.Socket(sys.AF_INET, sys.SOCK_DGRAM, 0)
	if errno != 0 {
		return
	}
	u.probed = fd
	u.segment = sys.HasUDPSegment(fd)
	u.gro = sys.EnableUDPGRO(fd) == 0
}

// Len is the number of flows.
func (u *UDP) Len() int { return u.table.Len() }

// Next is when Expire should be called; ok is false when there is no flow.
func (u *UDP) Next() (at int64, ok bool) { return u.wheel.Next() }

// Expire ends the flows whose lifetime is over. Timers are not moved when datagrams
// pass: one that fires early is set again, by the time of the last datagram.
func (u *UDP) Expire() {
	for {
		n := u.wheel.Expire(u.env.Now, u.due[:])
		for _, slot := range u.due[:n] {
			r := &u.rec[slot]
			if end := r.last + u.lifetime(r); end > u.env.Now {
				u.wheel.Set(slot, end)
				continue
			}
			u.drop(slot)
		}
		if n < len(u.due) {
			return
		}
	}
}

// lifetime is how long r lives after its last datagram. A flow is assured once
// both sides have spoken more than once: a query and its answer are not worth
// three minutes of a socket.
func (u *UDP) lifetime(r *record) int64 {
	if r.fromGuest > 1 && r.fromHost > 1 {
		return u.assured
	}
	return u.idle
}

// Close ends all flows and stops listening.
func (u *UDP) Close() {
	for i := range u.listeners {
		u.Unlisten(int32(i))
	}
	u.table.All(u.drop)
	if u.probed >= 0 {
		sys.Close(u.probed)
		u.probed = -1
	}
}

// drop ends the flow at slot.
func (u *UDP) drop(slot int32) {
	r := &u.rec[slot]
	v6 := !r.peer.Is4()
	u.releaseSocket(r)
	u.unindexAnyAddr(r)
	if r.claimed {
		u.ports.release(v6, r.hostPort, u.table.Key(slot).GuestPort)
	}
	u.env.Pool.PutAll(r.head)
	u.wheel.Cancel(slot)
	u.env.Release(u.table.HashAt(slot))
	u.table.Remove(slot)
	*r = record{}
	u.lastSlot, u.lastInbound.slot = -1, -1
	u.env.Count.UDPClosed++
	u.env.Count.UDPFlows = uint64(u.table.Len())
}
