//go:build !purego

#include "textflag.h"

// Both functions see b as little-endian 64-bit words x = h<<32 + l and want the sum of all h and l:
// 1<<32 is 1 modulo 0xffff, so it stands for the sum of the 16-bit words. Per vector they do
//
//	S += x          (wraps modulo 1<<64)
//	H += x >> 32    (exact)
//
// and at the end the sum of l is S - H<<32 modulo 1<<64. It is exact because the sum of l is
// <= len/8 * (1<<32 - 1) < 1<<64; S may have wrapped any number of times. The result is
// sum(l) + sum(h) <= len/4 * (1<<32 - 1) < 1<<64 for len < 1<<34. Three operations a vector, no
// carries, no masks.
//
// The last bytes, fewer than a vector, are read by a vector that ends at the end of b, with what was
// already summed masked out. That vector keeps bytes at their parity only if the length is even, so
// an odd last byte, the low half of its little-endian word, is added first.

// 32 zero bytes, then 32 of 0xff: the 32 bytes at offset n select the last n bytes of a vector.
DATA ·lastBytes<>+32(SB)/8, $0xffffffffffffffff
DATA ·lastBytes<>+40(SB)/8, $0xffffffffffffffff
DATA ·lastBytes<>+48(SB)/8, $0xffffffffffffffff
DATA ·lastBytes<>+56(SB)/8, $0xffffffffffffffff
GLOBL ·lastBytes<>(SB), RODATA|NOPTR, $64

// func sumAVX2(b []byte) uint64
TEXT ·sumAVX2(SB), NOSPLIT, $0-32
	MOVQ b_base+0(FP), SI
	MOVQ b_len+8(FP), CX
	XORQ AX, AX                // the odd byte
	VPXOR Y0, Y0, Y0           // S in Y0..Y3
	VPXOR Y1, Y1, Y1
	VPXOR Y2, Y2, Y2
	VPXOR Y3, Y3, Y3
	VPXOR Y4, Y4, Y4           // H in Y4..Y7
	VPXOR Y5, Y5, Y5
	VPXOR Y6, Y6, Y6
	VPXOR Y7, Y7, Y7
	TESTQ $1, CX
	JZ    even2
	DECQ  CX
	MOVBLZX (SI)(CX*1), AX

even2:
	SUBQ $128, CX
	JB   small2

loop2:
	VMOVDQU (SI), Y8
	VMOVDQU 32(SI), Y9
	VMOVDQU 64(SI), Y10
	VMOVDQU 96(SI), Y11
	VPADDQ  Y8, Y0, Y0
	VPADDQ  Y9, Y1, Y1
	VPADDQ  Y10, Y2, Y2
	VPADDQ  Y11, Y3, Y3
	VPSRLQ  $32, Y8, Y8
	VPSRLQ  $32, Y9, Y9
	VPSRLQ  $32, Y10, Y10
	VPSRLQ  $32, Y11, Y11
	VPADDQ  Y8, Y4, Y4
	VPADDQ  Y9, Y5, Y5
	VPADDQ  Y10, Y6, Y6
	VPADDQ  Y11, Y7, Y7
	ADDQ    $128, SI
	SUBQ    $128, CX
	JAE     loop2

small2:
	ADDQ $96, CX               // bytes left - 32
	JL   last2

vector2:
	VMOVDQU (SI), Y8
	VPADDQ  Y8, Y0, Y0
	VPSRLQ  $32, Y8, Y8
	VPADDQ  Y8, Y4, Y4
	ADDQ    $32, SI
	SUBQ    $32, CX
	JGE     vector2

last2:
	ADDQ    $32, CX            // bytes left, 0..31
	JZ      fold2
	LEAQ    ·lastBytes<>(SB), DX
	VMOVDQU (DX)(CX*1), Y9
	VPAND   -32(SI)(CX*1), Y9, Y8
	VPADDQ  Y8, Y1, Y1
	VPSRLQ  $32, Y8, Y8
	VPADDQ  Y8, Y5, Y5

