//go:build !purego

package csum

import "github.com/klauspost/cpuid/v2"

// vectorMin is the length in bytes from which the vector code is the faster one, call and folding
// of eight lanes included.
const vectorMin = 128

type unit uint8

const (
	unitGeneric unit = iota
	unitAVX2
	unitAVX512
)

// best is the widest unit that this CPU has. It is a number for a switch and not a function
// pointer because escape analysis cannot see through a pointer: every header summed on the stack
// of a caller would move to the heap.
var best = pick(&cpuid.CPU)

// pick chooses from the features that the CPU has and the operating system saves. VBMI2 is not
// used: it stands for Ice Lake, Zen 4 or later, where 512-bit adds do not lower the clock.
func pick(cpu *cpuid.CPUInfo) unit {
	switch {
	case cpu.Supports(cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512VBMI2):
		return unitAVX512
	case cpu.Has(cpuid.AVX2):
		return unitAVX2
	}
	return unitGeneric
}

// sumVector is sumGeneric for len(b) >= vectorMin.
func sumVector(b []byte) uint64 {
	switch best {
	case unitAVX512:
		return sumAVX512(b)
	case unitAVX2:
		return sumAVX2(b)
	}
	return sumGeneric(b)
}

// sumAVX2 is sumGeneric for 32 <= len(b) < 1<<34. It reads no byte outside b.
//
//go:noescape
func sumAVX2(b []byte) uint64

// sumAVX512 is sumGeneric for 64 <= len(b) < 1<<34. It reads no byte outside b. It needs AVX-512F and BW.
//
//go:noescape
func sumAVX512(b []byte) uint64
