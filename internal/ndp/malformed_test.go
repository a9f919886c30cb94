package ndp

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/mdlayher/ndp"

	"penne/csum"
	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/wire"
)

func TestMalformed(t *testing.T) {
	target := rules.V6.Gateway
	group, mac := solicited(target)
	nsMsg := func(target wire.Addr, opts ...byte) []byte {
		return append(append([]byte{typeNS, 0, 0, 0, 0, 0, 0, 0}, target[:]...), opts...)
	}
	routed := ns(t, guestLL, target)
	routed[wire.EthLen+7] = 254
	sum := ns(t, guestLL, target)
	sum[ethIP+2] ^= 1
	code := nsMsg(target)
	code[1] = 1
	redirect := nsMsg(target)
	redirect[0] = typeRedirect
	for _, c := range []struct {
		name  string
		frame []byte
	}{
		{"hop limit", routed},
		{"checksum", sum},
		{"code", packet(mac, guestLL, group, code)},
		{"multicast source", packet(mac, allNodes.addr, group, nsMsg(target))},
		{"short", packet(mac, guestLL, group, nsMsg(target)[:23])},
		{"multicast target", packet(mac, guestLL, group, nsMsg(allNodes.addr))},
		{"unspecified target", packet(mac, guestLL, group, nsMsg(any6))},
		{"loopback target", packet(mac, guestLL, group, nsMsg(wire.Addr{15: 1}))},
		{"mapped target", packet(mac, guestLL, group, nsMsg(wire.Addr4([]byte{192, 0, 2, 1})))},
		{"option of no length", packet(mac, guestLL, group, nsMsg(target, 1, 0, 0, 0, 0, 0, 0, 0))},
		{"option past the end", packet(mac, guestLL, group, nsMsg(target, 14, 2, 0, 0, 0, 0, 0, 0))},
		{"scrap of an option", packet(mac, guestLL, group, nsMsg(target, 1, 1, 0))},
		{"detection with an address option", packet(mac, any6, group, nsMsg(target, 1, 1, 2, 0, 0, 0, 0, 7))},
		{"detection by unicast", packet(ourMAC, any6, target, nsMsg(target))},
		{"nobody's router solicitation with an address option",
			packet(mac, any6, addr("ff02::2"), []byte{typeRS, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 7})},
		{"router advertisement, short", packet(mac, guestLL, allNodes.addr, []byte{typeRA, 0, 0, 0, 0, 0, 0, 0})},
		{"redirect, short", packet(mac, guestLL, allNodes.addr, redirect)},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			if b.input(New(Config{}), c.frame) != nil || b.Count.Drops[stats.Malformed] != 1 || b.Guest.MAC() != wire.Broadcast {
				t.Errorf("drops %v, noted %x", b.Count.Drops, b.Guest.MAC())
			}
		})
	}
}

// FuzzInput: whatever comes, an answer is well-formed, and never claims an
// address of the guest.
func FuzzInput(f *testing.F) {
	f.Add(ns(f, guestLL, rules.V6.Gateway))
	f.Add(ns(f, any6, rules.V6.DNSForward))
	f.Add(ns(f, guestLL, rules.V6.Guest))
	f.Add(rs(f, guestLL))
	f.Add(rs(f, any6))
	f.Add([]byte{})
	b := newBench(f)
	r := New(Config{DNS: []wire.Addr{addr("2001:db8::53")}, Search: []string{"example.com"}})
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) > 4096 || len(frame) < ethIP+4 {
			return
		}
		frame = bytes.Clone(frame)
		repair(frame)
		*b.Guest = fwd.Guest{}
		reply := b.input(r, frame)
		if reply == nil {
			return
		}
		dst, mac := wire.Addr6(frame[22:]), wire.MAC(frame[6:])
		if dst.IsUnspecified() {
			dst, mac = allNodes.addr, allNodes.mac
		}
		src, m := decode(t, reply, dst, mac)
		if na, ok := m.(*ndp.NeighborAdvertisement); ok && (na.TargetAddress != src.Netip() || src == rules.V6.Guest) {
			t.Errorf("advertised %v from %v", na.TargetAddress, src)
		}
	})
}

// repair puts the right checksum into a frame, else the fuzzer hardly comes past
// it.
func repair(b []byte) {
	var h wire.Headers
	if wire.Parse(b, &h) != wire.OK || !Handles(&h) || h.Src.Is4() || h.Dst.Is4() {
		return
	}
	icmp := b[h.L4 : uint32(h.Payload)+h.PayloadLen]
	icmp[2], icmp[3] = 0, 0
	sum := csum.Sum(icmp, wire.PseudoSum(&h.Src, &h.Dst, wire.ProtoICMPv6, len(icmp)))
	binary.BigEndian.PutUint16(icmp[2:], csum.Finish(sum))
}