fold2:
	VPADDQ       Y1, Y0, Y0
	VPADDQ       Y3, Y2, Y2
	VPADDQ       Y5, Y4, Y4
	VPADDQ       Y7, Y6, Y6
	VPADDQ       Y2, Y0, Y0    // S
	VPADDQ       Y6, Y4, Y4    // H
	VPSLLQ       $32, Y4, Y5
	VPSUBQ       Y5, Y4, Y4    // H - H<<32, to be added to S lane by lane, modulo 1<<64
	VPADDQ       Y4, Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	VPADDQ       X1, X0, X0
	VPSRLDQ      $8, X0, X1
	VPADDQ       X1, X0, X0
	VMOVQ        X0, BX
	ADDQ         BX, AX
	MOVQ         AX, ret+24(FP)
	VZEROUPPER
	RET

// func sumAVX512(b []byte) uint64
TEXT ·sumAVX512(SB), NOSPLIT, $0-32
	MOVQ b_base+0(FP), SI
	MOVQ b_len+8(FP), CX
	XORQ AX, AX                // the odd byte
	VPXORQ Z0, Z0, Z0          // S in Z0..Z3
	VPXORQ Z1, Z1, Z1
	VPXORQ Z2, Z2, Z2
	VPXORQ Z3, Z3, Z3
	VPXORQ Z4, Z4, Z4          // H in Z4..Z7
	VPXORQ Z5, Z5, Z5
	VPXORQ Z6, Z6, Z6
	VPXORQ Z7, Z7, Z7
	TESTQ $1, CX
	JZ    even5
	DECQ  CX
	MOVBLZX (SI)(CX*1), AX

even5:
	SUBQ $256, CX
	JB   small5

loop5:
	VMOVDQU64 (SI), Z8
	VMOVDQU64 64(SI), Z9
	VMOVDQU64 128(SI), Z10
	VMOVDQU64 192(SI), Z11
	VPADDQ    Z8, Z0, Z0
	VPADDQ    Z9, Z1, Z1
	VPADDQ    Z10, Z2, Z2
	VPADDQ    Z11, Z3, Z3
	VPSRLQ    $32, Z8, Z8
	VPSRLQ    $32, Z9, Z9
	VPSRLQ    $32, Z10, Z10
	VPSRLQ    $32, Z11, Z11
	VPADDQ    Z8, Z4, Z4
	VPADDQ    Z9, Z5, Z5
	VPADDQ    Z10, Z6, Z6
	VPADDQ    Z11, Z7, Z7
	ADDQ      $256, SI
	SUBQ      $256, CX
	JAE       loop5

small5:
	ADDQ $192, CX              // bytes left - 64
	JL   last5

vector5:
	VMOVDQU64 (SI), Z8
	VPADDQ    Z8, Z0, Z0
	VPSRLQ    $32, Z8, Z8
	VPADDQ    Z8, Z4, Z4
	ADDQ      $64, SI
	SUBQ      $64, CX
	JGE       vector5

last5:
	ADDQ        $64, CX        // bytes left, 0..63
	JZ          fold5
	MOVQ        $-1, DX
	SHRQ        CX, DX
	NOTQ        DX             // the upper CX bits
	KMOVQ       DX, K1
	VMOVDQU8.Z  -64(SI)(CX*1), K1, Z8
	VPADDQ      Z8, Z1, Z1
	VPSRLQ      $32, Z8, Z8
	VPADDQ      Z8, Z5, Z5

fold5:
	VPADDQ        Z1, Z0, Z0
	VPADDQ        Z3, Z2, Z2
	VPADDQ        Z5, Z4, Z4
	VPADDQ        Z7, Z6, Z6
	VPADDQ        Z2, Z0, Z0   // S
	VPADDQ        Z6, Z4, Z4   // H
	VPSLLQ        $32, Z4, Z5
	VPSUBQ        Z5, Z4, Z4   // H - H<<32, to be added to S lane by lane, modulo 1<<64
	VPADDQ        Z4, Z0, Z0
	VEXTRACTI64X4 $1, Z0, Y1
	VPADDQ        Y1, Y0, Y0
	VEXTRACTI128  $1, Y0, X1
	VPADDQ        X1, X0, X0
	VPSRLDQ       $8, X0, X1
	VPADDQ        X1, X0, X0
	VMOVQ         X0, BX
	ADDQ          BX, AX
	MOVQ          AX, ret+24(FP)
	VZEROUPPER
	RET
