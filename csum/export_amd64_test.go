//go:build !purego

package csum

import "github.com/klauspost/cpuid/v2"

// implementations lists all code there is for this architecture, so that dispatch cannot hide any
// of it from the tests.
var implementations = []implementation{
	{name: "generic", min: 0, ok: true, sum: sumGeneric},
	{name: "AVX2", min: 32, ok: cpuid.CPU.Has(cpuid.AVX2), sum: sumAVX2},
	{name: "AVX512", min: 64, ok: cpuid.CPU.Supports(cpuid.AVX512F, cpuid.AVX512BW), sum: sumAVX512},
}
