package wheel

import (
	"math/rand/v2"
	"testing"
)

// TestAgainstReference drives random sets, cancels and steps, and compares
// with a plain map: nothing early, nothing later than its tick, nothing lost.
func TestAgainstReference(t *testing.T) {
	for _, start := range []int64{0, 12345, (1<<30 - 3) << tickShift, 1 << 55} {
		for seed := range uint64(20) {
			drive(t, start, rand.New(rand.NewPCG(seed, 7)))
		}
	}
}

func drive(t *testing.T, now int64, r *rand.Rand) {
	t.Helper()
	const ids = 200
	w := New(ids, now)
	want := map[int32]int64{}
	var out [7]int32
	for range 3000 {
		switch r.IntN(4) {
		case 0, 1:
			id, after := int32(r.IntN(ids)), r.Int64N(1<<(20+r.IntN(30)))
			w.Set(id, now+after)
			want[id] = now + after
		case 2:
			id := int32(r.IntN(ids))
			w.Cancel(id)
			delete(want, id)
		default:
			if at, ok := w.Next(); ok != (len(want) > 0) {
				t.Fatalf("Next ok %v with %d armed", ok, len(want))
			} else if ok && r.IntN(2) == 0 {
				now = max(now, at)
			} else {
				now += r.Int64N(1 << (17 + r.IntN(28)))
			}
			for n := len(out); n == len(out); {
				n = w.Expire(now, out[:])
				for _, id := range out[:n] {
					if want[id] > now {
						t.Fatalf("id %d fired %d ns early", id, want[id]-now)
					}
					delete(want, id)
				}
			}
			for id, at := range want {
				if now-at > Tick {
					t.Fatalf("id %d is %d ns late", id, now-at)
				}
				if w.nodes[id].bucket == 0 {
					t.Fatalf("id %d lost", id)
				}
			}
		}
	}
}

func TestNoAlloc(t *testing.T) {
	w := New(64, 0)
	var out [8]int32
	now := int64(0)
	if n := testing.AllocsPerRun(1000, func() {
		w.Set(3, now+5*Tick)
		w.Set(4, now+500*Tick)
		now += 100 * Tick
		w.Expire(now, out[:])
		w.Next()
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkSetExpire(b *testing.B) {
	w := New(1024, 0)
	var out [64]int32
	for i := range b.N {
		now := int64(i) * 1000
		w.Set(int32(i&1023), now+int64(i%97)*Tick)
		w.Expire(now, out[:])
	}
}
