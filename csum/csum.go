// Package csum computes the Internet checksum of RFC 1071: whole sums, partial sums and
// pseudo-headers. It owns no state, allocates nothing, and every function may be called from any goroutine.
//
// # Words
//
// A sum runs over 16-bit words in network byte order: the bytes b[0], b[1] are the word
// b[0]<<8 | b[1]. An odd last byte is the high half of a word whose low half is zero.
//
// A partial sum is a uint32 that is congruent to the true sum modulo 0xffff and zero only if every
// word that went into it is zero. Sum, Pseudo and Swap return partial sums ≤ 0xffff. Since
// 65537 * 0xffff == 1<<32 - 1, up to 65537 of them may be added with plain + before the uint32
// could overflow; any uint32 is good as the initial value of Sum.
//
// A checksum is the uint16 that goes into the header: the complement of the folded sum. The way is
//
//	s := csum.Pseudo(src, dst, proto, length)
//	s = csum.Sum(segment, s) // with the checksum field zero
//	binary.BigEndian.PutUint16(field, csum.Finish(s))
//
// A message whose checksum field is in place is intact if Fold(s) == 0xffff.
//
// # Implementations
//
// Slices shorter than vectorMin bytes (headers) take the generic code; longer ones the widest unit
// of the CPU: AVX-512, AVX2 or NEON. The build tag purego leaves only the generic code.
package csum

import (
	"encoding/binary"
	"math/bits"
)

// Sum returns the partial sum of b added to initial, ≤ 0xffff.
//
// To sum a message in pieces, chain the calls; a piece of odd length may only be the last one, else
// the pieces after it need Swap. Precondition: len(b) < 1<<34, which bounds the 64-bit accumulators.
func Sum(b []byte, initial uint32) uint32 {
	if len(b) >= vectorMin {
		return finishLE(sumVector(b), initial)
	}
	return finishLE(sumGeneric(b), initial)
}

// finishLE turns a sum over little-endian words, as the implementations return it, into a partial
// sum and adds initial. Swapping the bytes of a 16-bit word multiplies it by 256 modulo 0xffff, so
// one shift of the result swaps all words (RFC 1071 section 2B).
func finishLE(le uint64, initial uint32) uint32 {
	s := uint64(fold32(le))<<8 + uint64(initial) // < 1<<41
	return uint32(Fold(fold32(s)))
}

// Pseudo returns the partial sum, ≤ 0xffff, of the pseudo-header that TCP, UDP and ICMPv6 put before
// their own bytes (RFC 9293 section 3.1, RFC 768, RFC 8200 section 8.1). src and dst are addresses of
// one family, 4 or 16 bytes each in network byte order; other lengths panic. proto is the IP
// protocol number, length the bytes of transport header and payload.
func Pseudo(src, dst []byte, proto uint8, length uint32) uint32 {
	s := uint64(proto) + uint64(length)
	if len(src) == 4 && len(dst) == 4 {
		s += uint64(binary.BigEndian.Uint32(src)) + uint64(binary.BigEndian.Uint32(dst))
		return uint32(Fold(fold32(s))) // s <= 0xff + 3*(1<<32 - 1): no carry is lost
	}
	return uint32(Fold(fold32(pseudo6((*[16]byte)(src), (*[16]byte)(dst), s))))
}

// pseudo6 adds two IPv6 addresses to s with end-around carry.
func pseudo6(src, dst *[16]byte, s uint64) uint64 {
	var c uint64
	s, c = bits.Add64(s, binary.BigEndian.Uint64(src[:8]), 0)
	s, c = bits.Add64(s, binary.BigEndian.Uint64(src[8:]), c)
	s, c = bits.Add64(s, binary.BigEndian.Uint64(dst[:8]), c)
	s, c = bits.Add64(s, binary.BigEndian.Uint64(dst[8:]), c)
	s, c = bits.Add64(s, 0, c)
	return s + c
}

// Swap turns the partial sum of a piece that starts at an odd offset of its message into the one to
// add (RFC 1071 section 2B). The result is ≤ 0xffff.
func Swap(partial uint32) uint32 {
	return uint32(bits.ReverseBytes16(Fold(partial)))
}

// Fold reduces a partial sum to 16 bits with end-around carry. Only 0 folds to 0.
func Fold(partial uint32) uint16 {
	// The upper half becomes high + low + carry out of the lower half, which is low + high.
	return uint16((partial + bits.RotateLeft32(partial, 16)) >> 16)
}

// fold32 reduces a 64-bit accumulator to 32 bits as Fold reduces 32 to 16.
func fold32(s uint64) uint32 {
	return uint32((s + bits.RotateLeft64(s, 32)) >> 32)
}

// Finish returns the checksum of a partial sum: the value of the header field.
func Finish(partial uint32) uint16 {
	return ^Fold(partial)
}

// FinishUDP is Finish for UDP, where the field's zero means "no checksum" and a computed zero is
// sent as 0xffff (RFC 768; in IPv6 too, RFC 8200 section 8.1).
func FinishUDP(partial uint32) uint16 {
	if c := Finish(partial); c != 0 {
		return c
	}
	return 0xffff
}
