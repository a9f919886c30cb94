package pcap

import (
	"time"

	"penne/internal/sys"
	"penne/ring"
	"penne/tap"
)

// port is a tap.Port that captures what crosses another one. Owned by the shard
// that owns the other.
type port struct {
	tap.Port
	sink *Sink
	buf  *buffer
}

// Tee wraps p so that its frames are captured in s. It must be called before
// s.Start.
func Tee(p tap.Port, s *Sink) (tap.Port, error) {
	b, err := newBuffer(s.bufSize)
	if err != nil {
		return nil, err
	}
	s.buffers = append(s.buffers, b)
	return &port{Port: p, sink: s, buf: b}, nil
}

// Receive implements tap.Port.
func (p *port) Receive(b *ring.Batch, pool *ring.Pool) (more bool, errno sys.Errno) {
	more, errno = p.Port.Receive(b, pool)
	p.record(b.Frames())
	return more, errno
}

// Send implements tap.Port. The frames are captured first, since the port may
// change them to complete checksums.
func (p *port) Send(frames []*ring.Frame) {
	p.record(frames)
	p.Port.Send(frames)
}

// record copies frames, all with the current time.
func (p *port) record(frames []*ring.Frame) {
	if len(frames) == 0 {
		return
	}
	now := time.Now()
	for _, f := range frames {
		h := recordHeader(now, f.Len())
		p.buf.put(&h, f.Bytes())
	}
	p.buf.publish()
	p.sink.wakeUp()
}
