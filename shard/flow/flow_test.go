package flow

import (
	"math/rand/v2"
	"sync"
	"testing"

	"penne/internal/wire"
)

func key(n int) Key {
	return Key{Guest: wire.Addr{15: byte(n)}, Remote: wire.Addr{0: byte(n >> 8), 3: byte(n >> 16)}, GuestPort: uint16(n), Proto: 6}
}

func TestTableAgainstMap(t *testing.T) {
	seed := NewSeed()
	tab := NewTable(500, &seed)
	want := map[Key]int32{}
	r := rand.New(rand.NewPCG(1, 2))
	for range 200000 {
		k := key(r.IntN(1500))
		h := tab.Hash(&k)
		slot, exists := want[k]
		switch got := tab.Find(&k, h); {
		case exists && got != slot, !exists && got != -1:
			t.Fatalf("found %d, want %d (%v)", got, slot, exists)
		case exists && r.IntN(2) == 0:
			gen := tab.Gen(slot)
			tok := NewToken(KindTCP, gen, slot)
			if !tab.Live(tok) {
				t.Fatal("live flow said dead")
			}
			tab.Remove(slot)
			if tab.Live(tok) {
				t.Fatal("ended flow said live")
			}
			delete(want, k)
		case !exists:
			if s := tab.Insert(&k, h); s >= 0 {
				want[k] = s
			} else if len(want) != len(tab.keys) {
				t.Fatalf("full at %d of %d", len(want), len(tab.keys))
			}
		}
		if tab.Len() != len(want) {
			t.Fatalf("length %d, want %d", tab.Len(), len(want))
		}
	}
}

func TestTableLowestFirst(t *testing.T) {
	seed := NewSeed()
	tab := NewTable(70, &seed)
	for i := range 70 {
		k := key(i)
		if s := tab.Insert(&k, tab.Hash(&k)); s != int32(i) {
			t.Fatalf("slot %d for flow %d", s, i)
		}
	}
	k := key(1000)
	if s := tab.Insert(&k, tab.Hash(&k)); s != -1 {
		t.Fatalf("slot %d from a full table", s)
	}
	tab.Remove(66)
	tab.Remove(5)
	if s := tab.Insert(&k, tab.Hash(&k)); s != 5 {
		t.Fatalf("slot %d, want the lowest, 5", s)
	}
}

func TestTableNoAlloc(t *testing.T) {
	seed := NewSeed()
	tab := NewTable(64, &seed)
	k := key(7)
	if n := testing.AllocsPerRun(1000, func() {
		h := tab.Hash(&k)
		s := tab.Insert(&k, h)
		tab.Find(&k, h)
		tab.Remove(s)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// TestDirectoryOneOwner lets shards race for the same flows: exactly one may
// win each, and all must agree who.
func TestDirectoryOneOwner(t *testing.T) {
	const shards, flows = 4, 2000
	d := NewDirectory(flows)
	seed := NewSeed()
	var won [shards][flows]uint8
	var wg sync.WaitGroup
	for s := range uint8(shards) {
		wg.Go(func() {
			for i := range flows {
				k := key(i)
				won[s][i] = d.Claim(seed.Hash(&k), s)
			}
		})
	}
	wg.Wait()
	for i := range flows {
		k := key(i)
		owner, ok := d.Owner(seed.Hash(&k))
		if !ok {
			t.Fatalf("flow %d has no owner", i)
		}
		for s := range shards {
			if won[s][i] != owner {
				t.Fatalf("flow %d: shard %d was told %d, owner is %d", i, s, won[s][i], owner)
			}
		}
		d.Release(seed.Hash(&k), owner)
		if _, ok := d.Owner(seed.Hash(&k)); ok {
			t.Fatalf("flow %d owned after its release", i)
		}
	}
}

// TestDirectoryHasRoomInFullBuckets claims many flows of one bucket: none is
// left out, and all places can be used again.
func TestDirectoryHasRoomInFullBuckets(t *testing.T) {
	const flows = 64
	d := NewDirectory(flows)
	hash := func(i int) uint64 { return uint64(i+1) << 32 } // the low bits choose the bucket
	for range 3 {
		for i := range flows {
			if owner := d.Claim(hash(i), uint8(i%4)); owner != uint8(i%4) {
				t.Fatalf("flow %d claimed by %d", i, owner)
			}
		}
		for i := range flows {
			if owner := d.Claim(hash(i), 9); owner != uint8(i%4) {
				t.Fatalf("flow %d claimed again, by %d", i, owner)
			}
			if owner, ok := d.Owner(hash(i)); !ok || owner != uint8(i%4) {
				t.Fatalf("owner of flow %d: %d, %v", i, owner, ok)
			}
		}
		for i := range flows {
			d.Release(hash(i), 9) // not its claim
			d.Release(hash(i), uint8(i%4))
			if _, ok := d.Owner(hash(i)); ok {
				t.Fatalf("flow %d owned after its release", i)
			}
		}
	}
	if n := d.buckets[0].lock.count(); n != 0 {
		t.Errorf("%d entries spilled in the end", n)
	}
}

func BenchmarkHash(b *testing.B) {
	seed, k := NewSeed(), key(5)
	for b.Loop() {
		seed.Hash(&k)
	}
}

func BenchmarkFind(b *testing.B) {
	seed := NewSeed()
	tab := NewTable(1<<14, &seed)
	for i := range 1 << 13 {
		k := key(i)
		tab.Insert(&k, tab.Hash(&k))
	}
	i := 0
	for b.Loop() {
		k := key(i & 0x1fff)
		tab.Find(&k, tab.Hash(&k))
		i++
	}
}
