package csum

import (
	"encoding/binary"
	"fmt"
	"testing"
)

func TestSum(t *testing.T) {
	for name, buf := range patterns(2048) {
		for n := range len(buf) + 1 {
			for _, initial := range []uint32{0, 1, 0xffff, 0x10000, 0xfffeffff, ^uint32(0)} {
				if got, want := Sum(buf[:n], initial), uint32(naive(buf[:n], initial)); got != want {
					t.Fatalf("%s, %d bytes, initial %#x: got %#x, want %#x", name, n, initial, got, want)
				}
			}
		}
	}
}

// TestKnown holds sums worked out elsewhere.
func TestKnown(t *testing.T) {
	// RFC 1071 section 3, the example: words 0001 f203 f4f5 f6f7, sum ddf2.
	if got := Fold(Sum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}, 0)); got != 0xddf2 {
		t.Errorf("RFC 1071 example: got %#x, want 0xddf2", got)
	}
	// An IPv4 header often used as an example: 192.168.0.1 to 192.168.0.199, UDP, checksum b861.
	header := []byte{0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7}
	if got := Finish(Sum(header, 0)); got != 0xb861 {
		t.Errorf("IPv4 header: got %#x, want 0xb861", got)
	}
	header[10], header[11] = 0xb8, 0x61
	if got := Fold(Sum(header, 0)); got != 0xffff {
		t.Errorf("IPv4 header with its checksum: got %#x, want 0xffff", got)
	}
}

func TestSumInPieces(t *testing.T) {
	buf := patterns(700)["random"]
	want := Sum(buf, 0)
	for cut := range len(buf) + 1 {
		head, rest := buf[:cut], buf[cut:]
		got := Sum(head, 0)
		if cut%2 == 0 {
			got = Sum(rest, got)
		} else {
			got = Sum(nil, got+Swap(Sum(rest, 0)))
		}
		if got != want {
			t.Fatalf("cut at %d: got %#x, want %#x", cut, got, want)
		}
	}
}

func TestPseudo(t *testing.T) {
	for name, buf := range patterns(32) {
		for _, n := range []int{4, 16} {
			for _, length := range []uint32{0, 8, 0xffff, 0x10000, ^uint32(0)} {
				src, dst := buf[:n], buf[16:16+n]
				whole := append(append([]byte{}, src...), dst...)
				whole = binary.BigEndian.AppendUint32(whole, length)
				whole = append(whole, 0, 0, 0, 6)
				if got, want := Pseudo(src, dst, 6, length), uint32(naive(whole, 0)); got != want {
					t.Errorf("%s, %d-byte addresses, length %d: got %#x, want %#x", name, n, length, got, want)
				}
			}
		}
	}
}

func TestPseudoRefusesMixedFamilies(t *testing.T) {
	for _, l := range [][2]int{{4, 16}, {16, 4}, {0, 0}, {6, 6}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("addresses of %d and %d bytes: no panic", l[0], l[1])
				}
			}()
			Pseudo(make([]byte, l[0]), make([]byte, l[1]), 17, 8)
		}()
	}
}

func TestFoldAllHalves(t *testing.T) {
	for _, hi := range []uint32{0, 1, 0x7fff, 0xfffe, 0xffff} {
		for lo := range uint32(0x10000) {
			want := hi + lo
			if want > 0xffff {
				want -= 0xffff
			}
			if got := Fold(hi<<16 | lo); uint32(got) != want {
				t.Fatalf("Fold(%#x): got %#x, want %#x", hi<<16|lo, got, want)
			}
		}
	}
}

func TestFinishUDP(t *testing.T) {
	for s, want := range map[uint32]uint16{0: 0xffff, 0xffff: 0xffff, 0xfffe: 1, 0x1234: 0xedcb} {
		if got := FinishUDP(s); got != want {
			t.Errorf("FinishUDP(%#x): got %#x, want %#x", s, got, want)
		}
	}
}

var sink uint32

func TestSumNoAlloc(t *testing.T) {
	payload := make([]byte, 65536)
	allocs := testing.AllocsPerRun(100, func() {
		var header [60]byte // stays on the stack only if no implementation lets it escape
		var large [512]byte
		header[3], large[3] = byte(sink), byte(sink)
		sink += Sum(header[:], Sum(large[:], Sum(payload, 0)))
	})
	if allocs != 0 {
		t.Errorf("Sum: %v allocations", allocs)
	}
}

func TestPseudoNoAlloc(t *testing.T) {
	allocs := testing.AllocsPerRun(100, func() {
		var a4 [4]byte
		var a6 [16]byte
		a4[0], a6[0] = byte(sink), byte(sink)
		sink += Pseudo(a4[:], a4[:], 6, 20) + Pseudo(a6[:], a6[:], 6, 20)
		sink += Swap(sink)
	})
	if allocs != 0 {
		t.Errorf("Pseudo and Swap: %v allocations", allocs)
	}
}

func BenchmarkSum(b *testing.B) {
	for _, n := range []int{20, 40, 60, 64, 512, 1500, 9000, 65536} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			buf := patterns(n)["random"]
			b.SetBytes(int64(n))
			var s uint32
			for b.Loop() {
				s = Sum(buf, s)
			}
		})
	}
}

func BenchmarkPseudo(b *testing.B) {
	addr := patterns(32)["random"]
	for _, n := range []int{4, 16} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				sink = Pseudo(addr[:n], addr[16:16+n], 6, 20)
			}
		})
	}
}
