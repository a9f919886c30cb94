package ring

import (
	"runtime"
	"sync"
	"testing"
)

func newPool(t testing.TB, slots int, home uint8) *Pool {
	t.Helper()
	a, err := NewArena(slots, home)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return NewPool(a)
}

func TestPoolGivesEachFrameOnce(t *testing.T) {
	p := newPool(t, 10, 3)
	seen := map[*Frame]bool{}
	for f := p.Get(); f != nil; f = p.Get() {
		if seen[f] || f.Home() != 3 || len(f.Slot()) != SlotSize {
			t.Fatalf("frame %p: seen %v, home %d, slot of %d", f, seen[f], f.Home(), len(f.Slot()))
		}
		seen[f] = true
	}
	if len(seen) != 10 || p.Free() != 0 || p.Size() != 10 {
		t.Fatalf("%d frames, %d free of %d", len(seen), p.Free(), p.Size())
	}
	for f := range seen {
		p.Put(f)
	}
	if p.Free() != 10 {
		t.Fatalf("%d free after all came back", p.Free())
	}
}

func TestPoolKeepsForeignFramesApart(t *testing.T) {
	a, b := newPool(t, 2, 0), newPool(t, 2, 1)
	f := a.Get()
	f.Handed = true
	b.Put(f)
	if b.Free() != 2 || b.Foreign != f || f.Handed {
		t.Fatalf("free %d, foreign %p, handed %v", b.Free(), b.Foreign, f.Handed)
	}
}

func TestTrimKeepsWarmFrames(t *testing.T) {
	p := newPool(t, 4, 0)
	var all []*Frame
	for f := p.Get(); f != nil; f = p.Get() {
		f.Slot()[0] = 1
		all = append(all, f)
	}
	for _, f := range all {
		p.Put(f)
	}
	p.Trim(1)
	for i, f := range all {
		want := byte(0)
		if i == len(all)-1 { // put last, so used next
			want = 1
		}
		if f.Slot()[0] != want {
			t.Errorf("frame %d reads %d, want %d", i, f.Slot()[0], want)
		}
	}
}

// Trim gives back a free frame's pages, all of them, and none of its neighbour's.
func TestTrimSparesNeighbours(t *testing.T) {
	p := newPool(t, 2, 0)
	free, used := p.Get(), p.Get()
	for i := range SlotSize {
		free.Slot()[i], used.Slot()[i] = 1, 2
	}
	p.Put(free)
	p.Trim(0)
	for i := range SlotSize {
		if free.Slot()[i] != 0 || used.Slot()[i] != 2 {
			t.Fatalf("octet %d: %d in the free slot, %d in the used one", i, free.Slot()[i], used.Slot()[i])
		}
	}
}

// So it is on machines with larger pages: slots share none.
func TestSlotsHaveOwnPages(t *testing.T) {
	for _, page := range []int{4 << 10, 16 << 10, 64 << 10} {
		a, err := newArena(9, 0, page)
		if err != nil {
			t.Fatal(err)
		}
		stride := len(a.mem) / len(a.frames)
		for i := range a.frames {
			if s := a.frames[i].slot; stride%page != 0 || len(s) != SlotSize || len(s) > stride || &s[0] != &a.mem[i*stride] {
				t.Errorf("%d KiB pages: slot %d of %d octets does not start at %d", page>>10, i, len(s), i*stride)
			}
		}
		a.Close()
	}
}

type countingSink struct{ batches, frames int }

func (s *countingSink) Send(f []*Frame) { s.batches++; s.frames += len(f) }

func TestOutSendsFullBatches(t *testing.T) {
	var sink countingSink
	o := NewOut(newPool(t, 8, 0), 4, &sink)
	for range 10 {
		o.Next().Build(54, 0)
		o.Commit(1)
	}
	if sink.batches != 2 || sink.frames != 8 || o.Room() != 2 {
		t.Fatalf("%d batches of %d frames, room %d", sink.batches, sink.frames, o.Room())
	}
	o.Flush()
	o.Flush()
	if sink.batches != 3 || sink.frames != 10 {
		t.Fatalf("after Flush: %d batches of %d frames", sink.batches, sink.frames)
	}
}

func TestBuildPutsHeadersBeforePayload(t *testing.T) {
	f := newPool(t, 1, 0).Get()
	copy(f.PayloadArea(), "payload")
	h := f.Build(54, 7)
	h[0], h[53] = 'a', 'z'
	b := f.Bytes()
	if len(b) != 61 || b[0] != 'a' || b[53] != 'z' || string(b[54:]) != "payload" {
		t.Fatalf("frame %q", b)
	}
	if last := f.PayloadArea(); len(last) != MaxPayload || cap(f.Slot())-PayloadOffset < MaxPayload {
		t.Fatalf("payload area of %d", len(last))
	}
}

// TestHandoffKeepsOrder passes numbered frames between two goroutines.
func TestHandoffKeepsOrder(t *testing.T) {
	const n = 100000
	frames := make([]Frame, n)
	h := NewHandoff(100)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range frames {
			for !h.Push(&frames[i]) {
				runtime.Gosched()
			}
		}
	})
	for i := range frames {
		f := h.Pop()
		for f == nil {
			runtime.Gosched()
			f = h.Pop()
		}
		if f != &frames[i] {
			t.Fatalf("frame %d out of order", i)
		}
	}
	wg.Wait()
	if !h.Empty() {
		t.Fatal("not empty")
	}
}

func TestHandoffRefusesWhenFull(t *testing.T) {
	h := NewHandoff(3)
	for i := range 4 {
		if !h.Push(&Frame{}) {
			t.Fatalf("full at %d of 4", i)
		}
	}
	if h.Push(&Frame{}) {
		t.Fatal("took a fifth")
	}
}

func TestNoAlloc(t *testing.T) {
	var sink countingSink
	p := newPool(t, 8, 0)
	o, h := NewOut(p, 2, &sink), NewHandoff(2)
	if n := testing.AllocsPerRun(1000, func() {
		f := p.Get()
		h.Push(f)
		p.Put(h.Pop())
		o.Next().Build(54, 10)
		o.Commit(1)
		o.Flush()
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
