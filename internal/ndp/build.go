package ndp

import (
	"encoding/binary"
	"time"

	"penne/csum"
	"penne/internal/fwd"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/env"
)

// Flags of advertisements (RFC 4861 sections 4.2, 4.4 and 4.6.2).
const (
	raManaged = 0x80
	raOther   = 0x40

	naRouter    = 0x80
	naSolicited = 0x40
	naOverride  = 0x20

	prefixOnLink     = 0x80
	prefixAutonomous = 0x40
)

const (
	// forever is an infinite lifetime, in seconds.
	forever = 0xffffffff
	// slaacBits is the prefix length of addresses that a guest makes for
	// itself (RFC 4291 section 2.5.1).
	slaacBits = 64
	// minMTU is the least a link of IPv6 has (RFC 8200 section 5), and the
	// length that an advertisement may not exceed.
	minMTU = 1280
	// maxDNS bounds the resolvers in one advertisement, maxDNSSL the octets
	// of the search list, so that it stays below minMTU.
	maxDNS   = 8
	maxDNSSL = 904
)

// ethIP is where the ICMPv6 message starts in a frame.
const ethIP = wire.EthLen + wire.IPv6Len

// send commits the message of n octets that lies at the payload of out, from
// src to dst; the sum is written into it.
func send(e *env.Env, out *ring.Frame, n int, src, dst *wire.Addr, mac *wire.MAC) {
	b := out.Build(ethIP, n)
	wire.PutEth(b, mac, &e.Rules.OurMAC, wire.EtherIPv6)
	wire.PutIPv6(b[wire.EthLen:], n, wire.ProtoICMPv6, hops, src, dst)
	msg := out.PayloadArea()[:n]
	sum := csum.Sum(msg, wire.PseudoSum(src, dst, wire.ProtoICMPv6, n))
	binary.BigEndian.PutUint16(msg[2:], csum.Finish(sum))
	out.Offload = ring.Offload{}
	e.Out.Commit(1)
}

// sendNA answers the solicitation m (RFC 4861 section 7.2.4). One that came from
// no address is answered to all nodes.
func sendNA(e *env.Env, m *message) {
	out := e.Out.Next()
	msg := out.PayloadArea()[:lenNeighbor+8]
	clear(msg)
	dst, mac, flags := &m.src, &m.mac, byte(naSolicited|naOverride)
	if m.src.IsUnspecified() {
		dst, mac, flags = &allNodes, &allNodesMAC, naOverride
	}
	if isRouter(&m.target, e.Rules) {
		flags |= naRouter
	}
	msg[0], msg[4] = typeNA, flags
	copy(msg[8:], m.target[:])
	putLink(msg[lenNeighbor:], optTargetLink, &e.Rules.OurMAC)
	send(e, out, len(msg), &m.target, dst, mac)
}

// advertise sends a Router Advertisement to dst, or to all nodes if that is
// unspecified.
func (r *Responder) advertise(e *env.Env, dst *wire.Addr, mac *wire.MAC) {
	if r.cfg.NoRA {
		return
	}
	if dst.IsUnspecified() {
		dst, mac = &allNodes, &allNodesMAC
	}
	out := e.Out.Next()
	n := r.putRA(out.PayloadArea(), e.Rules)
	src := linkLocal(e.Rules)
	send(e, out, n, &src, dst, mac)
}

// putRA writes the message, its checksum left zero, to the start of b and
// returns its length.
func (r *Responder) putRA(b []byte, rules *fwd.Rules) int {
	n := r.putHeader(b, rules)
	n += putMTU(b[n:], r.cfg.MTU)
	if !r.cfg.Configured {
		if p := guestPrefix(&rules.V6); p.bits > 0 {
			n += len(appendPrefix(b[n:n], &p, forever))
		}
	}
	return n + copy(b[n:], r.options)
}

