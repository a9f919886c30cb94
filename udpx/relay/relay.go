package relay

import (
	"fmt"
	"sync/atomic"
	"time"

	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard/env"
	"penne/shard/flow"
	"penne/shard/wheel"
)

// Lifetimes of flows after their last datagram, as on the tap path: the defaults
// of the kernel's connection tracking (net.netfilter.nf_conntrack_udp_timeout and
// nf_conntrack_udp_timeout_stream).
const (
	Idle    = 30 * time.Second
	Assured = 180 * time.Second
)

// rowSize is the most messages of one recvmmsg or sendmmsg, and the most that Local
// takes: one bit each.
const rowSize = 64

// Side is the side that the peers of a listener are relayed to. Its functions are
// called from the shard's thread when a flow is made.
type Side struct {
	// Socket returns a new non-blocking datagram socket there, or -1 if there
	// is none now. The relay closes it.
	Socket func(v4 bool) int
	// Addr is the target's address for this peer, of either family; zero
	// means that there is none. A Listener's ToAddr takes precedence.
	Addr func(peer *wire.Addr) wire.Addr
	// Host is set for the host, where the rules say which source address
	// sockets have, and on which interface link-local addresses are. On
	// another side that is the interface Scope.
	Host  bool
	Scope uint32
	// Held, if set, notes the ports that flows' sockets hold there.
	Held *Held
}

// Held counts, by port, the flows' sockets that are bound to their peer's own
// port. A listener may be bound to that port together with them, by
// SO_REUSEADDR. Shared by all shards, and safe for concurrent use.
type Held [1 << 16]atomic.Int32

// Has tells whether a flow's socket is bound to port.
func (h *Held) Has(port uint16) bool { return h[port].Load() > 0 }

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

// listener is the state of a Listener; its index in Relay.listeners is its id.
type listener struct {
	Listener
	used     bool
	watched  bool
	recvNext uint8 // messages to ask for at the next receive
	gen      uint32
	flows    int32 // head of the list of its flows; -1 ends it
}

// record is one flow's state. Its key holds the peer (Remote, RemotePort), the
// address it wrote to (Guest), and the listener's id (GuestPort, and the upper
// bits in Proto).
type record struct {
	back         sys.Dest  // the peer, and the address it sent to
	last         int64     // when the last datagram passed, either way
	to           wire.Addr // the target
	toPort       uint16
	heldPort     uint16    // counted in Held; 0: none
	segMax       [2]uint16 // longest segment the kernel has not refused, by direction
	recvNext     uint8     // messages to ask for at the next receive
	fromPeer     uint8     // receives that brought something: 0, 1, or 2 for more
	fromTarget   uint8
	bufferRaised bool // the receive buffer was raised to raisedBuffer
	fd           int
	listener     int32
	next, prev   int32 // among the flows of the listener
}

// Relay is one shard's. Owned by the shard; no method may be called from
// another thread.
type Relay struct {
	env       *env.Env
	table     *flow.Table
	wheel     *wheel.Wheel
	rec       []record
	listeners []listener
	freeIDs   []int32 // unused indices of listeners

	// segment and gro tell whether the kernel has UDP_SEGMENT and UDP_GRO;
	// segment is cleared for good when a device refuses it.
	segment, gro bool

	// The flow of the last datagram from a peer: they come in runs.
	lastKey  flow.Key
	lastSlot int32

	recv  *sys.RecvRow
	out   burst
	slots [rowSize]int32 // flows of a row's messages
	due   [64]int32
}

// New makes a relay for up to limit flows, at least 1.
func New(e *env.Env, limit int) *Relay {
	r := &Relay{
		env: e, table: flow.NewTable(limit, e.Seed), wheel: wheel.New(limit, e.Now),
		rec: make([]record, limit), lastSlot: -1,
		recv: sys.NewRecvRow(rowSize), out: burst{row: sys.NewSendRow(rowSize, rowSize)},
	}
	if fd := hostSocket(true); fd >= 0 {
		r.segment, r.gro = sys.HasUDPSegment(fd), sys.EnableUDPGRO(fd) == 0
		sys.Close(fd)
	}
	return r
}

// Len is the number of flows.
func (r *Relay) Len() int { return r.table.Len() }

// Serve watches the listener and relays all datagrams that come to it. The id is
// for Remove.
func (r *Relay) Serve(l Listener) (id int32, err error) {
	domain, errno := sys.SocketFamily(l.FD)
	if errno == 0 {
		errno = sys.EnablePacketInfo(l.FD, domain == sys.AF_INET6)
	}
	if errno != 0 {
		return 0, fmt.Errorf("prepare listening socket: %w", errno)
	}
	sys.SetReceiveBuffer(l.FD, raisedBuffer)
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

// Share relays those of the listener's datagrams that Local is given: the caller
// watches the socket, receives from it on this thread, and has called
// sys.EnablePacketInfo. The id is for Local and Remove.
func (r *Relay) Share(l Listener) (id int32) {
	id = r.newListenerID()
	r.listeners[id] = listener{Listener: l, used: true, recvNext: firstRecv, gen: r.listeners[id].gen, flows: -1}
	return id
}

// newListenerID is an unused id.
func (r *Relay) newListenerID() int32 {
	if n := len(r.freeIDs); n > 0 {
		id := r.freeIDs[n-1]
		r.freeIDs = r.freeIDs[:n-1]
		return id
	}
	r.listeners = append(r.listeners, listener{})
	return int32(len(r.listeners) - 1)
}

// Remove ends serving the listener, and its flows, whose replies leave by its
// socket. It does not close the descriptor.
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
	r.freeIDs = append(r.freeIDs, id)
}

// Next is when Expire should be called; ok is false when there is no flow.
func (r *Relay) Next() (at int64, ok bool) { return r.wheel.Next() }

// Expire ends the flows whose lifetime is over. Datagrams do not move timers: one
// that fires early is set again, from the last datagram on.
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

// end is when the flow expires if no datagram passes. It is assured once both
// sides have sent more than once: a query and its reply are not worth a socket for
// three minutes.
func (f *record) end() int64 {
	if f.fromPeer > 1 && f.fromTarget > 1 {
		return f.last + int64(Assured)
	}
	return f.last + int64(Idle)
}

// touch notes that datagrams passed, in the direction that bursts is of.
func (r *Relay) touch(f *record, bursts *uint8) {
	f.last = r.env.Now
	if *bursts < 2 {
		*bursts++
	}
}

// drop ends the flow at slot.
func (r *Relay) drop(slot int32) {
	f := &r.rec[slot]
	r.closeSocket(f)
	r.wheel.Cancel(slot)
	r.unlink(f)
	r.table.Remove(slot)
	*f = record{}
	r.lastSlot = -1
}

// closeSocket closes f's socket, which no longer holds its port.
func (r *Relay) closeSocket(f *record) {
	sys.Close(f.fd)
	if f.heldPort != 0 {
		r.listeners[f.listener].To.Held[f.heldPort].Add(-1)
	}
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

// reasonOf is the reason that a datagram refused with errno is counted under.
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
