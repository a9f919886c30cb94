// Package arp answers the guest's ARP requests (RFC 826) with our Ethernet
// address, whatever IPv4 address it asks for: everything that is not the guest
// is reached through us, and with routes copied from the host the guest may ask
// for addresses on no common subnet.
//
// Never answered are the guest's own addresses, the configured one and the one
// last seen, for an answer would look like a conflict. Nor is a probe (RFC 5227,
// sender address zero), unless it is for an address that stands for us inside,
// such as the gateway: with a probe the guest asks whether it may have an
// address, and any other is free for it. Announcements and replies are not
// answered; they tell, as requests do, the guest's addresses.
//
// The package keeps no state and starts nothing; package shard calls Input for
// each frame with EtherType ARP, on the shard's thread.
package arp

import (
	"encoding/binary"

	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/wire"
	"penne/shard/env"

	"penne/ring"
)

// PacketLen is the length of an Ethernet frame with an ARP packet for IPv4
// (RFC 826), in octets, without padding.
const PacketLen = wire.EthLen + 28

// Operations (RFC 826).
const (
	opRequest = 1
	opReply   = 2
)

// fixed is what stands in the packet's first six octets: Ethernet, IPv4, and
// the lengths of their addresses.
const fixed = 1<<32 | wire.EtherIPv4<<16 | 6<<8 | 4

// Input reads the ARP packet in f, notes what it tells about the guest, and
// commits the reply, if there is one, to e.Out. f stays the caller's.
func Input(e *env.Env, f *ring.Frame) {
	var p packet
	if !p.parse(f.Bytes()) {
		e.Count.Drop(stats.Malformed)
		return
	}
	if !e.Rules.V4.On {
		e.Count.Drop(stats.FamilyOff)
		return
	}
	answer := p.answerable(e.Rules, e.Guest)
	p.note(e.Guest)
	if !answer {
		return
	}
	out := e.Out.Next()
	out.Offload = ring.Offload{}
	p.putReply(out.Build(PacketLen, 0), &e.Rules.OurMAC)
	e.Out.Commit(1)
}

// packet is an ARP packet for IPv4 over Ethernet.
type packet struct {
	dst            wire.MAC // of the frame
	op             uint16
	senderMAC      wire.MAC
	sender, target wire.Addr
}

// parse reads the frame b; false if it is no ARP packet for IPv4 over Ethernet
// or its sender no station.
func (p *packet) parse(b []byte) bool {
	if len(b) < PacketLen || binary.BigEndian.Uint16(b[12:]) != wire.EtherARP {
		return false
	}
	a := b[wire.EthLen:]
	if uint64(binary.BigEndian.Uint32(a))<<16|uint64(binary.BigEndian.Uint16(a[4:])) != fixed {
		return false
	}
	p.dst, p.op = wire.MAC(b), binary.BigEndian.Uint16(a[6:])
	p.senderMAC = wire.MAC(a[8:])
	p.sender, p.target = wire.Addr4(a[14:]), wire.Addr4(a[24:])
	return !p.senderMAC.IsMulticast() && !p.senderMAC.IsZero() && !p.sender.IsMulticast()
}

// note takes over what p tells about the guest. SawAddr leaves out a probe's
// zero address.
func (p *packet) note(g *fwd.Guest) {
	g.SawMAC(&p.senderMAC)
	g.SawAddr(&p.sender)
}

// answerable tells whether p is a request that is ours to answer.
func (p *packet) answerable(r *fwd.Rules, g *fwd.Guest) bool {
	switch {
	case p.op != opRequest, p.target == p.sender: // reply, or announcement
		return false
	case !p.dst.IsMulticast() && p.dst != r.OurMAC: // for another station
		return false
	case p.target.IsUnspecified(), p.target.IsMulticast(), p.target.IsLoopback(), p.target.IsBroadcast4():
		return false
	case p.target == r.V4.Guest:
		return false
	case p.sender.IsUnspecified(): // probe
		return ours(&p.target, &r.V4)
	}
	return p.target != g.Addr(&p.target, r)
}

// ours tells whether a stands for us, or for something on the host, inside.
func ours(a *wire.Addr, f *fwd.Family) bool {
	return *a == f.Gateway || *a == f.Ours || *a == f.HostLoopback || *a == f.GuestMap || *a == f.DNSForward
}

// putReply writes the reply to p into b, which holds PacketLen octets.
func (p *packet) putReply(b []byte, our *wire.MAC) {
	wire.PutEth(b, &p.senderMAC, our, wire.EtherARP)
	a := b[wire.EthLen:]
	binary.BigEndian.PutUint32(a, fixed>>16)
	binary.BigEndian.PutUint16(a[4:], fixed&0xffff)
	binary.BigEndian.PutUint16(a[6:], opReply)
	copy(a[8:14], our[:])
	copy(a[14:18], p.target.V4())
	copy(a[18:24], p.senderMAC[:])
	copy(a[24:28], p.sender.V4())
}
