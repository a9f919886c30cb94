package ring

// BatchSize is the most frames that cross a package border at once.
const BatchSize = 64

// Batch is a fixed row of frames. The zero Batch is empty.
type Batch struct {
	F [BatchSize]*Frame
	N int
}

// Add appends f and tells whether there was room.
func (b *Batch) Add(f *Frame) bool {
	if b.N == BatchSize {
		return false
	}
	b.F[b.N] = f
	b.N++
	return true
}

// Frames is the filled part.
func (b *Batch) Frames() []*Frame { return b.F[:b.N] }

// Sink takes frames towards the guest. Send consumes the contents, not the
// frames: when it returns, all have been delivered, or dropped and counted by
// the sink, and the caller may fill them again.
type Sink interface {
	Send(frames []*Frame)
}

// Out collects the frames that one shard builds for its guest and sends them
// in batches. It owns a fixed set of frames that are filled again and again,
// which keeps them in the cache. Owned by one shard.
//
// The way to build one frame is Next, fill it (Frame.Build), then Commit. To
// let one recvmsg fill many, Peek gives the i-th frame after the committed
// ones without committing it.
type Out struct {
	sink Sink
	set  []*Frame
	n    int
}

// NewOut takes size frames (at most BatchSize) out of pool for good.
func NewOut(pool *Pool, size int, sink Sink) *Out {
	o := &Out{sink: sink}
	for range min(size, BatchSize) {
		if f := pool.Get(); f != nil {
			o.set = append(o.set, f)
		}
	}
	return o
}

// Room is the number of frames that can be built before Flush must be called.
func (o *Out) Room() int { return len(o.set) - o.n }

// Size is the number of frames in all.
func (o *Out) Size() int { return len(o.set) }

// Peek returns the i-th frame behind the committed ones; i < Room().
func (o *Out) Peek(i int) *Frame { return o.set[o.n+i] }

// Next returns the frame to build next; it sends what is committed first if
// there is no room.
func (o *Out) Next() *Frame {
	if o.n == len(o.set) {
		o.Flush()
	}
	return o.set[o.n]
}

// Commit says that the next n frames are built.
func (o *Out) Commit(n int) { o.n += n }

// Flush sends what is committed.
func (o *Out) Flush() {
	if o.n == 0 {
		return
	}
	o.sink.Send(o.set[:o.n])
	o.n = 0
}
