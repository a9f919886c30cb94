package csum

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"penne/internal/sys"
)

// implementation is one way to sum, with the shortest slice it takes and whether this CPU has it.
type implementation struct {
	name string
	min  int
	ok   bool
	sum  func([]byte) uint64
}

const (
	maxLen    = 4096
	maxOffset = 64
)

// forEach runs f for each implementation that this CPU can run, and skips the others loudly.
func forEach(t *testing.T, f func(t *testing.T, im implementation)) {
	for _, im := range implementations {
		t.Run(im.name, func(t *testing.T) {
			if !im.ok {
				t.Skipf("this CPU has no %s", im.name)
			}
			f(t, im)
		})
	}
}

// naive is RFC 1071 section 1 to the letter.
func naive(b []byte, initial uint32) uint16 {
	s := uint64(initial)
	for ; len(b) >= 2; b = b[2:] {
		s += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// patterns returns buffers that between them raise every carry, some and none.
func patterns(n int) map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, n)
	dense := make([]byte, n)
	for i := range random {
		random[i] = byte(r.Uint32())
		dense[i] = 0xff - byte(r.Uint32N(64)/63)
	}
	return map[string][]byte{
		"random": random,
		"dense":  dense,
		"ones":   bytes.Repeat([]byte{0xff}, n),
		"zero":   make([]byte, n),
	}
}

// everyLength checks sum against want for all lengths from min to maxLen at offsets below offsets of
// an aligned buffer. The bytes are the same at every offset, so want is asked once a length.
func everyLength(t *testing.T, im implementation, offsets int, want func([]byte) uint32) {
	buf := make([]byte, maxLen+maxOffset)
	for name, data := range patterns(maxLen) {
		sums := make([]uint32, maxLen+1)
		for n := range sums {
			sums[n] = want(data[:n])
		}
		for off := range offsets {
			copy(buf[off:], data)
			for n := im.min; n <= maxLen; n++ {
				if got := finishLE(im.sum(buf[off:off+n]), 0); got != sums[n] {
					t.Fatalf("%s, %d bytes at %d: got %#x, want %#x", name, n, off, got, sums[n])
				}
			}
		}
	}
}

func TestGenericAgainstNaive(t *testing.T) {
	im := implementation{name: "generic", sum: sumGeneric}
	everyLength(t, im, 8, func(b []byte) uint32 { return uint32(naive(b, 0)) })
}

func TestAgainstGeneric(t *testing.T) {
	forEach(t, func(t *testing.T, im implementation) {
		offsets := maxOffset
		if im.name == "generic" {
			offsets = 1 // only to see the test itself agree
		}
		everyLength(t, im, offsets, func(b []byte) uint32 { return finishLE(sumGeneric(b), 0) })
	})
}

// TestEachByteOnce moves a single byte through slices whose surroundings are not zero: a byte left
// out, counted twice, at the wrong parity, or taken from outside shows.
func TestEachByteOnce(t *testing.T) {
	const last = 3*256 + 70 // some turns of every loop and all tails
	forEach(t, func(t *testing.T, im implementation) {
		buf := bytes.Repeat([]byte{0x55}, last+128)
		for n := im.min; n <= last; n++ {
			b := buf[64 : 64+n]
			clear(b)
			for i := range b {
				b[i] = 1
				if got, want := finishLE(im.sum(b), 0), uint32(0x100)>>(i%2*8); got != want {
					t.Fatalf("%d bytes, 1 at %d: got %#x, want %#x", n, i, got, want)
				}
				b[i] = 0
			}
		}
	})
}

// TestPageEdges sums slices that end, and slices that begin, where the next byte faults.
func TestPageEdges(t *testing.T) {
	page := syscall.Getpagesize()
	size := (maxLen + page - 1) / page * page
	m, err := sys.MapReserve(size + 2*page)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Unmap(m)
	for _, guard := range [][]byte{m[:page], m[page+size:]} {
		if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	mid := m[page : page+size]
	copy(mid, patterns(size)["random"])
	forEach(t, func(t *testing.T, im implementation) {
		for n := im.min; n <= maxLen; n++ {
			for where, b := range map[string][]byte{"start": mid[:n], "end": mid[size-n:]} {
				if got, want := finishLE(im.sum(b), 0), uint32(naive(b, 0)); got != want {
					t.Fatalf("%d bytes at the %s: got %#x, want %#x", n, where, got, want)
				}
			}
		}
	})
}

// TestLargest sums what overflows a 32-bit lane many times over, and 64 bits of the S of the
// assembly's comment: 16 MiB of ones.
func TestLargest(t *testing.T) {
	ones := bytes.Repeat([]byte{0xff}, 16<<20)
	forEach(t, func(t *testing.T, im implementation) {
		for _, n := range []int{65535, 65536, len(ones) - 1, len(ones)} {
			if got, want := finishLE(im.sum(ones[:n]), 0), uint32(naive(ones[:n], 0)); got != want {
				t.Errorf("%d bytes: got %#x, want %#x", n, got, want)
			}
		}
	})
}

func FuzzImplementations(f *testing.F) {
	f.Add([]byte{}, uint8(0), uint32(0))
	f.Add([]byte{1}, uint8(1), ^uint32(0))
	f.Add(bytes.Repeat([]byte{0xff}, 513), uint8(3), uint32(0xffff))
	f.Add(patterns(1500)["random"], uint8(63), uint32(1))
	f.Fuzz(func(t *testing.T, data []byte, off uint8, initial uint32) {
		b := append(make([]byte, off%maxOffset), data...)[off%maxOffset:]
		want := uint32(naive(b, initial))
		for _, im := range implementations {
			if !im.ok || len(b) < im.min {
				continue
			}
			if got := finishLE(im.sum(b), initial); got != want {
				t.Errorf("%s: got %#x, want %#x", im.name, got, want)
			}
		}
		if got := Sum(b, initial); got != want {
			t.Errorf("Sum: got %#x, want %#x", got, want)
		}
	})
}

func BenchmarkImplementations(b *testing.B) {
	for _, im := range implementations {
		for _, n := range []int{20, 40, 64, 96, 128, 256, 512, 1500, 9000, 65536} {
			b.Run(fmt.Sprintf("%s/%d", im.name, n), func(b *testing.B) {
				if !im.ok || n < im.min {
					b.Skipf("%s cannot sum %d bytes here", im.name, n)
				}
				buf := patterns(n)["random"]
				b.SetBytes(int64(n))
				var s uint32
				for b.Loop() {
					s = finishLE(im.sum(buf), s)
				}
			})
		}
	}
}
