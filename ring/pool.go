package ring

import (
	"fmt"
	"os"

	"penne/internal/sys"
)

// Arena is the memory of one shard's frames: address space reserved at start.
// Pages become resident on use, and Pool.Trim gives them back after a burst.
type Arena struct {
	mem    []byte
	frames []Frame
}

// NewArena reserves slots frames for the shard home. It fails only when the
// address space cannot be mapped.
func NewArena(slots int, home uint8) (*Arena, error) {
	return newArena(slots, home, os.Getpagesize())
}

// newArena starts every slot on a page (4, 16 or 64 KiB on arm64), since Trim
// gives back whole pages.
func newArena(slots int, home uint8, page int) (*Arena, error) {
	stride := (SlotSize + page - 1) / page * page
	mem, err := sys.MapReserve(slots * stride)
	if err != nil {
		return nil, fmt.Errorf("reserve %d frames: %w", slots, err)
	}
	a := &Arena{mem: mem, frames: make([]Frame, slots)}
	for i := range a.frames {
		start := i * stride
		a.frames[i] = Frame{slot: mem[start : start+SlotSize : start+SlotSize], home: home}
	}
	return a, nil
}

// Close unmaps the arena; no frame of it may be used afterwards.
func (a *Arena) Close() error { return sys.Unmap(a.mem) }

// Pool is the free list of one shard: last in, first out, so that frames still in
// the cache are used first. Owned by the shard.
type Pool struct {
	arena *Arena
	home  uint8
	free  *Frame
	nfree int
	// Foreign lists freed frames of other shards' arenas, until the shard sends
	// them back.
	Foreign *Frame
}

// NewPool makes the pool of a's frames; Get gives the lowest ones first.
func NewPool(a *Arena) *Pool {
	p := &Pool{arena: a}
	for i := len(a.frames) - 1; i >= 0; i-- {
		p.home = a.frames[i].home
		p.Put(&a.frames[i])
	}
	return p
}

// Get takes a frame out, or returns nil when all are in use. Its contents,
// bounds and H are those of its last use.
func (p *Pool) Get() *Frame {
	f := p.free
	if f == nil {
		return nil
	}
	p.free, f.Next = f.Next, nil
	p.nfree--
	f.touched = true
	return f
}

// Put gives f back. A frame of another shard's arena goes to Foreign.
func (p *Pool) Put(f *Frame) {
	f.Handed = false
	if f.home != p.home {
		f.Next, p.Foreign = p.Foreign, f
		return
	}
	f.Next, p.free = p.free, f
	p.nfree++
}

// PutAll gives back a list linked by Next.
func (p *Pool) PutAll(f *Frame) {
	for f != nil {
		next := f.Next
		p.Put(f)
		f = next
	}
}

// Free is the number of frames that Get can give now.
func (p *Pool) Free() int { return p.nfree }

// Size is the number of frames in the arena.
func (p *Pool) Size() int { return len(p.arena.frames) }

// Trim gives the pages of free frames back to the kernel, except those of the
// keep frames that Get would give next. Not for the packet path.
func (p *Pool) Trim(keep int) {
	for f := p.free; f != nil; f = f.Next {
		if keep > 0 {
			keep--
			continue
		}
		if f.touched {
			sys.DontNeed(f.slot)
			f.touched = false
		}
	}
}
