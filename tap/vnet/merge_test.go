package vnet

import (
	"bytes"
	"encoding/binary"
	"testing"

	"penne/csum"
	"penne/internal/wire"
	"penne/ring"
)

// grow gives b the room of a slot to grow into.
func grow(b []byte) []byte { return append(make([]byte, 0, ring.SlotSize), b...) }

// merge runs the documented loop and returns what comes out.
func merge(m *Merger, frames [][]byte, o ring.Offload) (out [][]byte, offs []ring.Offload) {
	take := func(b []byte, o ring.Offload) {
		if b != nil {
			out, offs = append(out, bytes.Clone(b)), append(offs, o)
		}
	}
	for _, f := range frames {
		if m.Append(f, &o) {
			continue
		}
		take(m.End())
		if f = grow(f); !m.Start(f, &o) {
			take(f, o)
		}
	}
	take(m.End())
	return out, offs
}

// TestSplitThenMerge gives back the superpacket, whole or partial sums.
func TestSplitThenMerge(t *testing.T) {
	for _, sh := range shapes() {
		t.Run(sh.String(), func(t *testing.T) {
			want, o := build(sh)
			for _, s := range []Splitter{{}, {Partial: true}} {
				segs := segments(t, &s, want, &o)
				var m Merger
				got, offs := merge(&m, segs, s.Offload())
				if len(got) != 1 {
					t.Fatalf("%d packets from %d segments", len(got), len(segs))
				}
				if len(segs) == 1 {
					if !bytes.Equal(got[0], segs[0]) || offs[0] != s.Offload() {
						t.Error("a single segment was changed")
					}
					continue
				}
				if !bytes.Equal(got[0], want) || offs[0] != o {
					t.Errorf("offload %+v, want %+v; bytes equal: %v", offs[0], o, bytes.Equal(got[0], want))
				}
			}
		})
	}
}

// reseal makes the checksums of a changed segment right again.
func reseal(b []byte) {
	var h wire.Headers
	if wire.Parse(b, &h) != wire.OK {
		return
	}
	if !h.V6 {
		binary.BigEndian.PutUint16(b[h.L3+10:], 0)
		binary.BigEndian.PutUint16(b[h.L3+10:], csum.Finish(csum.Sum(b[h.L3:h.L4], 0)))
	}
	l4 := b[h.L4 : uint32(h.Payload)+h.PayloadLen]
	field := l4[csumOffset(h.Proto):]
	binary.BigEndian.PutUint16(field, 0)
	binary.BigEndian.PutUint16(field, csum.FinishUDP(csum.Sum(l4, wire.PseudoSum(&h.Src, &h.Dst, h.Proto, len(l4)))))
}

// TestMergeBreaks changes the second of three segments: what differs must stay
// apart.
func TestMergeBreaks(t *testing.T) {
	tcp := shape{payload: 3000, size: 1000, tcpOpts: 12, flags: wire.ACK}
	tcp6 := shape{payload: 3000, size: 1000, v6: true, flags: wire.ACK}
	udp := shape{payload: 3000, size: 1000, udp: true}
	const ip, l4, l46 = wire.EthLen, wire.EthLen + wire.IPv4Len, wire.EthLen + wire.IPv6Len
	for _, c := range []struct {
		name  string
		shape shape
		at    int  // octet to change
		xor   byte // how
		seal  bool // then make the sums right
		out   int  // packets that come out
	}{
		{"nothing", tcp, 0, 0, true, 1},
		{"destination MAC", tcp, 5, 1, true, 3},
		{"TOS", tcp, ip + 1, 3, true, 3},
		{"identification", tcp, ip + 5, 0x40, true, 1}, // DF: it says nothing
		{"DF", tcp, ip + 6, 0x40, true, 3},
		{"TTL", tcp, ip + 8, 1, true, 3},
		{"source", tcp, ip + 15, 1, true, 3},
		{"IP header sum", tcp, ip + 10, 1, false, 3},
		{"source port", tcp, l4 + 1, 1, true, 3},
		{"sequence number", tcp, l4 + 7, 1, true, 3},
		{"acknowledgment", tcp, l4 + 11, 1, true, 3},
		{"window", tcp, l4 + 15, 1, true, 3},
		{"option", tcp, l4 + 22, 1, true, 3},
		{"PSH", tcp, l4 + 13, wire.PSH, true, 2},
		{"FIN", tcp, l4 + 13, wire.FIN, true, 2},
		{"SYN", tcp, l4 + 13, wire.SYN, true, 3},
		{"RST", tcp, l4 + 13, wire.RST, true, 3},
		{"URG", tcp, l4 + 13, wire.URG, true, 3},
		{"ECE", tcp, l4 + 13, wire.ECE, true, 3},
		{"CWR", tcp, l4 + 13, wire.CWR, true, 2}, // starts a run of its own
		{"TCP sum", tcp, l4 + 16, 1, false, 3},
		{"TCP payload", tcp, l4 + 500, 1, false, 3},
		{"flow label", tcp6, ip + 3, 1, true, 3},
		{"hop limit", tcp6, ip + 7, 1, true, 3},
		{"destination", tcp6, l46 - 1, 1, true, 3},
		{"UDP port", udp, l4 + 3, 1, true, 3},
		{"UDP payload", udp, l4 + 500, 1, false, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, o := build(c.shape)
			var s Splitter
			segs := segments(t, &s, b, &o)
			segs[1][c.at] ^= c.xor
			if c.seal {
				reseal(segs[1])
			}
			var m Merger
			out, _ := merge(&m, segs, ring.Offload{})
			if len(out) != c.out {
				t.Errorf("%d packets, want %d", len(out), c.out)
			}
			checkPayload(t, out, segs)
		})
	}
}

