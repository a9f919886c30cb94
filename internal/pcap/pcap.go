// Package pcap captures the frames that cross the tap, of all shards, in one file.
// A Tee around each shard's port copies them into a buffer of the shard's; one
// goroutine, the Sink's, writes the buffers to the file. Without --pcap there is no
// Tee, and no cost for the packet path.
//
// Frames are captured as they cross: superpackets are not split, and partial
// checksums not completed (Wireshark and tcpdump report them as wrong, as on any
// interface with offload). Those for the guest are captured even if the tap then
// refuses them. A shard never waits for the file: a frame that does not fit into
// its buffer is left out and counted. Frames of one shard, hence of one flow, are
// in order; those of different shards only nearly (reordercap(1) sorts them).
//
// The format is libpcap's with nanoseconds (pcap-savefile(5)), little endian. Its
// two fixed headers are written by hand: gopacket/pcapgo depends on
// gopacket/layers, which doubles the binary and takes half a millisecond at each
// start.
package pcap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"penne/internal/sys"
	"penne/ring"
)

// The file's header (pcap-savefile(5)).
const (
	magicNano    = 0xa1b23c4d
	versionMajor = 2
	versionMinor = 4
	// snapLen is the header's limit of a record, the most that libpcap
	// reads. No frame is longer.
	snapLen     = 262144
	linkEther   = 1
	lenFile     = 24
	lenRecord   = 16 // seconds, nanoseconds, captured and original length
	offCaptured = 8  // in a record
)

// No frame needs to be truncated.
const _ = uint(snapLen - ring.SlotSize)

// bufferSize of each shard, in octets: a hundred superpackets.
const bufferSize = 8 << 20

// file is a capture file: an *os.File, except in tests.
type file interface {
	Write(b []byte) (int, error)
	Truncate(size int64) error
	Close() error
}

// Sink is a capture file and the goroutine that writes it. Its methods, and Tee,
// are for the control thread.
type Sink struct {
	file    file
	size    int64 // octets written
	buffers []*buffer
	bufSize int
	wake    int // eventfd
	epoll   *sys.Epoll
	failed  func(error)
	err     error // why writing ended; the goroutine's until done is closed
	started bool
	done    chan struct{}

	asleep atomic.Bool // the goroutine waits: whoever clears this must signal wake
	stop   atomic.Bool
}

// Create is New with the file at path, which it opens or creates with access for
// its owner only. It must be called before the sandbox.
func Create(path string, failed func(error)) (*Sink, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create capture file: %w", err)
	}
	return New(f, failed)
}

// New makes a Sink that owns the file f, truncates f and writes the header. failed
// is called once, from another goroutine, if writing fails later, which ends the
// capture.
func New(f *os.File, failed func(error)) (*Sink, error) {
	var s *Sink
	err := f.Truncate(0)
	if err == nil || errors.Is(err, syscall.EINVAL) { // a pipe is empty
		s, err = newSink(f, bufferSize, failed)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("create capture file %s: %w", f.Name(), err)
	}
	return s, nil
}

func newSink(f file, bufSize int, failed func(error)) (*Sink, error) {
	s := &Sink{file: f, bufSize: bufSize, failed: failed, done: make(chan struct{})}
	n, err := f.Write(fileHeader())
	if err != nil {
		return nil, fmt.Errorf("write header: %w", err)
	}
	s.size = int64(n)
	if s.epoll, err = sys.NewEpoll(1); err != nil {
		return nil, err
	}
	if s.wake, err = sys.NewEventFD(); err != nil {
		s.epoll.Close()
		return nil, fmt.Errorf("create event counter: %w", err)
	}
	if errno := s.epoll.Add(s.wake, sys.EPOLLIN, 0); errno != 0 {
		s.closeFDs()
		return nil, fmt.Errorf("watch event counter: %w", errno)
	}
	return s, nil
}

func (s *Sink) closeFDs() {
	s.epoll.Close()
	sys.Close(s.wake)
}

func fileHeader() []byte {
	b := make([]byte, lenFile)
	binary.LittleEndian.PutUint32(b, magicNano)
	binary.LittleEndian.PutUint16(b[4:], versionMajor)
	binary.LittleEndian.PutUint16(b[6:], versionMinor)
	binary.LittleEndian.PutUint32(b[16:], snapLen)
	binary.LittleEndian.PutUint32(b[20:], linkEther)
	return b
}

// Start starts the goroutine. All Tees must have been made.
func (s *Sink) Start() {
	s.started = true
	go s.run()
}

// Close writes what is left, closes the file, and returns the first error since
// Start. No shard may be running.
func (s *Sink) Close() error {
	if s.started {
		s.stop.Store(true)
		sys.Signal(s.wake)
		<-s.done
	}
	s.closeFDs()
	for _, b := range s.buffers {
		b.free()
	}
	if err := s.file.Close(); err != nil && s.err == nil {
		s.err = fmt.Errorf("close capture file: %w", err)
	}
	return s.err
}

// Dropped is how many frames were left out because the file was slower than the
// traffic, or writing had failed.
func (s *Sink) Dropped() (n uint64) {
	for _, b := range s.buffers {
		n += b.dropped.Load()
	}
	return n
}

// run writes until Close, or until writing fails. It waits while all buffers are
// empty.
func (s *Sink) run() {
	defer close(s.done)
	var ev [1]sys.Event
	for {
		stop := s.stop.Load() // before the last look at the buffers
		if err := s.drain(); err != nil {
			s.err = fmt.Errorf("write capture file: %w: the capture ends after %d octets", err, s.size)
			if s.failed != nil {
				s.failed(s.err)
			}
			return
		}
		if stop {
			return
		}
		s.asleep.Store(true)
		if !s.pending() && !s.stop.Load() {
			s.epoll.Wait(ev[:], -1)
		}
		s.asleep.Store(false)
		sys.Drain(s.wake)
	}
}

// drain empties all buffers once.
func (s *Sink) drain() error {
	for _, b := range s.buffers {
		n, err := b.writeTo(s.file)
		s.size += n
		if err != nil {
			s.file.Truncate(s.size) // fails on a pipe
			return err
		}
	}
	return nil
}

func (s *Sink) pending() bool {
	for _, b := range s.buffers {
		if !b.empty() {
			return true
		}
	}
	return false
}

// wakeUp wakes the goroutine if it waits. Called by shards.
func (s *Sink) wakeUp() {
	if s.asleep.Load() && s.asleep.CompareAndSwap(true, false) {
		sys.Signal(s.wake)
	}
}

// recordHeader is the header of a frame of n octets that crossed at t.
func recordHeader(t time.Time, n int) (h [lenRecord]byte) {
	binary.LittleEndian.PutUint32(h[:], uint32(t.Unix()))
	binary.LittleEndian.PutUint32(h[4:], uint32(t.Nanosecond()))
	binary.LittleEndian.PutUint32(h[offCaptured:], uint32(n))
	binary.LittleEndian.PutUint32(h[12:], uint32(n))
	return h
}
