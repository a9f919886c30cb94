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
	// slaacBits is the prefix length that stateless autoconfiguration needs
	// (RFC 4291 section 2.5.1).
	slaacBits = 64
	// minMTU is the least MTU of an IPv6 link (RFC 8200 section 5), which an
	// advertisement may not exceed.
	minMTU = 1280
	// maxDNS is the most resolvers in an advertisement, and maxDNSSL the
	// most octets of search list, so that it stays below minMTU.
	maxDNS   = 8
	maxDNSSL = 904
)

// ethIP is where the ICMPv6 message starts in a frame.
const ethIP = wire.EthLen + wire.IPv6Len

// send commits the message of n octets in the payload of out, from src to dst,
// and writes its checksum.
func send(e *env.Env, out *ring.Frame, n int, src *wire.Addr, dst *node) {
	b := out.Build(ethIP, n)
	wire.PutEth(b, &dst.mac, &e.Rules.OurMAC, wire.EtherIPv6)
	wire.PutIPv6(b[wire.EthLen:], n, wire.ProtoICMPv6, hopLimit, src, &dst.addr)
	msg := out.PayloadArea()[:n]
	sum := csum.Sum(msg, wire.PseudoSum(src, &dst.addr, wire.ProtoICMPv6, n))
	binary.BigEndian.PutUint16(msg[2:], csum.Finish(sum))
	out.Offload = ring.Offload{}
	e.Out.Commit(1)
}

// sendNA answers the solicitation m (RFC 4861 section 7.2.4). The answer to one
// from the unspecified address goes to all nodes.
func sendNA(e *env.Env, m *message) {
	out := e.Out.Next()
	msg := out.PayloadArea()[:lenNeighbor+8]
	clear(msg)
	dst, flags := &m.src, byte(naSolicited|naOverride)
	if m.src.addr.IsUnspecified() {
		dst, flags = &allNodes, naOverride
	}
	if isRouter(&m.target, e.Rules) {
		flags |= naRouter
	}
	msg[0], msg[4] = typeNA, flags
	copy(msg[8:], m.target[:])
	putLink(msg[lenNeighbor:], optTargetLink, &e.Rules.OurMAC)
	send(e, out, len(msg), &m.target, dst)
}

// advertise sends a Router Advertisement to dst, or to all nodes if that is
// unspecified.
func (r *Responder) advertise(e *env.Env, dst *node) {
	if r.cfg.NoRA {
		return
	}
	if dst.addr.IsUnspecified() {
		dst = &allNodes
	}
	out := e.Out.Next()
	n := r.putRA(out.PayloadArea(), e.Rules)
	src := linkLocal(e.Rules)
	send(e, out, n, &src, dst)
}

// putRA writes the message to the start of b, without its checksum, and returns
// its length.
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

// putHeader writes the start of an advertisement. We are a default router only if
// the rules have a gateway, and the guest does not already have a route. Times
// for reachability and retransmission are left to the guest.
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

// putMTU writes nothing for 0 (announce none) and for an MTU that is too small for
// IPv6.
func putMTU(b []byte, mtu int) int {
	if mtu < minMTU {
		return 0
	}
	b[0], b[1], b[2], b[3] = optMTU, 1, 0, 0
	binary.BigEndian.PutUint32(b[4:], uint32(mtu))
	return 8
}

// prefix is a network; the host part of addr is zero.
type prefix struct {
	addr wire.Addr
	bits uint8
}

// guestPrefix is the network of the guest's address, or zero if it cannot be
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

// appendPrefix appends the option of RFC 4861 section 4.6.2: p is on the link, and
// for autoconfiguration if its length allows that, for lifetime seconds.
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

// appendRDNSS appends the option of RFC 8106 section 5.1, if dns is not empty. dns
// has at most maxDNS addresses, all IPv6. lifetime is in seconds.
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
// domains, and also returns those left out. lifetime is in seconds.
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
