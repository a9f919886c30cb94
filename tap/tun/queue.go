package tun

import (
	"fmt"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/tap"
	"penne/tap/vnet"
)

var _ tap.Port = (*Queue)(nil)

// Queue is one queue of a tap interface, the tap.Port of one shard and owned by
// its thread.
type Queue struct {
	fd     int
	hdrLen int // octets of virtio-net header before each frame: 0 or vnet.HdrLen
	caps   Caps
	count  *stats.Counters
	split  vnet.Splitter
	iov    [2]sys.Iovec // of the segment being written
}

func newQueue(fd int) *Queue { return &Queue{fd: fd, count: new(stats.Counters)} }

func (q *Queue) setCaps(c Caps) {
	q.caps = c
	q.split.Partial = c.Vnet && c.Csum
	if c.Vnet {
		q.hdrLen = vnet.HdrLen
	}
}

// FD implements tap.Port.
func (q *Queue) FD() int { return q.fd }

// SetCounters implements tap.Port.
func (q *Queue) SetCounters(c *stats.Counters) { q.count = c }

// Close implements tap.Port. A second call does nothing.
func (q *Queue) Close() error {
	if q.fd < 0 {
		return nil
	}
	errno := sys.Close(q.fd)
	q.fd = -1
	if errno != 0 {
		return fmt.Errorf("close tap queue: %w", errno)
	}
	return nil
}

// receiveBudget bounds the octets of one Receive, so that superpackets are still
// in a second-level cache when they are sent on.
const receiveBudget = 512 << 10

// Receive implements tap.Port: one read per frame, straight into its slot, the
// Ethernet header at ring.HeadRoom. Frames that cannot be used are dropped and
// counted, and count towards the work of one call.
func (q *Queue) Receive(b *ring.Batch, pool *ring.Pool) (more bool, errno sys.Errno) {
	for reads, octets := 0, 0; reads < ring.BatchSize && octets < receiveBudget; reads++ {
		f := pool.Get()
		if f == nil {
			return true, 0
		}
		n, errno := sys.Read(q.fd, f.Slot()[ring.HeadRoom-q.hdrLen:])
		octets += n
		if errno == 0 && q.take(f, n) {
			b.Add(f)
			continue
		}
		pool.Put(f)
		switch errno {
		case 0:
		case sys.EINVAL: // a packet whose offload has no virtio form: the kernel dropped it
			q.count.Drop(stats.Malformed)
		case sys.EAGAIN, sys.EINTR:
			return false, 0
		default:
			return false, errno
		}
	}
	return true, 0
}

// take makes f the frame of the n octets read into it, or counts a drop and
// returns false.
func (q *Queue) take(f *ring.Frame, n int) bool {
	length := n - q.hdrLen
	switch {
	case length < wire.EthLen:
		q.count.Drop(stats.Truncated)
		return false
	case ring.HeadRoom+length == ring.SlotSize: // the kernel truncates silently
		q.count.Drop(stats.Oversize)
		return false
	}
	f.SetBounds(ring.HeadRoom, length)
	f.Offload = ring.Offload{}
	if q.hdrLen != 0 {
		hdr := f.Slot()[ring.HeadRoom-vnet.HdrLen : ring.HeadRoom]
		if !vnet.ParseHeader(hdr, f.Bytes(), &f.Offload) {
			q.count.Drop(stats.Malformed)
			return false
		}
	}
	q.count.TapRxFrames++
	q.count.TapRxBytes += uint64(length)
	return true
}

// Send implements ring.Sink: one write per frame, or one per segment if the kernel
// does not segment. If it does not complete checksums either, Send does.
func (q *Queue) Send(frames []*ring.Frame) {
	for _, f := range frames {
		if f.Offload.GSOType != ring.GSONone && !q.segments(f.Offload.GSOType) {
			q.sendSegments(f)
			continue
		}
		if !q.caps.Csum && !vnet.Complete(f.Bytes(), &f.Offload) {
			q.count.Drop(stats.TapError)
			continue
		}
		q.sendWhole(f)
	}
}

// segments tells whether the kernel segments superpackets of GSO type typ.
func (q *Queue) segments(typ uint8) bool {
	if typ == ring.GSOUDPL4 {
		return q.caps.USO
	}
	return q.caps.TSO
}

// sendWhole writes f as it is, with a virtio-net header if the tap has one.
func (q *Queue) sendWhole(f *ring.Frame) {
	start := f.Offset() - q.hdrLen
	b := f.Slot()[start : f.Offset()+f.Len()]
	if q.hdrLen != 0 {
		vnet.PutHeader(b[:vnet.HdrLen], b[vnet.HdrLen:], &f.Offload)
	}
	_, errno := sys.Write(q.fd, b)
	q.sent(len(b)-q.hdrLen, errno)
}

// sendSegments cuts f and writes the segments. If one does not fit into the queue, the
// rest of f is dropped with it: behind a gap it would be of little use.
func (q *Queue) sendSegments(f *ring.Frame) {
	if !q.split.Start(f.Bytes(), &f.Offload) {
		q.count.Drop(stats.TapError)
		return
	}
	for {
		hdr, payload, ok := q.next()
		if !ok {
			return
		}
		sys.SetIovec(&q.iov[0], hdr)
		sys.SetIovec(&q.iov[1], payload)
		_, errno := sys.Writev(q.fd, q.iov[:])
		if !q.sent(len(hdr)+len(payload)-q.hdrLen, errno) {
			return
		}
	}
}

// next returns the next segment, with a virtio-net header if the tap has one.
func (q *Queue) next() (hdr, payload []byte, ok bool) {
	if q.hdrLen != 0 {
		return q.split.NextVnet()
	}
	return q.split.Next()
}

// sent counts the result of writing a frame of n octets, and tells whether it was
// sent.
func (q *Queue) sent(n int, errno sys.Errno) bool {
	switch errno {
	case 0:
		q.count.TapTxFrames++
		q.count.TapTxBytes += uint64(n)
		return true
	case sys.EAGAIN, sys.ENOBUFS, sys.ENOMEM:
		q.count.Drop(stats.TapFull)
	default: // EIO: the interface is down; EINVAL: the kernel rejects the frame
		q.count.Drop(stats.TapError)
	}
	return false
}
