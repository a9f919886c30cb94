package bed

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
)

// relay carries frames between a tap in host and one in remote, later than they came, and not all of them.
type relay struct {
	taps [2]*os.File
	wg   sync.WaitGroup
}

// relayFrame is the largest frame a tap hands out: MTU 65520 and an Ethernet header.
const relayFrame = 65520 + 14

// relayQueue bounds the bytes under way in one direction, as a router's buffer would; beyond it, frames are
// dropped. 64 MiB is 10 Gbit/s for 50 ms.
const relayQueue = 64 << 20

func newRelay(host, remote *NS, c config) (*relay, error) {
	r := &relay{}
	for i, n := range []*NS{host, remote} {
		tap, err := newTap(n)
		if err != nil {
			r.close()
			return nil, fmt.Errorf("make tap in %s: %w", n.Name, err)
		}
		r.taps[i] = tap
	}
	r.wg.Add(4)
	r.carry(r.taps[0], r.taps[1], c)
	r.carry(r.taps[1], r.taps[0], c)
	return r, nil
}

func newTap(n *NS) (*os.File, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = Link
	tap := &netlink.Tuntap{
		LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI, Queues: 1, NonPersist: true,
	}
	err := n.Do(func() error {
		if err := netlink.LinkAdd(tap); err != nil {
			return err
		}
		return netlink.LinkSetTxQLen(tap, 10000)
	})
	if err != nil {
		return nil, err
	}
	return tap.Fds[0], nil
}

// delayed is a frame and when it is due.
type delayed struct {
	due   time.Time
	frame []byte
}

// carry moves frames in one direction: one goroutine reads and one writes, with a bounded line between them.
func (r *relay) carry(from, to *os.File, c config) {
	line := &delayLine{}
	line.more.L = &line.mu
	go func() {
		defer r.wg.Done()
		defer line.end()
		// A source of its own, the same in each run: losses then differ only by timing.
		random := rand.New(rand.NewPCG(1, 2))
		buf := make([]byte, relayFrame)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			if c.loss > 0 && random.Float64() < c.loss {
				continue
			}
			line.put(delayed{time.Now().Add(c.rtt / 2), append([]byte(nil), buf[:n]...)})
		}
	}()
	go func() {
		defer r.wg.Done()
		for d, ok := line.take(); ok; d, ok = line.take() {
			// The delay is what this relay is for.
			time.Sleep(time.Until(d.due))
			to.Write(d.frame) // a full or closed tap drops it, as a wire would
		}
	}()
}

func (r *relay) close() {
	for _, tap := range r.taps {
		if tap != nil {
			tap.Close()
		}
	}
	r.wg.Wait()
}

// delayLine is a first-in first-out queue of frames, bounded by their bytes.
type delayLine struct {
	mu     sync.Mutex // guards what follows
	more   sync.Cond
	frames []delayed
	bytes  int
	ended  bool
}

func (l *delayLine) put(d delayed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bytes+len(d.frame) > relayQueue {
		return
	}
	l.frames = append(l.frames, d)
	l.bytes += len(d.frame)
	l.more.Signal()
}

func (l *delayLine) take() (delayed, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.frames) == 0 && !l.ended {
		l.more.Wait()
	}
	if l.ended {
		return delayed{}, false
	}
	d := l.frames[0]
	l.frames[0] = delayed{}
	l.frames = l.frames[1:]
	l.bytes -= len(d.frame)
	return d, true
}

func (l *delayLine) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.more.Broadcast()
}
