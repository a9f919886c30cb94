//go:build purego || !(amd64 || arm64)

package csum

import "math"

// vectorMin is never reached: there is no vector unit to hand over to.
const vectorMin = math.MaxInt

func sumVector(b []byte) uint64 { return sumGeneric(b) }
