//go:build !purego

#include "textflag.h"

// sumNEON adds the 32-bit words of b to 64-bit lanes: 1<<32 is 1 modulo 0xffff, so they stand for
// the 16-bit words. The lanes together are <= len/4 * (1<<32 - 1) + 0xff < 1<<64 for len < 1<<34.
//
// The last bytes, fewer than a vector, are read by a vector that ends at the end of b, with what was
// already summed masked out. That vector keeps bytes at their parity only if the length is even, so
// an odd last byte, the low half of its little-endian word, is added first.

// 16 zero bytes, then 16 of 0xff: the 16 bytes at offset n select the last n bytes of a vector.
DATA ·lastBytes<>+16(SB)/8, $0xffffffffffffffff
DATA ·lastBytes<>+24(SB)/8, $0xffffffffffffffff
GLOBL ·lastBytes<>(SB), RODATA|NOPTR, $32

// func sumNEON(b []byte) uint64
TEXT ·sumNEON(SB), NOSPLIT, $0-32
	MOVD b_base+0(FP), R0
	MOVD b_len+8(FP), R1
	MOVD ZR, R2                // the odd byte
	VEOR V0.B16, V0.B16, V0.B16
	VEOR V1.B16, V1.B16, V1.B16
	VEOR V2.B16, V2.B16, V2.B16
	VEOR V3.B16, V3.B16, V3.B16
	TBZ  $0, R1, even
	SUB  $1, R1
	MOVBU (R0)(R1), R2

even:
	SUBS $64, R1
	BLT  small

loop:
	VLD1.P   64(R0), [V4.B16, V5.B16, V6.B16, V7.B16]
	VUADDW   V4.S2, V0.D2, V0.D2
	VUADDW2  V4.S4, V1.D2, V1.D2
	VUADDW   V5.S2, V2.D2, V2.D2
	VUADDW2  V5.S4, V3.D2, V3.D2
	VUADDW   V6.S2, V0.D2, V0.D2
	VUADDW2  V6.S4, V1.D2, V1.D2
	VUADDW   V7.S2, V2.D2, V2.D2
	VUADDW2  V7.S4, V3.D2, V3.D2
	SUBS     $64, R1
	BGE      loop

small:
	ADDS $48, R1               // bytes left - 16
	BLT  last

vector:
	VLD1.P   16(R0), [V4.B16]
	VUADDW   V4.S2, V0.D2, V0.D2
	VUADDW2  V4.S4, V1.D2, V1.D2
	SUBS     $16, R1
	BGE      vector

last:
	ADDS     $16, R1           // bytes left, 0..15
	BEQ      fold
	MOVD     $·lastBytes<>(SB), R3
	ADD      R1, R3
	VLD1     (R3), [V5.B16]
	ADD      R1, R0
	SUB      $16, R0
	VLD1     (R0), [V4.B16]
	VAND     V5.B16, V4.B16, V4.B16
	VUADDW   V4.S2, V2.D2, V2.D2
	VUADDW2  V4.S4, V3.D2, V3.D2

fold:
	VADD V1.D2, V0.D2, V0.D2
	VADD V3.D2, V2.D2, V2.D2
	VADD V2.D2, V0.D2, V0.D2
	VMOV V0.D[0], R4
	VMOV V0.D[1], R5
	ADD  R4, R2
	ADD  R5, R2
	MOVD R2, ret+24(FP)
	RET