// putHeader writes what each advertisement begins with. We are a default router
// only if the rules name one, for a guest that has none yet. Times for
// reachability and retransmission are left to the guest.
func (r *Responder) putHeader(b []byte, rules *fwd.Rules) int {
	clear(b[:lenRA])
	b[0], b[4] = typeRA, 64
	if r.cfg.Managed {
		b[5] |= raManaged
	}
	if r.cfg.Other {
		b[5] |= raOther
	}
	if !rules.V6.Gateway.IsZero() && !r.cfg.Configured {
		binary.BigEndian.PutUint16(b[6:], uint16(RouterLifetime/time.Second))
	}
	return lenRA + putLink(b[lenRA:], optSourceLink, &rules.OurMAC)
}

func putLink(b []byte, kind byte, mac *wire.MAC) int {
	b[0], b[1] = kind, 1
	return 2 + copy(b[2:8], mac[:])
}

// putMTU writes nothing for an MTU of 0 (announce none) and for one that no
// IPv6 link may have.
func putMTU(b []byte, mtu int) int {
	if mtu < minMTU {
		return 0
	}
	b[0], b[1], b[2], b[3] = optMTU, 1, 0, 0
	binary.BigEndian.PutUint32(b[4:], uint32(mtu))
	return 8
}

// prefix is a network, the rest of whose address is zero.
type prefix struct {
	addr wire.Addr
	bits uint8
}

// guestPrefix is the network of the guest's address, zero if it cannot be
// announced.
func guestPrefix(f *fwd.Family) prefix {
	if f.Guest.IsZero() || f.Guest.IsLinkLocal() || f.Bits == 0 || f.Bits >= 128 {
		return prefix{}
	}
	p := prefix{f.Guest, f.Bits}
	whole, rest := int(f.Bits/8), f.Bits%8
	p.addr[whole] &= ^byte(0xff >> rest)
	clear(p.addr[whole+1:])
	return p
}

// appendPrefix appends the option of RFC 4861 section 4.6.2: for the guest to
// make an address in it if that is possible, and in any case as on the link, for
// lifetime seconds.
func appendPrefix(b []byte, p *prefix, lifetime uint32) []byte {
	flags := byte(prefixOnLink)
	if p.bits == slaacBits {
		flags |= prefixAutonomous
	}
	b = append(b, optPrefix, 4, p.bits, flags)
	b = binary.BigEndian.AppendUint32(b, lifetime) // valid
	b = binary.BigEndian.AppendUint32(b, lifetime) // preferred
	b = append(b, 0, 0, 0, 0)
	return append(b, p.addr[:]...)
}

// appendRDNSS appends the option of RFC 8106 section 5.1, if there are any
// resolvers; they are maxDNS at most, of IPv6. lifetime is in seconds.
func appendRDNSS(b []byte, dns []wire.Addr, lifetime uint32) []byte {
	if len(dns) == 0 {
		return b
	}
	b = append(b, optRDNSS, byte(1+2*len(dns)), 0, 0)
	b = binary.BigEndian.AppendUint32(b, lifetime)
	for i := range dns {
		b = append(b, dns[i][:]...)
	}
	return b
}

// appendDNSSL appends the option of RFC 8106 section 5.2, if there are any
// domains, and returns those it had to leave out. lifetime is in seconds.
func appendDNSSL(b []byte, domains []string, lifetime uint32) (opts []byte, leftOut []string) {
	start := len(b)
	b = append(b, optDNSSL, 1, 0, 0)
	b = binary.BigEndian.AppendUint32(b, lifetime)
	for _, d := range domains {
		n, ok := wire.NameLen(d)
		if !ok || len(b)+n-start > maxDNSSL {
			leftOut = append(leftOut, d)
			continue
		}
		b = wire.PutName(b, d)
	}
	if len(b) == start+8 {
		return b[:start], leftOut
	}
	for (len(b)-start)%8 != 0 {
		b = append(b, 0)
	}
	b[start+1] = byte((len(b) - start) / 8)
	return b, leftOut
}
