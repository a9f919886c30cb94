package engine

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"

	"penne/internal/log"
	"penne/internal/pcap"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/tap"
)

// tapPorts returns the tap's queues for the shards, wrapped if packets are captured
// or traced.
func (e *engine) tapPorts() ([]tap.Port, error) {
	queues, err := e.openQueues()
	if err != nil {
		return nil, err
	}
	if path := e.conf.Logging.Pcap; path != "" {
		failed := func(err error) { e.log.Warn(err.Error()) }
		if e.handles.Capture != nil { // opened by the launcher, since we may not
			e.capture, err = pcap.New(e.handles.Capture, failed)
		} else {
			e.capture, err = pcap.Create(path, failed)
		}
		if err != nil {
			return nil, err
		}
	}
	for i := range queues {
		if e.log.Enabled(context.Background(), log.LevelTrace) {
			queues[i] = &tracedPort{Port: queues[i], log: e.log, shard: i}
		}
		if e.capture == nil {
			continue
		}
		if queues[i], err = pcap.Tee(queues[i], e.capture); err != nil {
			return nil, err
		}
	}
	return queues, nil
}

// openQueues returns the tap's queues, or without a tap one noTap per shard.
func (e *engine) openQueues() (queues []tap.Port, err error) {
	if e.device != nil {
		for i := range e.device.Queues() {
			queues = append(queues, e.device.Queue(i))
		}
		return queues, nil
	}
	for range e.shardCount() {
		q, err := newNoTap()
		if err != nil {
			return nil, err
		}
		queues = append(queues, q)
	}
	return queues, nil
}

// noTap is the Port of a shard without a tap (--splice-only): it receives nothing,
// and drops what is sent.
type noTap struct {
	fd    int // an eventfd that is never signalled
	count *stats.Counters
}

func newNoTap() (*noTap, error) {
	fd, err := sys.NewEventFD()
	if err != nil {
		return nil, fmt.Errorf("create event counter: %w", err)
	}
	return &noTap{fd: fd}, nil
}

func (p *noTap) Send(frames []*ring.Frame)                         { p.count.Drops[stats.TapError] += uint64(len(frames)) }
func (p *noTap) Receive(*ring.Batch, *ring.Pool) (bool, sys.Errno) { return false, 0 }
func (p *noTap) FD() int                                           { return p.fd }
func (p *noTap) SetCounters(c *stats.Counters)                     { p.count = c }
func (p *noTap) Close() error                                      { sys.Close(p.fd); return nil }

// tracedPort is a Port that logs each frame (--trace).
type tracedPort struct {
	tap.Port
	log   *log.Log
	shard int
}

// Receive implements tap.Port.
func (p *tracedPort) Receive(b *ring.Batch, pool *ring.Pool) (more bool, errno sys.Errno) {
	more, errno = p.Port.Receive(b, pool)
	p.trace("from guest", b.Frames())
	return more, errno
}

// Send implements tap.Port.
func (p *tracedPort) Send(frames []*ring.Frame) {
	p.trace("to guest", frames)
	p.Port.Send(frames)
}

func (p *tracedPort) trace(direction string, frames []*ring.Frame) {
	for _, f := range frames {
		p.log.Trace(fmt.Sprintf("shard %d %s: %s", p.shard, direction, describeFrame(f.Bytes())))
	}
}

// describeFrame describes a frame in one line.
func describeFrame(b []byte) string {
	var h wire.Headers
	verdict := wire.Parse(b, &h)
	switch {
	case h.EtherType == wire.EtherARP:
		return fmt.Sprintf("ARP, %d bytes", len(b))
	case verdict == wire.Fragment:
		return fmt.Sprintf("fragment %v > %v protocol %d, %d bytes", h.Src, h.Dst, h.Proto, len(b))
	case verdict != wire.OK:
		return fmt.Sprintf("EtherType %#04x, not understood, %d bytes", h.EtherType, len(b))
	}
	switch h.Proto {
	case wire.ProtoTCP:
		t := b[h.L4:]
		return fmt.Sprintf("TCP %s %s seq %d ack %d win %d len %d", endpoints(&h), tcpFlags(t[13]),
			binary.BigEndian.Uint32(t[4:]), binary.BigEndian.Uint32(t[8:]), binary.BigEndian.Uint16(t[14:]), h.PayloadLen)
	case wire.ProtoUDP:
		return fmt.Sprintf("UDP %s len %d", endpoints(&h), h.PayloadLen)
	}
	return fmt.Sprintf("ICMP %v > %v type %d code %d len %d", h.Src, h.Dst, h.DstPort>>8, h.DstPort&255, h.PayloadLen)
}

// endpoints formats both addresses with their ports.
func endpoints(h *wire.Headers) string {
	return netip.AddrPortFrom(h.Src.Netip(), h.SrcPort).String() + " > " + netip.AddrPortFrom(h.Dst.Netip(), h.DstPort).String()
}

// tcpFlags names the flags that are set, lowest bit first (RFC 9293 section 3.1).
func tcpFlags(b byte) string {
	s := ""
	for i, name := range "FSRPAUEC" {
		if b>>i&1 != 0 {
			s += string(name)
		}
	}
	return s
}
