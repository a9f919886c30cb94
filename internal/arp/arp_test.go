package arp

import (
	"bytes"
	"testing"

	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/wire"
	"penne/test/responder"
)

var (
	ourMAC   = responder.OurMAC
	guestMAC = responder.GuestMAC
)

func a4(a, b, c, d byte) wire.Addr { return wire.Addr4([]byte{a, b, c, d}) }

var rules = fwd.Rules{
	OurMAC: ourMAC,
	V4: fwd.Family{On: true, Guest: a4(192, 0, 2, 5), Bits: 24, Gateway: a4(192, 0, 2, 1), Ours: a4(192, 0, 2, 1),
		HostLoopback: a4(192, 0, 2, 1), DNSForward: a4(169, 254, 1, 1)},
}

type bench struct{ *responder.Bench }

func newBench(t testing.TB) bench {
	t.Helper()
	return bench{responder.New(t, rules)}
}

// input gives the frame to Input and returns the reply, if any.
func (b *bench) input(frame []byte) []byte {
	b.Load(frame) // Input reads more than Parse does
	return b.Of(func() { Input(&b.Env, b.In) })
}

// packetBytes builds a packet as a guest does.
func packetBytes(dst wire.MAC, op byte, sender, target wire.Addr) []byte {
	b := make([]byte, PacketLen, 60)
	wire.PutEth(b, &dst, &guestMAC, wire.EtherARP)
	copy(b[14:], []byte{0, 1, 8, 0, 6, 4, 0, op})
	copy(b[22:], guestMAC[:])
	copy(b[28:], sender.V4())
	copy(b[38:], target.V4())
	return b[:60] // padded, as Ethernet does it
}

// TestReplyBytes compares against a packet laid out by hand from RFC 826.
func TestReplyBytes(t *testing.T) {
	b := newBench(t)
	want := responder.Unhex(t, "020000000007 9a559a559a55 0806 0001 0800 06 04 0002 9a559a559a55 c0000201 020000000007 c0000205")
	got := b.input(packetBytes(wire.Broadcast, opRequest, a4(192, 0, 2, 5), a4(192, 0, 2, 1)))
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	if b.Guest.MAC() != guestMAC || b.Guest.Addr(&rules.V4.Guest, &rules) != a4(192, 0, 2, 5) {
		t.Errorf("noted %x, %v", b.Guest.MAC(), b.Guest.Addr(&rules.V4.Guest, &rules))
	}
}

func TestAnswers(t *testing.T) {
	guest, gw, any4 := rules.V4.Guest, rules.V4.Gateway, a4(0, 0, 0, 0)
	for _, c := range []struct {
		name           string
		dst            wire.MAC
		op             byte
		sender, target wire.Addr
		want           bool
	}{
		{"gateway", wire.Broadcast, 1, guest, gw, true},
		{"gateway, unicast poll", ourMAC, 1, guest, gw, true},
		{"neighbour on the host's network", wire.Broadcast, 1, guest, a4(192, 0, 2, 77), true},
		{"off-link, for a route without gateway", wire.Broadcast, 1, guest, a4(203, 0, 113, 9), true},
		{"from an address of its own choice", wire.Broadcast, 1, a4(10, 1, 1, 1), gw, true},
		{"to another station", wire.MAC{2, 9, 9, 9, 9, 9}, 1, guest, gw, false},
		{"guest's own", wire.Broadcast, 1, a4(10, 1, 1, 1), guest, false},
		{"probe for the guest's own", wire.Broadcast, 1, any4, guest, false},
		{"probe for a free address", wire.Broadcast, 1, any4, a4(192, 0, 2, 99), false},
		{"probe for the gateway", wire.Broadcast, 1, any4, gw, true},
		{"probe for the resolver inside", wire.Broadcast, 1, any4, a4(169, 254, 1, 1), true},
		{"announcement", wire.Broadcast, 1, guest, guest, false},
		{"announcement of another address", wire.Broadcast, 1, a4(10, 1, 1, 1), a4(10, 1, 1, 1), false},
		{"announcement by reply", wire.Broadcast, 2, guest, guest, false},
		{"reply", ourMAC, 2, guest, gw, false},
		{"reverse request (RFC 903)", wire.Broadcast, 3, guest, gw, false},
		{"unspecified target", wire.Broadcast, 1, guest, any4, false},
		{"multicast target", wire.Broadcast, 1, guest, a4(224, 0, 0, 1), false},
		{"loopback target", wire.Broadcast, 1, guest, a4(127, 0, 0, 1), false},
		{"broadcast target", wire.Broadcast, 1, guest, a4(255, 255, 255, 255), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			got := b.input(packetBytes(c.dst, c.op, c.sender, c.target))
			if (got != nil) != c.want {
				t.Errorf("answered: %v", got != nil)
			}
			if b.Count.Drops != [stats.NumReasons]uint64{} {
				t.Errorf("drops %v", b.Count.Drops)
			}
		})
	}
}

