package steer

import (
	"math/rand/v2"
	"testing"

	"penne/shard/flow"
)

// BenchmarkProgram is the cost of a frame in the kernel, TCP over IPv6 being the longest way.
func BenchmarkProgram(b *testing.B) {
	seed := flow.NewSeed()
	prog := kernelProgram(b, 4, &seed)
	frame := frames(rand.New(rand.NewPCG(1, 2)))["TCP over IPv6"]
	_, perRun, err := prog.Benchmark(frame, b.N, b.ResetTimer)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(perRun.Nanoseconds()), "ns/frame")
}
