package ring

// Sink sends frames to the guest. When Send returns, each has been sent, or
// dropped and counted, and the frames are the caller's to fill again.
type Sink interface {
	Send(frames []*Frame)
}

// Out collects the frames that one shard builds for its guest and sends them
// in batches. It owns a fixed set of frames that are filled again and again,
// which keeps them in the cache. Owned by one shard.
//
// To build one frame: Next, fill it (Frame.Build), Commit. To let one recvmsg
// fill many: Peek at as many as there is Room for, then Commit those to send.
type Out struct {
	sink Sink
	set  []*Frame
	n    int // committed: set[:n]
}

// NewOut takes size frames (at most BatchSize) out of pool and keeps them.
func NewOut(pool *Pool, size int, sink Sink) *Out {
	o := &Out{sink: sink}
	for range min(size, BatchSize) {
		if f := pool.Get(); f != nil {
			o.set = append(o.set, f)
		}
	}
	return o
}

// Room is how many frames can be built before the next Flush.
func (o *Out) Room() int { return len(o.set) - o.n }

// Size is the number of frames in all.
func (o *Out) Size() int { return len(o.set) }

// Peek returns the i-th frame behind the committed ones; i < Room().
func (o *Out) Peek(i int) *Frame { return o.set[o.n+i] }

// Next returns the frame to build next, after a Flush if there is no room.
func (o *Out) Next() *Frame {
	if o.n == len(o.set) {
		o.Flush()
	}
	return o.set[o.n]
}

// Commit marks the next n frames as built, to be sent by the next Flush.
func (o *Out) Commit(n int) { o.n += n }

// Flush sends the committed frames.
func (o *Out) Flush() {
	if o.n == 0 {
		return
	}
	o.sink.Send(o.set[:o.n])
	o.n = 0
}

// Swap exchanges the i-th and j-th frame behind the committed ones (see Peek).
// A caller that filled many frames with one system call and drops some of them
// moves the others to the front this way, without copying.
func (o *Out) Swap(i, j int) {
	a, b := o.n+i, o.n+j
	o.set[a], o.set[b] = o.set[b], o.set[a]
}