// TestSeenAddress: an address that the guest took by itself is its own as well.
func TestSeenAddress(t *testing.T) {
	b := newBench(t)
	own := a4(192, 0, 2, 99)
	b.input(packetBytes(wire.Broadcast, opRequest, own, own))
	if b.input(packetBytes(wire.Broadcast, opRequest, a4(192, 0, 2, 98), own)) != nil {
		t.Error("answered for an address that the guest announced")
	}
}

// TestProbeIsNotNoted: the sender address of a probe is no address.
func TestProbeIsNotNoted(t *testing.T) {
	b := newBench(t)
	b.input(packetBytes(wire.Broadcast, opRequest, a4(0, 0, 0, 0), a4(192, 0, 2, 99)))
	if a := b.Guest.Addr(&rules.V4.Gateway, &rules); a != rules.V4.Guest {
		t.Errorf("noted %v", a)
	}
	if b.Guest.MAC() != guestMAC {
		t.Errorf("noted %x", b.Guest.MAC())
	}
}

func TestMalformed(t *testing.T) {
	good := packetBytes(wire.Broadcast, opRequest, rules.V4.Guest, rules.V4.Gateway)
	for _, c := range []struct {
		name string
		at   int
		put  byte
	}{
		{"hardware type", 15, 6}, {"protocol type", 16, 0x86}, {"hardware length", 18, 8}, {"protocol length", 19, 16},
		{"group address as sender", 22, 3}, {"multicast sender", 28, 224}, {"EtherType", 13, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			bad := bytes.Clone(good)
			bad[c.at] = c.put
			if b.input(bad) != nil || b.Count.Drops[stats.Malformed] != 1 || b.Guest.MAC() != wire.Broadcast {
				t.Errorf("drops %v, noted %x", b.Count.Drops, b.Guest.MAC())
			}
		})
	}
	b := newBench(t)
	for n := range PacketLen {
		if b.input(good[:n]) != nil {
			t.Errorf("answered %d octets", n)
		}
	}
	if b.Count.Drops[stats.Malformed] != PacketLen {
		t.Errorf("%d of %d counted", b.Count.Drops[stats.Malformed], PacketLen)
	}
}

func TestFamilyOff(t *testing.T) {
	b := newBench(t)
	b.Rules.V4.On = false
	if b.input(packetBytes(wire.Broadcast, opRequest, rules.V4.Guest, rules.V4.Gateway)) != nil || b.Count.Drops[stats.FamilyOff] != 1 {
		t.Errorf("drops %v", b.Count.Drops)
	}
}

func TestInputNoAlloc(t *testing.T) {
	b := newBench(t)
	req := packetBytes(wire.Broadcast, opRequest, rules.V4.Guest, rules.V4.Gateway)
	b.Load(req)
	b.NoAlloc(t, func() { Input(&b.Env, b.In) })
}

// FuzzInput: whatever comes, a reply is well-formed, goes to the sender, claims
// our address only, and never the guest's.
func FuzzInput(f *testing.F) {
	f.Add(packetBytes(wire.Broadcast, opRequest, rules.V4.Guest, rules.V4.Gateway))
	f.Add(packetBytes(ourMAC, opRequest, a4(0, 0, 0, 0), rules.V4.Guest))
	f.Add(packetBytes(wire.Broadcast, opReply, rules.V4.Guest, rules.V4.Guest))
	f.Add([]byte{})
	b := newBench(f)
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) > 2048 {
			return
		}
		*b.Guest = fwd.Guest{}
		reply := b.input(frame)
		if reply == nil {
			return
		}
		var p packet
		if !p.parse(reply) || p.op != opReply || p.senderMAC != ourMAC || p.sender == rules.V4.Guest {
			t.Errorf("reply %x", reply)
		}
		if !bytes.Equal(reply[:6], frame[22:28]) || !bytes.Equal(reply[28:32], frame[38:42]) {
			t.Errorf("reply %x to %x", reply, frame)
		}
	})
}
