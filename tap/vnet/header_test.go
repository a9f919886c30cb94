package vnet

import (
	"bytes"
	"encoding/binary"
	"testing"

	"penne/csum"
	"penne/internal/wire"
	"penne/ring"
)

// TestHeaderBytes compares against a header laid out by hand from virtio 1.2.
func TestHeaderBytes(t *testing.T) {
	b, o := build(shape{payload: 3000, size: 1448, tcpOpts: 12, flags: wire.ACK})
	want := []byte{1, 1, 66, 0, 0xa8, 0x05, 34, 0, 16, 0}
	got := bytes.Repeat([]byte{0xff}, HdrLenMrg)
	PutHeader(got, b, &o)
	if !bytes.Equal(got[:HdrLen], want) || got[10] != 0 || got[11] != 0 {
		t.Errorf("got %x, want %x and zeros", got, want)
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	for _, sh := range shapes() {
		b, o := build(sh)
		whole := o
		whole.GSOType, whole.GSOSize = ring.GSONone, 0
		for _, want := range []ring.Offload{o, whole, {}} {
			var hdr [HdrLen]byte
			var got ring.Offload
			PutHeader(hdr[:], b, &want)
			if !ParseHeader(hdr[:], b, &got) || got != want {
				t.Errorf("%v: got %+v, want %+v", sh, got, want)
			}
			n := int(binary.LittleEndian.Uint16(hdr[2:]))
			if hdrs := len(b) - sh.payload; want.NeedsCsum && n != hdrs || n > len(b) {
				t.Errorf("%v: hdr_len %d, frame of %d with %d of headers", sh, n, len(b), hdrs)
			}
		}
	}
}

func TestParseHeader(t *testing.T) {
	tcp4, _ := build(shape{payload: 100, size: 10, flags: wire.ACK})
	udp4, _ := build(shape{payload: 100, size: 10, udp: true})
	tcp6, _ := build(shape{payload: 100, size: 10, v6: true, flags: wire.ACK})
	ext6, _ := build(shape{payload: 100, size: 10, v6: true, options: 8, flags: wire.ACK})
	for _, c := range []struct {
		name  string
		hdr   [HdrLen]byte
		frame []byte
		ok    bool
	}{
		{"nothing", [HdrLen]byte{}, tcp4, true},
		{"checksums verified by the sender", [HdrLen]byte{2}, tcp4, true},
		{"merged and verified", [HdrLen]byte{2, 1, 0, 0, 10}, tcp4, true},
		{"partial", [HdrLen]byte{1, 0, 0, 0, 0, 0, 34, 0, 16}, tcp4, true},
		{"sum ends with the frame", [HdrLen]byte{1, 0, 0, 0, 0, 0, byte(len(tcp4) - 4), 0, 2}, tcp4, true},
		{"sum past the frame", [HdrLen]byte{1, 0, 0, 0, 0, 0, byte(len(tcp4) - 4), 0, 3}, tcp4, false},
		{"sum past everything", [HdrLen]byte{1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, tcp4, false},
		{"sum of the Ethernet header", [HdrLen]byte{1, 0, 0, 0, 0, 0, 13, 0, 6}, tcp4, false},
		{"TSO4", [HdrLen]byte{1, 1, 0, 0, 10, 0, 34, 0, 16}, tcp4, true},
		{"TSO4 with ECN", [HdrLen]byte{1, 0x81, 0, 0, 10, 0, 34, 0, 16}, tcp4, true},
		{"ECN alone", [HdrLen]byte{0, 0x80}, tcp4, false},
		{"no size", [HdrLen]byte{1, 1, 0, 0, 0, 0, 34, 0, 16}, tcp4, false},
		{"UFO", [HdrLen]byte{1, 3, 0, 0, 10, 0, 34, 0, 6}, udp4, false},
		{"unknown type", [HdrLen]byte{1, 2, 0, 0, 10, 0, 34, 0, 16}, tcp4, false},
		{"TSO6 on IPv4", [HdrLen]byte{1, 4, 0, 0, 10, 0, 34, 0, 16}, tcp4, false},
		{"TSO4 on IPv6", [HdrLen]byte{1, 1, 0, 0, 10, 0, 54, 0, 16}, tcp6, false},
		{"TSO4 on UDP", [HdrLen]byte{1, 1, 0, 0, 10, 0, 34, 0, 16}, udp4, false},
		{"USO", [HdrLen]byte{1, 5, 0, 0, 10, 0, 34, 0, 6}, udp4, true},
		{"USO on TCP", [HdrLen]byte{1, 5, 0, 0, 10, 0, 34, 0, 16}, tcp4, false},
		{"TSO6", [HdrLen]byte{1, 4, 0, 0, 10, 0, 54, 0, 16}, tcp6, true},
		{"TSO6 behind extension headers", [HdrLen]byte{1, 4, 0, 0, 10, 0, 62, 0, 16}, ext6, true},
		{"no IP packet", [HdrLen]byte{0, 1, 0, 0, 10}, tcp4[:30], false},
		{"frame without Ethernet header", [HdrLen]byte{1, 0, 0, 0, 0, 0, 14}, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o ring.Offload
			if got := ParseHeader(c.hdr[:], c.frame, &o); got != c.ok {
				t.Errorf("%v: %+v", got, o)
			}
		})
	}
}

func TestComplete(t *testing.T) {
	for _, sh := range shapes() {
		b, o := build(sh)
		o.GSOType = ring.GSONone
		b = append(b, 0, 0, 0) // link padding
		var h wire.Headers
		if !Complete(b, &o) || o.NeedsCsum || wire.Parse(b, &h) != wire.OK || !verified(b, &h, &o) {
			t.Errorf("%v: wrong", sh)
		}
		before := bytes.Clone(b)
		if !Complete(b, &o) || !bytes.Equal(b, before) {
			t.Errorf("%v: not left alone", sh)
		}
	}
	b := make([]byte, 60)
	if o := (ring.Offload{NeedsCsum: true, CsumStart: 50, CsumOffset: 9}); Complete(b, &o) || !o.NeedsCsum {
		t.Error("field past the end")
	}
	if o := (ring.Offload{NeedsCsum: true, CsumStart: 65535, CsumOffset: 65535}); Complete(b, &o) {
		t.Error("field past everything")
	}
}

// TestCompleteZero: a sum of zero is sent as all ones, as zero means none.
func TestCompleteZero(t *testing.T) {
	b, o := build(shape{payload: 2, size: 1000, udp: true})
	o.GSOType = ring.GSONone
	p := b[len(b)-2:]
	p[0], p[1] = 0, 0
	binary.BigEndian.PutUint16(p, csum.Finish(csum.Sum(b[o.CsumStart:], 0)))
	if !Complete(b, &o) || binary.BigEndian.Uint16(b[40:]) != 0xffff {
		t.Errorf("sum %#x", b[40:42])
	}
}

func TestHeaderNoAlloc(t *testing.T) {
	b, o := build(shape{payload: 3000, size: 1000, udp: true})
	var hdr [HdrLen]byte
	if n := testing.AllocsPerRun(100, func() {
		PutHeader(hdr[:], b, &o)
		ParseHeader(hdr[:], b, &o)
		Complete(b, &o)
	}); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

// FuzzParseHeader: what is accepted can be completed and encoded again.
func FuzzParseHeader(f *testing.F) {
	for _, sh := range shapes()[:8] {
		b, o := build(sh)
		msg := make([]byte, HdrLen, HdrLen+len(b))
		PutHeader(msg, b, &o)
		f.Add(append(msg, b...))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		if len(msg) < HdrLen {
			return
		}
		hdr, frame := msg[:HdrLen], bytes.Clone(msg[HdrLen:])
		var o, again ring.Offload
		if !ParseHeader(hdr, frame, &o) {
			return
		}
		var out [HdrLen]byte
		PutHeader(out[:], frame, &o)
		if !ParseHeader(out[:], frame, &again) || again != o {
			t.Errorf("%+v became %+v", o, again)
		}
		if !Complete(frame, &o) {
			t.Errorf("%+v cannot be completed", o)
		}
	})
}
