package vnet

import (
	"bytes"
	"encoding/binary"
	"testing"

	"penne/internal/wire"
	"penne/ring"
)

func TestSplit(t *testing.T) {
	var s Splitter
	for _, sh := range shapes() {
		t.Run(sh.String(), func(t *testing.T) {
			b, o := build(sh)
			whole := bytes.Clone(b)
			segs := segments(t, &s, b, &o)
			if !bytes.Equal(b, whole) {
				t.Error("the superpacket was changed")
			}
			if want := (sh.payload + sh.size - 1) / sh.size; len(segs) != want {
				t.Fatalf("%d segments, want %d", len(segs), want)
			}
			var payload []byte
			for i, seg := range segs {
				payload = append(payload, checkSegment(t, sh, seg, i, len(segs))...)
			}
			if !bytes.Equal(payload, b[len(b)-sh.payload:]) {
				t.Error("payload differs")
			}
		})
	}
}

// checkSegment checks the i-th of n segments, on its own, and returns its payload.
func checkSegment(t *testing.T, sh shape, seg []byte, i, n int) []byte {
	t.Helper()
	var h wire.Headers
	if v := wire.Parse(seg, &h); v != wire.OK {
		t.Fatalf("segment %d: verdict %d", i, v)
	}
	if !verified(seg, &h, &ring.Offload{}) {
		t.Errorf("segment %d: wrong checksum", i)
	}
	if end := uint32(h.Payload) + h.PayloadLen; end != uint32(len(seg)) {
		t.Errorf("segment %d: %d octets, headers say %d", i, len(seg), end)
	}
	if id := binary.BigEndian.Uint16(seg[h.L3+4:]); !sh.v6 && id != uint16(0xfffe+i) {
		t.Errorf("segment %d: identification %d", i, id)
	}
	if !sh.udp {
		checkTCP(t, sh, wire.TCP(seg[h.L4:h.Payload]), i, n)
	}
	return seg[h.Payload:]
}

func checkTCP(t *testing.T, sh shape, tcp wire.TCP, i, n int) {
	t.Helper()
	flags := sh.flags
	if i > 0 {
		flags &^= wire.CWR
	}
	if i < n-1 {
		flags &^= wire.FIN | wire.PSH
	}
	if want := uint32(0xfffffc00) + uint32(i*sh.size); tcp.Seq() != want || tcp.Flags() != flags {
		t.Errorf("segment %d: sequence number %#x, want %#x; flags %#x, want %#x", i, tcp.Seq(), want, tcp.Flags(), flags)
	}
}

// TestSplitPartial: the receiver's completion gives what Splitter gives when it
// sums itself.
func TestSplitPartial(t *testing.T) {
	for _, sh := range shapes() {
		t.Run(sh.String(), func(t *testing.T) {
			b, o := build(sh)
			full, partial := Splitter{}, Splitter{Partial: true}
			want := segments(t, &full, b, &o)
			for i, seg := range segments(t, &partial, b, &o) {
				po := partial.Offload()
				if !Complete(seg, &po) || po.NeedsCsum || !bytes.Equal(seg, want[i]) {
					t.Errorf("segment %d differs", i)
				}
			}
		})
	}
}

func TestSplitVnet(t *testing.T) {
	b, o := build(shape{payload: 2500, size: 1000, v6: true, flags: wire.ACK})
	plain, vnet := Splitter{Partial: true}, Splitter{Partial: true}
	want := segments(t, &plain, b, &o)
	if !vnet.Start(b, &o) {
		t.Fatal("not cut")
	}
	for i := range want {
		hdr, payload, ok := vnet.NextVnet()
		frame := bytes.Join([][]byte{hdr[HdrLen:], payload}, nil)
		var got ring.Offload
		if !ok || !ParseHeader(hdr, frame, &got) || got != vnet.Offload() || !bytes.Equal(frame, want[i]) {
			t.Errorf("segment %d: %+v", i, got)
		}
		if n := binary.LittleEndian.Uint16(hdr[2:]); int(n) != len(hdr)-HdrLen {
			t.Errorf("segment %d: hdr_len %d", i, n)
		}
	}
	if _, _, ok := vnet.NextVnet(); ok {
		t.Error("one segment too many")
	}
}

