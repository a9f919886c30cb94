//go:build !purego

package csum

// vectorMin is the length in bytes from which the vector code is the faster one.
const vectorMin = 128

// sumVector is sumGeneric for len(b) >= vectorMin. NEON needs no probing: it belongs to the base of
// ARMv8-A that Go's arm64 port requires.
func sumVector(b []byte) uint64 { return sumNEON(b) }

// sumNEON is sumGeneric for 16 <= len(b) < 1<<34. It reads no byte outside b.
//
//go:noescape
func sumNEON(b []byte) uint64
