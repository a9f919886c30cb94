package pcap

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"penne/internal/sys"
)

// cacheLine keeps the two indices in different cache lines (64 octets on amd64 and
// arm64).
const cacheLine = 64

// maxWrite is the most octets written at once, so that the shard gets back room
// while much is being written.
const maxWrite = 1 << 20

// buffer is a ring buffer from one shard to the writer, with records as they go
// into the file. head and tail count octets since the start; their offset in mem
// is modulo its size, a power of two. The shard publishes records by storing tail,
// the writer frees room by storing head; Go's atomics are sequentially consistent,
// so that these order the octets too.
type buffer struct {
	mem     []byte
	end     uint64        // the shard's: end of the records, published or not
	dropped atomic.Uint64 // written by the shard only
	_       [cacheLine]byte
	head    atomic.Uint64 // written by the writer only
	_       [cacheLine]byte
	tail    atomic.Uint64 // written by the shard only
}

func newBuffer(size int) (*buffer, error) {
	mem, err := sys.MapReserve(size)
	if err != nil {
		return nil, fmt.Errorf("reserve %d octets for capturing: %w", size, err)
	}
	return &buffer{mem: mem}, nil
}

func (b *buffer) free() { sys.Unmap(b.mem) }

// put copies a record, or counts a drop if it does not fit.
func (b *buffer) put(h *[lenRecord]byte, frame []byte) {
	n := uint64(lenRecord + len(frame))
	if b.end+n-b.head.Load() > uint64(len(b.mem)) {
		b.dropped.Store(b.dropped.Load() + 1)
		return
	}
	b.copyIn(b.end, h[:])
	b.copyIn(b.end+lenRecord, frame)
	b.end += n
}

// publish lets the writer see what was put.
func (b *buffer) publish() { b.tail.Store(b.end) }

func (b *buffer) copyIn(at uint64, p []byte) {
	n := copy(b.mem[at&uint64(len(b.mem)-1):], p)
	copy(b.mem, p[n:])
}

func (b *buffer) empty() bool { return b.head.Load() == b.tail.Load() }

// writeTo writes what is published and returns how many octets of complete records
// have been written.
func (b *buffer) writeTo(f file) (int64, error) {
	start, end := b.head.Load(), b.tail.Load()
	whole := start
	for at := start; at != end; {
		from := at & uint64(len(b.mem)-1)
		n, err := f.Write(b.mem[from:min(from+min(end-at, maxWrite), uint64(len(b.mem)))])
		at += uint64(n)
		whole = b.lastRecord(whole, at)
		b.head.Store(whole) // not at: frameLen still needs the header of a half-written record
		if err != nil {
			return int64(whole - start), err
		}
	}
	return int64(whole - start), nil
}

// lastRecord is the end of the last complete record between start, where one
// begins, and end.
func (b *buffer) lastRecord(start, end uint64) uint64 {
	for start+lenRecord <= end {
		next := start + lenRecord + uint64(b.frameLen(start))
		if next > end {
			break
		}
		start = next
	}
	return start
}

// frameLen is the length of the frame whose record begins at at.
func (b *buffer) frameLen(at uint64) uint32 {
	var v [4]byte
	for i := range v {
		v[i] = b.mem[(at+offCaptured+uint64(i))&uint64(len(b.mem)-1)]
	}
	return binary.LittleEndian.Uint32(v[:])
}
