package load

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
)

// Socket options of linux/udp.h, at level IPPROTO_UDP.
const (
	udpSegment = 103 // since 4.18
	udpGRO     = 104 // since 5.0
)

// batch is the number of messages for one sendmmsg or recvmmsg.
const batch = 64

// maxSegments is the kernel's limit for one send with UDP_SEGMENT (UDP_MAX_SEGMENTS before 6.8; 128 since).
const maxSegments = 64

// mark is the payload of a datagram that ends a stream. It is shorter than any measured one.
var mark = []byte("end")

// Shape says what datagrams to send.
type Shape struct {
	Size    int  // payload bytes
	Offload bool // the sender segments by UDP_SEGMENT, the receiver coalesces by UDP_GRO
}

// Flow is what a receiver saw.
type Flow struct {
	Datagrams int64
	Seconds   float64 // from the first datagram to the last
}

// Rate is delivered datagrams a second.
func (f Flow) Rate() float64 {
	if f.Seconds <= 0 {
		return 0
	}
	return float64(f.Datagrams) / f.Seconds
}

func setOption(c *net.UDPConn, level, option, value int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = syscall.SetsockoptInt(int(fd), level, option, value) })
	return errors.Join(err, failed)
}

// Send sends as fast as it can for a while on a connected socket, or to an address, and tells how many datagrams
// the kernel took.
func Send(c *net.UDPConn, to net.Addr, s Shape, lasting time.Duration) (int64, error) {
	payload, each := make([]byte, s.Size), 1
	if s.Offload {
		if err := setOption(c, syscall.IPPROTO_UDP, udpSegment, s.Size); err != nil {
			return 0, fmt.Errorf("set UDP_SEGMENT: %w", err)
		}
		each = min(maxSegments, 65000/s.Size)
		payload = make([]byte, s.Size*each)
	}
	messages := make([]ipv4.Message, batch)
	for i := range messages {
		messages[i] = ipv4.Message{Buffers: [][]byte{payload}, Addr: to}
	}
	p, sent := ipv4.NewPacketConn(c), int64(0)
	for end := time.Now().Add(lasting); time.Now().Before(end); {
		n, err := p.WriteBatch(messages, 0)
		if err != nil && !passing(err) {
			return sent, fmt.Errorf("send datagrams: %w", err)
		}
		sent += int64(max(n, 0) * each)
	}
	return sent, nil
}

// passing tells errors that say something of earlier datagrams, or of a full queue, from real ones.
func passing(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.EAGAIN)
}

// SendEnd tells the receiver that nothing more comes; several times, since datagrams get lost. A nil address
// means a connected socket.
func SendEnd(c *net.UDPConn, to net.Addr) error {
	if err := setOption(c, syscall.IPPROTO_UDP, udpSegment, 0); err != nil {
		return err
	}
	for range 5 {
		time.Sleep(10 * time.Millisecond) // let queues drain: the mark is to be the last
		if to == nil {
			c.Write(mark)
		} else {
			c.WriteTo(mark, to)
		}
	}
	return nil
}

// Receiver counts datagrams of one size.
type Receiver struct {
	conn     *net.UDPConn
	shape    Shape
	messages []ipv4.Message
	count    int64
	first    time.Time
	last     time.Time
	done     chan struct{}
}

// NewReceiver prepares a socket; Receive then counts.
func NewReceiver(c *net.UDPConn, s Shape) (*Receiver, error) {
	// Beyond rmem_max for those who may; within it for others.
	if setOption(c, syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, 8<<20) != nil {
		if err := c.SetReadBuffer(8 << 20); err != nil {
			return nil, err
		}
	}
	length := s.Size
	if s.Offload {
		if err := setOption(c, syscall.IPPROTO_UDP, udpGRO, 1); err != nil {
			return nil, fmt.Errorf("set UDP_GRO: %w", err)
		}
		length = 1 << 16
	}
	r := &Receiver{conn: c, shape: s, messages: make([]ipv4.Message, batch), done: make(chan struct{})}
	for i := range r.messages {
		r.messages[i].Buffers = [][]byte{make([]byte, max(length, 1<<11))}
	}
	return r, nil
}

// Receive counts until the end mark, an error, or the deadline.
func (r *Receiver) Receive(deadline time.Time) error {
	defer close(r.done)
	if err := r.conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	for p := ipv4.NewPacketConn(r.conn); ; {
		n, err := p.ReadBatch(r.messages, 0)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil && !passing(err) {
			return fmt.Errorf("receive datagrams: %w", err)
		}
		if r.add(n) {
			return nil
		}
	}
}

// add counts a batch and tells whether the end mark was in it.
func (r *Receiver) add(n int) (ended bool) {
	var count int64
	for i := range r.messages[:max(n, 0)] {
		length := r.messages[i].N
		if length == len(mark) && string(r.messages[i].Buffers[0][:length]) == string(mark) {
			ended = true
			continue
		}
		// A coalesced message is a run of equal datagrams.
		count += int64((length + r.shape.Size - 1) / r.shape.Size)
	}
	if count > 0 {
		r.last = time.Now()
		if r.first.IsZero() {
			r.first = r.last
		}
		r.count += count
	}
	return ended
}

// Wait waits until Receive, in whatever goroutine, has returned, and gives the count.
func (r *Receiver) Wait() Flow {
	<-r.done
	return Flow{r.count, r.last.Sub(r.first).Seconds()}
}