func TestSplitRefuses(t *testing.T) {
	tcp, udp6 := shape{payload: 100, size: 10, flags: wire.ACK}, shape{payload: 100, size: 10, udp: true, v6: true}
	for _, c := range []struct {
		name   string
		shape  shape
		change func(b []byte, o *ring.Offload) []byte
	}{
		{"no type", tcp, func(b []byte, o *ring.Offload) []byte { o.GSOType = ring.GSONone; return b }},
		{"unknown type", tcp, func(b []byte, o *ring.Offload) []byte { o.GSOType = 3; return b }},
		{"no size", tcp, func(b []byte, o *ring.Offload) []byte { o.GSOSize = 0; return b }},
		{"other family", tcp, func(b []byte, o *ring.Offload) []byte { o.GSOType = ring.GSOTCPv6; return b }},
		{"other protocol", udp6, func(b []byte, o *ring.Offload) []byte { o.GSOType = ring.GSOTCPv6; return b }},
		{"truncated", tcp, func(b []byte, o *ring.Offload) []byte { return b[:len(b)-1] }},
		{"no payload", tcp, func(b []byte, o *ring.Offload) []byte {
			b = b[:len(b)-100]
			binary.BigEndian.PutUint16(b[16:], uint16(len(b)-wire.EthLen))
			return b
		}},
		{"mapped source", udp6, func(b []byte, o *ring.Offload) []byte {
			copy(b[22:38], src4[:])
			return b
		}},
		{"headers too long", shape{payload: 100, size: 10, v6: true, options: 144, tcpOpts: 40, flags: wire.ACK},
			func(b []byte, o *ring.Offload) []byte { return b }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, o := build(c.shape)
			b = c.change(b, &o)
			var s Splitter
			if s.Start(b, &o) {
				t.Error("cut")
			}
		})
	}
}

func TestNextNoAlloc(t *testing.T) {
	b, o := build(shape{payload: 60000, size: 1448, flags: wire.ACK})
	var s Splitter
	if n := testing.AllocsPerRun(100, func() {
		s.Start(b, &o)
		for {
			if _, _, ok := s.NextVnet(); !ok {
				return
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations a superpacket", n)
	}
}

func BenchmarkSplit(b *testing.B) {
	for _, c := range []struct {
		name string
		s    Splitter
	}{{"full", Splitter{}}, {"partial", Splitter{Partial: true}}} {
		b.Run(c.name, func(b *testing.B) {
			super, o := build(shape{payload: 65000, size: 1448, tcpOpts: 12, flags: wire.ACK})
			b.SetBytes(65000)
			for b.Loop() {
				c.s.Start(super, &o)
				for {
					if _, _, ok := c.s.Next(); !ok {
						break
					}
				}
			}
		})
	}
}

// FuzzSplit: whatever is cut, its segments are well-formed and carry the payload.
func FuzzSplit(f *testing.F) {
	for _, sh := range shapes()[:8] {
		b, o := build(sh)
		f.Add(b, o.GSOType, o.GSOSize)
	}
	f.Fuzz(func(t *testing.T, b []byte, typ uint8, size uint16) {
		var s Splitter
		if !s.Start(b, &ring.Offload{GSOType: typ, GSOSize: size}) {
			return
		}
		var whole wire.Headers
		wire.Parse(b, &whole)
		var payload []byte
		for {
			hdr, p, ok := s.Next()
			if !ok {
				break
			}
			if payload = append(payload, p...); len(p) > int(size) {
				t.Fatalf("segment of %d octets", len(p))
			}
			var h wire.Headers
			seg := bytes.Join([][]byte{hdr, p}, nil)
			if v := wire.Parse(seg, &h); v != wire.OK || h.Src != whole.Src || h.Dst != whole.Dst || !verified(seg, &h, &ring.Offload{}) {
				t.Fatalf("verdict %d of %x", v, seg)
			}
		}
		if !bytes.Equal(payload, b[whole.Payload:uint32(whole.Payload)+whole.PayloadLen]) {
			t.Fatal("payload differs")
		}
	})
}
