// Package ping translates between the guest's ICMP and ICMPv6 echo messages and ping
// sockets of the host. A flow is an identifier and a destination. Its socket is bound
// to the guest's identifier where that is free; else the kernel chooses one, and
// replies get the guest's again. No two flows share an identifier on the host, since
// the kernel gives a reply to any socket with that, whatever its peer.
//
// A Ping is owned by one shard.
package ping

import (
	"errors"
	"time"

	"penne/internal/icmp"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/env"
	"penne/shard/flow"
	"penne/shard/wheel"
)

// Lifetime is how long a flow lives after its last request or reply.
const Lifetime = 60 * time.Second

// ICMP types of echo messages (RFC 792, RFC 4443 section 4).
const (
	echoReply4, echoRequest4 = 0, 8
	echoRequest6, echoReply6 = 128, 129
)

const (
	recvRow   = 8  // the most replies of one recvmmsg
	maxRounds = 4  // the most recvmmsg calls of one Event
	maxFaults = 32 // the most errors of one Event
)

// Config is what New needs. Env must outlive the Ping.
type Config struct {
	Env *env.Env
	// Flows is the most flows at once, at least 1.
	Flows int
	// Warn, if set, is called on the shard's thread when the kernel refuses a
	// ping socket for the first time.
	Warn func(err error)
}

// Ping is the echo translator of one shard. Owned by the shard; no method may
// be called from another thread.
type Ping struct {
	env   *env.Env
	warn  func(error)
	table *flow.Table
	wheel *wheel.Wheel
	rec   []record

	recv   *sys.RecvRow
	send   *sys.SendRow
	faults *sys.ErrorQueue
	fault  sys.SocketFault
	due    [64]int32
	notice icmp.Error
	quote  [icmp.QuoteMax]byte
}

// record is one flow's state; its key is in the table.
type record struct {
	fd   int
	last int64     // when the last message passed, either way
	peer wire.Addr // the destination on the host
	ttl  uint8     // as set on the socket; 0: the kernel's default
}

// New makes the translator.
func New(cfg Config) (*Ping, error) {
	if cfg.Flows < 1 {
		return nil, errors.New("make echo translator: no room for any flow")
	}
	return &Ping{
		env: cfg.Env, warn: cfg.Warn,
		table: flow.NewTable(cfg.Flows, cfg.Env.Seed),
		wheel: wheel.New(cfg.Flows, cfg.Env.Now),
		rec:   make([]record, cfg.Flows),
		recv:  sys.NewRecvRow(recvRow), send: sys.NewSendRow(1, 1),
		faults: sys.NewErrorQueue(),
	}, nil
}

// Len is the number of flows.
func (p *Ping) Len() int { return p.table.Len() }

// Next is when Expire should be called; ok is false when there is no flow.
func (p *Ping) Next() (at int64, ok bool) { return p.wheel.Next() }

// Close ends all flows.
func (p *Ping) Close() { p.table.All(p.drop) }

// Expire ends the flows whose lifetime is over. Timers are not moved when messages
// pass: one that fires early is set again, by the time of the last message.
func (p *Ping) Expire() {
	for {
		n := p.wheel.Expire(p.env.Now, p.due[:])
		for _, slot := range p.due[:n] {
			if end := p.rec[slot].last + int64(Lifetime); end > p.env.Now {
				p.wheel.Set(slot, end)
				continue
			}
			p.drop(slot)
		}
		if n < len(p.due) {
			return
		}
	}
}

// drop ends the flow at slot.
func (p *Ping) drop(slot int32) {
	p.forget(slot)
	p.env.Count.PingClosed++
	p.env.Count.PingFlows = uint64(p.table.Len())
}

// forget closes the socket of the flow at slot and frees its timer, claim and slot.
func (p *Ping) forget(slot int32) {
	if fd := p.rec[slot].fd; fd >= 0 {
		sys.Close(fd)
	}
	p.wheel.Cancel(slot)
	p.env.Release(p.table.HashAt(slot))
	p.table.Remove(slot)
}

// Input takes ICMP and ICMPv6 frames of the guest that wire.Parse found whole,
// and sends the echo requests among them; others are counted as Unanswered. The
// frames become the Ping's: when it returns, all are back in the pool or with
// another shard.
func (p *Ping) Input(frames []*ring.Frame) {
	for _, f := range frames {
		if !isRequest(&f.H) {
			p.refuse(f, stats.Unanswered)
			continue
		}
		if slot := p.find(f); slot >= 0 {
			p.request(&p.rec[slot], f)
			p.env.Pool.Put(f)
		}
	}
}

func isRequest(h *wire.Headers) bool {
	if h.V6 {
		return h.DstPort == echoRequest6<<8
	}
	return h.DstPort == echoRequest4<<8
}

// refuse drops the guest's frame f.
func (p *Ping) refuse(f *ring.Frame, why stats.Reason) {
	p.env.Count.Drop(why)
	p.env.Pool.Put(f)
}

// find returns the slot of f's flow, which it makes if need be; -1 means that f is
// no longer the caller's.
func (p *Ping) find(f *ring.Frame) int32 {
	key := flow.Key{Guest: f.H.Src, Remote: f.H.Dst, GuestPort: f.H.SrcPort, Proto: f.H.Proto}
	hash := p.table.Hash(&key)
	if slot := p.table.Find(&key, hash); slot >= 0 {
		return slot
	}
	if p.env.HandToOwner(f, hash) {
		return -1
	}
	return p.open(f, &key, hash)
}

// request sends f's echo request. It retries once, since a pending ICMP error makes
// the next send fail.
func (p *Ping) request(r *record, f *ring.Frame) {
	r.last = p.env.Now
	p.setTTL(r, f.H.TTL)
	p.send.Reset()
	p.send.Add(f.Bytes()[f.H.L4 : uint32(f.H.Payload)+f.H.PayloadLen])
	_, errno := p.send.Send(r.fd, 0)
	if errno != 0 && errno != sys.EAGAIN && errno != sys.EMSGSIZE {
		_, errno = p.send.Send(r.fd, 0)
	}
	switch errno {
	case 0:
	case sys.EAGAIN, sys.ENOBUFS:
		p.env.Count.Drop(stats.SocketFull)
	case sys.EMSGSIZE:
		p.env.Count.Drop(stats.TooLong)
	default:
		p.env.Count.Drop(stats.BadDest)
		p.notice.Reject(p.env, f, errno)
	}
}

// setTTL sets the socket's TTL to the guest's, so that traceroute works. The kernel's
// default is taken to be the usual one.
func (p *Ping) setTTL(r *record, ttl uint8) {
	const usual = 64
	ttl = max(ttl, 1)
	if ttl == r.ttl || r.ttl == 0 && ttl == usual {
		return
	}
	if sys.SetTTL(r.fd, !r.peer.Is4(), ttl) == 0 {
		r.ttl = ttl
	}
}
