package relay

import (
	"fmt"
	"time"

	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard/env"
	"penne/shard/flow"
	"penne/shard/wheel"
)

// Lifetimes of flows since their last datagram, as on the tap path: the
// defaults of the kernel's connection tracking
// (net.netfilter.nf_conntrack_udp_timeout and _udp_timeout_stream).
const (
	Idle    = 30 * time.Second
	Assured = 180 * time.Second
)

// row is the most messages of one recvmmsg or sendmmsg, and the most that Local
// takes: one bit each.
const row = 64

// Side is where the peers of a listener are led. Its functions are called from
// the shard's thread when a flow is made.
type Side struct {
	// Socket returns a fresh non-blocking datagram socket over there, or -1
	// when there is none now. It is the relay's from then on.
	Socket func(v4 bool) int
	// Addr is the address over there for this peer, of any family; zero
	// means that there is none. A Listener's ToAddr goes before it.
	Addr func(peer *wire.Addr) wire.Addr
	// Host tells that it is the host: the rules say which source sockets
	// have, and which interface link-local addresses mean. Of another side
	// that is Scope.
	Host  bool
	Scope uint32
}

// Host is the side of the host: its loopback.
var Host = Side{Socket: hostSocket, Addr: fwd.Loopback, Host: true}

func hostSocket(v4 bool) int {
	fd, errno := sys.Socket(sys.Family(v4), sys.SOCK_DGRAM, 0)
	if errno != 0 {
		return -1
	}
	return fd
}

// Listener is a bound datagram socket whose peers are relayed.
type Listener struct {
	// FD stays the caller's, who closes it after Remove. Only one shard may
	// receive from it: see the package's words on order.
	FD int
	// Target is the port on the other side, ToAddr the address there; zero
	// means the one that To.Addr says.
	Target uint16
	ToAddr wire.Addr
	// To is the other side.
	To *Side
}

// Owner is the shard, of so many, that receives from the listeners on a port.
// Neighbouring ports have different ones.
func Owner(port uint16, shards int) int { return int(port) % shards }

// listener is one that is served. Its place in Relay.listeners is its id.
type listener struct {
	Listener
	used    bool
	watched bool
	want    uint8 // messages to ask for at the next receive
	gen     uint32
	flows   int32 // the list of its flows; -1 ends it
}

// record is one flow's state. Its key holds the peer (Remote, RemotePort), the
// address it wrote to (Guest), and the listener's id (GuestPort, and the upper
// bits in Proto).
type record struct {
	back       sys.Dest  // the way back to the peer
	last       int64     // when the last datagram passed, either way
	to         wire.Addr // the target
	toPort     uint16
	segMax     [2]uint16 // longest segment not refused yet, by direction
	want       uint8     // messages to ask for at the next receive
	fromPeer   uint8     // bursts, saturating
	fromTarget uint8
	wide       bool // the receive buffer has been raised
	fd         int
	listener   int32
	next, prev int32 // among the flows of the listener
}

// Relay is one shard's. Owned by the shard; no method may be called from
// another thread.
type Relay struct {
	env       *env.Env
	table     *flow.Table
	wheel     *wheel.Wheel
	rec       []record
	listeners []listener
	vacant    []int32 // free places in listeners

	// segment and gro tell what the kernel offers; segment is cleared for
	// good when a device turns out to refuse it.
	segment, gro bool

	// The flow of the last datagram from a peer: they come in runs.
	lastKey  flow.Key
	lastSlot int32

	recv  *sys.RecvRow
	out   burst
	slots [row]int32 // flows of a row's messages
	due   [64]int32
}

// New makes a relay for up to limit flows, at least 1.
func New(e *env.Env, limit int) *Relay {
	r := &Relay{
		env: e, table: flow.NewTable(limit, e.Seed), wheel: wheel.New(limit, e.Now),
		rec: make([]record, limit), lastSlot: -1,
		recv: sys.NewRecvRow(row), out: burst{row: sys.NewSendRow(row, row)},
	}
	if fd := hostSocket(true); fd >= 0 {
		r.segment, r.gro = sys.HasUDPSegment(fd), sys.EnableUDPGRO(fd) == 0
		sys.Close(fd)
	}
	return r
}

// Len is the number of flows.
func (r *Relay) Len() int { return r.table.Len() }

