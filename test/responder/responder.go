// Package responder gives responders one frame of a guest's at a time, in memory,
// and hands back what they answer: the bench of ARP, NDP, DHCP and DHCPv6.
package responder

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"penne/csum"
	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/env"
)

// The addresses of both ends of the link.
var (
	OurMAC   = wire.MAC{0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55}
	GuestMAC = wire.MAC{2, 0, 0, 0, 0, 7}
)

// Bench is what a shard lends a responder, and the tap behind it.
type Bench struct {
	env.Env
	// In is the frame to answer.
	In *ring.Frame
	// Got are copies of the frames sent since Of was last called.
	Got [][]byte

	discard bool
}

// New makes a bench with a copy of the rules.
func New(t testing.TB, rules fwd.Rules) *Bench {
	t.Helper()
	arena, err := ring.NewArena(4, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { arena.Close() })
	b := &Bench{}
	pool := ring.NewPool(arena)
	b.Env = env.Env{Rules: &rules, Guest: &fwd.Guest{}, Pool: pool, Count: &stats.Counters{}, Out: ring.NewOut(pool, 2, b)}
	b.In = pool.Get()
	return b
}

// Send makes the bench the sink of its own Env.
func (b *Bench) Send(frames []*ring.Frame) {
	if b.discard {
		return
	}
	for _, f := range frames {
		b.Got = append(b.Got, bytes.Clone(f.Bytes()))
	}
}

// Load makes frame the input, as the shard hands it over, and returns what
// wire.Parse says of it.
func (b *Bench) Load(frame []byte) wire.Verdict {
	b.In.SetBounds(ring.HeadRoom, copy(b.In.Slot()[ring.HeadRoom:], frame))
	b.In.Offload = ring.Offload{}
	return wire.Parse(b.In.Bytes(), &b.In.H)
}

// Of lets a responder answer the input and returns its first frame, nil if
// there is none.
func (b *Bench) Of(respond func()) []byte {
	b.Got = nil
	respond()
	b.Out.Flush()
	if len(b.Got) == 0 {
		return nil
	}
	return b.Got[0]
}

// NoAlloc fails the test if answering the input allocates.
func (b *Bench) NoAlloc(t *testing.T, respond func()) {
	t.Helper()
	b.discard = true
	if n := testing.AllocsPerRun(100, func() { respond(); b.Out.Flush() }); n != 0 {
		t.Errorf("%v allocations a message", n)
	}
	b.discard = false
	if b.Of(respond) == nil {
		t.Error("no answer: not measured")
	}
}

// Datagram is a UDP datagram of the guest's.
type Datagram struct {
	MAC              wire.MAC // where it goes on the link
	Src, Dst         wire.Addr
	SrcPort, DstPort uint16
	Payload          []byte
}

// Bytes is the Ethernet frame, checksums included.
func (d *Datagram) Bytes() []byte {
	l4 := wire.EthLen + d.Src.IPLen()
	b := make([]byte, l4+wire.UDPLen+len(d.Payload))
	udp := b[l4:]
	wire.PutEth(b, &d.MAC, &GuestMAC, d.Src.EtherType())
	wire.PutIP(b[wire.EthLen:], len(udp), wire.ProtoUDP, &d.Src, &d.Dst)
	for i, v := range []uint16{d.SrcPort, d.DstPort, uint16(len(udp)), 0} {
		binary.BigEndian.PutUint16(udp[2*i:], v)
	}
	copy(udp[wire.UDPLen:], d.Payload)
	sum := csum.Sum(udp, wire.PseudoSum(&d.Src, &d.Dst, wire.ProtoUDP, len(udp)))
	binary.BigEndian.PutUint16(udp[6:], csum.FinishUDP(sum))
	return b
}

// Unhex reads octets written with white space between them.
func Unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
