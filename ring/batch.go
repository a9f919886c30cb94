package ring

// BatchSize is the most frames that one call passes between packages.
const BatchSize = 64

// Batch is up to BatchSize frames. The zero Batch is empty.
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
