package csum

import (
	"encoding/binary"
	"math/bits"
)

// sumGeneric is the reference and the path of headers. It returns the sum of b over little-endian
// words as 64 bits congruent to it modulo 0xffff, zero only if b is all zero. 2^16 is 1 modulo
// 0xffff, so 64-bit words may be added in place of 16-bit ones as long as carries come back in.
func sumGeneric(b []byte) uint64 {
	var s, c uint64
	for len(b) >= 64 {
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[8:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[16:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[24:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[32:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[40:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[48:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[56:]), c)
		b = b[64:]
	}
	// Steps and not a loop: a header passes two or three of them, each branch with its own history.
	if len(b) >= 32 {
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[8:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[16:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[24:]), c)
		b = b[32:]
	}
	if len(b) >= 16 {
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[8:]), c)
		b = b[16:]
	}
	if len(b) >= 8 {
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b), c)
		b = b[8:]
	}
	s, c = bits.Add64(s, tail(b), c)
	s, c = bits.Add64(s, 0, c) // s may have been all ones
	return s + c               // now s <= 1<<64 - 2 if c == 1
}

// tail returns up to 7 bytes as the low end of a little-endian 64-bit word.
func tail(b []byte) uint64 {
	var s uint64
	if len(b) >= 4 {
		s = uint64(binary.LittleEndian.Uint32(b))
		b = b[4:]
	}
	// Any even position is as good as another for a 16-bit word, so these may overlap the first.
	if len(b) >= 2 {
		s += uint64(binary.LittleEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint64(b[0])
	}
	return s // <= 1<<32 - 1 + 0xffff + 0xff
}