// checkPayload compares the joined payloads of packets before and after.
func checkPayload(t *testing.T, after, before [][]byte) {
	t.Helper()
	join := func(packets [][]byte) (all []byte) {
		for _, p := range packets {
			var h wire.Headers
			if wire.Parse(p, &h) != wire.OK {
				t.Fatalf("malformed: %x", p[:min(len(p), 100)])
			}
			all = append(all, p[h.Payload:uint32(h.Payload)+h.PayloadLen]...)
		}
		return all
	}
	if !bytes.Equal(join(after), join(before)) {
		t.Error("payload differs")
	}
}

// TestMergeIdentification: without DF identifications must count up.
func TestMergeIdentification(t *testing.T) {
	b, o := build(shape{payload: 2000, size: 1000, udp: true})
	b[wire.EthLen+6] = 0
	var s Splitter
	segs := segments(t, &s, b, &o)
	var m Merger
	if out, _ := merge(&m, segs, ring.Offload{}); len(out) != 1 {
		t.Errorf("counting up: %d packets", len(out))
	}
	segs[1][wire.EthLen+5] ^= 1
	reseal(segs[1])
	if out, _ := merge(&m, segs, ring.Offload{}); len(out) != 2 {
		t.Errorf("not counting up: %d packets", len(out))
	}
}

func TestMergeBounds(t *testing.T) {
	var s Splitter
	var m Merger
	b, o := build(shape{payload: 65 * 100, size: 100, udp: true})
	if out, _ := merge(&m, segments(t, &s, b, &o), ring.Offload{}); len(out) != 2 {
		t.Errorf("65 datagrams: %d packets", len(out))
	}
	// Five of 16000 are more than an IP packet holds.
	b, o = build(shape{payload: 16000, size: 16001, flags: wire.ACK})
	seg, whole := segments(t, &s, b, &o)[0], ring.Offload{}
	var segs [][]byte
	for i := range 5 {
		next := bytes.Clone(seg)
		binary.BigEndian.PutUint32(next[38:], uint32(0xfffffc00+i*16000))
		reseal(next)
		segs = append(segs, next)
	}
	out, _ := merge(&m, segs, whole)
	if len(out) != 2 || len(out[0]) > wire.EthLen+maxIP {
		t.Errorf("%d packets, the first of %d octets", len(out), len(out[0]))
	}
	checkPayload(t, out, segs)
	small := append(make([]byte, 0, len(segs[0])+15999), segs[0]...)
	if !m.Start(small, &whole) {
		t.Fatal("not started")
	}
	if m.Append(segs[1], &whole) {
		t.Error("joined past the capacity")
	}
}

// TestMergePadding: the padding of a short frame does not get between payloads.
func TestMergePadding(t *testing.T) {
	b, o := build(shape{payload: 9, size: 4, udp: true})
	var s Splitter
	segs := segments(t, &s, b, &o)
	for i := range segs {
		segs[i] = append(segs[i], make([]byte, 60-len(segs[i]))...)
	}
	var m Merger
	got, offs := merge(&m, segs, ring.Offload{})
	if len(got) != 1 || !bytes.Equal(got[0], b) || offs[0] != o {
		t.Errorf("%d packets", len(got))
	}
}

func TestMergeRefuses(t *testing.T) {
	var m Merger
	if b, _ := m.End(); b != nil {
		t.Error("something came from nothing")
	}
	noSum, o := build(shape{payload: 10, size: 100, udp: true})
	noSum[40], noSum[41] = 0, 0
	icmp := bytes.Clone(noSum)
	icmp[23] = wire.ProtoICMP
	super, so := build(shape{payload: 10, size: 5, udp: true})
	mapped, _ := build(shape{payload: 10, size: 100, udp: true, v6: true})
	copy(mapped[22:38], src4[:])
	for name, c := range map[string]struct {
		b []byte
		o ring.Offload
	}{
		"no checksum": {noSum, ring.Offload{}}, "superpacket": {super, so}, "mapped source": {mapped, ring.Offload{}},
		"other protocol": {icmp, ring.Offload{}}, "empty": {nil, o}, "truncated": {super[:45], ring.Offload{}},
	} {
		if m.Start(c.b, &c.o) || m.Append(c.b, &c.o) {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestMergeNoAlloc(t *testing.T) {
	super, o := build(shape{payload: 60000, size: 1448, flags: wire.ACK})
	var s Splitter
	segs, whole := segments(t, &s, super, &o), ring.Offload{}
	first := grow(segs[0])
	n := len(first)
	var m Merger
	if n := testing.AllocsPerRun(100, func() {
		copy(first, segs[0])
		m.Start(first[:n], &whole)
		for _, seg := range segs[1:] {
			m.Append(seg, &whole)
		}
		m.End()
	}); n != 0 {
		t.Errorf("%v allocations a run", n)
	}
}

// FuzzMerge: any two frames, tried as a run: nothing gets lost, and what comes
// out merged can be cut into what went in.
func FuzzMerge(f *testing.F) {
	for _, sh := range shapes() {
		if sh.payload == 3*sh.size {
			b, o := build(sh)
			var s Splitter
			segs := segments(f, &s, b, &o)
			f.Add(segs[0], segs[1])
		}
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		a, b = bytes.Clone(a), bytes.Clone(b)
		reseal(a)
		reseal(b)
		var m Merger
		none := ring.Offload{}
		if !m.Start(grow(a), &none) || !m.Append(b, &none) {
			return
		}
		super, o := m.End()
		var s Splitter
		segs := segments(t, &s, super, &o)
		if len(segs) != 2 {
			t.Fatalf("%d segments", len(segs))
		}
		checkPayload(t, segs, [][]byte{a, b})
	})
}
