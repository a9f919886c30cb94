package env_test

import (
	"testing"

	"penne/internal/stats"
	"penne/ring"
	"penne/shard/flow"
	"penne/test/guest"
)

// TestClaimLost: a frame goes to the shard that was first, once.
func TestClaimLost(t *testing.T) {
	const hash, first = 0x1234, 3
	g := guest.New(t, 64)
	e := g.Env
	e.Directory = flow.NewDirectory(64)
	var handed []*ring.Frame
	e.HandOff = func(f *ring.Frame, owner uint8) {
		if owner != first {
			t.Errorf("handed to %d", owner)
		}
		handed = append(handed, f)
	}
	e.Directory.Claim(hash, first)
	f := e.Pool.Get()
	if e.Claim(f, hash) || len(handed) != 1 || e.Count.Drops[stats.NoFlow] != 0 {
		t.Fatalf("%d frames handed on, drops %v", len(handed), e.Count.Drops)
	}
	free := e.Pool.Free()
	f.Handed = true
	if e.Claim(f, hash) || len(handed) != 1 || e.Count.Drops[stats.NoFlow] != 1 || e.Pool.Free() != free+1 {
		t.Errorf("%d frames handed on, %d free, drops %v", len(handed), e.Pool.Free()-free, e.Count.Drops)
	}
	if e.ClaimFlow(hash) != first {
		t.Error("claimed twice")
	}
	e.Directory.Release(hash, first)
	if e.ClaimFlow(hash) != e.Shard {
		t.Error("not claimed when free")
	}
	e.Release(hash)
}