// Serve relays all datagrams that come to the listener, which it watches. The
// id is for Remove.
func (r *Relay) Serve(l Listener) (id int32, err error) {
	domain, errno := sys.SocketFamily(l.FD)
	if errno == 0 {
		errno = sys.PacketInfo(l.FD, domain == sys.AF_INET6)
	}
	if errno != 0 {
		return 0, fmt.Errorf("prepare listening socket: %w", errno)
	}
	sys.SetReceiveBuffer(l.FD, wideBuffer)
	if r.gro {
		sys.EnableUDPGRO(l.FD)
	}
	id = r.Share(l)
	n := &r.listeners[id]
	// Flows' tokens have slots from 0 on, listeners' have negative ones.
	tok := flow.NewToken(flow.KindRelayUDP, n.gen, ^id)
	if errno := r.env.Epoll.Add(l.FD, sys.EPOLLIN, uint64(tok)); errno != 0 {
		r.Remove(id)
		return 0, fmt.Errorf("watch listening socket: %w", errno)
	}
	n.watched = true
	return id, nil
}

// Share relays what Local is given of the listener's datagrams: somebody else,
// on the same thread, watches the socket and receives them, and has asked for
// sys.PacketInfo on it. The id is for Local and Remove.
func (r *Relay) Share(l Listener) (id int32) {
	id = r.place()
	r.listeners[id] = listener{Listener: l, used: true, want: firstWant, gen: r.listeners[id].gen, flows: -1}
	return id
}

// place is a free place for a listener.
func (r *Relay) place() int32 {
	if n := len(r.vacant); n > 0 {
		id := r.vacant[n-1]
		r.vacant = r.vacant[:n-1]
		return id
	}
	r.listeners = append(r.listeners, listener{})
	return int32(len(r.listeners) - 1)
}

// Remove ends serving the listener, and its flows: their answers could not
// leave from its address and port any more. It does not close the descriptor.
func (r *Relay) Remove(id int32) {
	l := &r.listeners[id]
	if !l.used {
		return
	}
	for l.flows >= 0 {
		r.drop(l.flows)
	}
	if l.watched {
		r.env.Epoll.Del(l.FD)
	}
	*l = listener{gen: l.gen + 1}
	r.vacant = append(r.vacant, id)
}

// Next is when Expire should be called; ok is false when there is no flow.
func (r *Relay) Next() (at int64, ok bool) { return r.wheel.Next() }

// Expire ends the flows whose lifetime is over. Timers are not moved when
// datagrams pass: one that fires early is armed again from the last datagram.
func (r *Relay) Expire() {
	for {
		n := r.wheel.Expire(r.env.Now, r.due[:])
		for _, slot := range r.due[:n] {
			if end := r.rec[slot].end(); end > r.env.Now {
				r.wheel.Set(slot, end)
				continue
			}
			r.drop(slot)
		}
		if n < len(r.due) {
			return
		}
	}
}

// end is when the flow's life is over if nothing more passes. It is assured
// once both sides have spoken more than once: a query and its answer are not
// worth three minutes of a socket.
func (f *record) end() int64 {
	if f.fromPeer > 1 && f.fromTarget > 1 {
		return f.last + int64(Assured)
	}
	return f.last + int64(Idle)
}

// touch notes that datagrams passed, in the direction that bursts counts.
func (r *Relay) touch(f *record, bursts *uint8) {
	f.last = r.env.Now
	if *bursts < 2 {
		*bursts++
	}
}

// drop ends the flow at slot.
func (r *Relay) drop(slot int32) {
	f := &r.rec[slot]
	sys.Close(f.fd)
	r.wheel.Cancel(slot)
	r.unlink(f)
	r.table.Remove(slot)
	*f = record{}
	r.lastSlot = -1
}

// link puts the flow at slot into its listener's list.
func (r *Relay) link(slot int32) {
	f := &r.rec[slot]
	head := &r.listeners[f.listener].flows
	f.next, f.prev = *head, -1
	if *head >= 0 {
		r.rec[*head].prev = slot
	}
	*head = slot
}

func (r *Relay) unlink(f *record) {
	if f.prev >= 0 {
		r.rec[f.prev].next = f.next
	} else {
		r.listeners[f.listener].flows = f.next
	}
	if f.next >= 0 {
		r.rec[f.next].prev = f.prev
	}
}

// Close ends all flows and forgets the listeners.
func (r *Relay) Close() {
	for id := range r.listeners {
		r.Remove(int32(id))
	}
}

// reasonOf says as what a socket's refusal is counted.
func reasonOf(errno sys.Errno) stats.Reason {
	switch errno {
	case sys.EMFILE, sys.ENFILE, sys.ENOMEM, sys.EADDRINUSE:
		return stats.NoSocket
	case sys.EAGAIN, sys.ENOBUFS:
		return stats.SocketFull
	case sys.EMSGSIZE:
		return stats.TooLong
	}
	return stats.BadDest
}
