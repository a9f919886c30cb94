package ring

import (
	"fmt"
	"os"

	"penne/internal/sys"
)

// Arena is the memory of one shard's frames: address space reserved at start,
// pages touched on use, given back by Pool.Trim after a burst.
type Arena struct {
	mem    []byte
	frames []Frame
}

// NewArena reserves slots frames for the shard home. It fails only when the
// address space cannot be mapped.
func NewArena(slots int, home uint8) (*Arena, error) {
	return newArena(slots, home, os.Getpagesize())
}

// newArena gives every slot pages of its own, whatever their size (arm64 has
// 4, 16 or 64 KiB): Trim gives back whole pages.
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

// Pool is the free list of one shard: last in, first out, so that warm frames
// are used again first. Frames of other shards that come home this way are kept
// apart until the shard sends them back.
type Pool struct {
	arena *Arena
	home  uint8
	free  *Frame
	nfree int
	// Foreign holds frames of other shards, to be sent back by the shard.
	Foreign *Frame
}

// NewPool makes the pool of a's frames; lowest slots are handed out first.
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

// PutAll gives back a whole list.
func (p *Pool) PutAll(f *Frame) {
	for f != nil {
		next := f.Next
		p.Put(f)
		f = next
	}
}

// Home tells which shard's arena f belongs to.
func (f *Frame) Home() uint8 { return f.home }

// Free is the number of frames that Get can give now.
func (p *Pool) Free() int { return p.nfree }

// Size is the number of frames in the arena.
func (p *Pool) Size() int { return len(p.arena.frames) }

// Trim gives the pages of free frames back to the kernel, but for the keep
// frames that will be used next. It is called when a shard has been idle for
// a while, never on the packet path.
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
