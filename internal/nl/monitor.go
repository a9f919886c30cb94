package nl

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"penne/internal/sys"
)

// Changes come in bursts: a VPN adds a link, addresses and routes. A burst ends when
// nothing has come for settle, or after settleMax.
const (
	settle    = 10 * time.Millisecond
	settleMax = 100 * time.Millisecond
)

// retry is how long to wait after reading the network's state has failed: the kernel
// may have been short of memory.
const retry = time.Second

// Monitor follows the changes of a network namespace, of which the kernel notifies
// it. It is used by one goroutine, except for Close.
type Monitor struct {
	events *os.File
	conn   *Conn
	opts   Options
	buf    []byte
	last   Template
	failed bool // the last step did
	retry  time.Duration
	quit   chan struct{} // closed by Close
}

// NewMonitor starts to follow the network namespace of the calling thread, and
// returns its current Template.
func NewMonitor(o Options) (*Monitor, Template, error) {
	fd, err := sys.RouteEvents()
	if err != nil {
		return nil, Template{}, fmt.Errorf("watch the host's network: %w", err)
	}
	m := &Monitor{
		events: os.NewFile(uintptr(fd), "route events"), opts: o, buf: make([]byte, 32<<10),
		retry: retry, quit: make(chan struct{}),
	}
	// Notifications come first, so that no change is missed in between.
	if m.conn, err = Dial(); err != nil {
		m.events.Close()
		return nil, Template{}, err
	}
	s, err := m.conn.Snapshot()
	if err == nil {
		m.last, err = s.Template(o)
	}
	if err != nil {
		m.Close()
		return nil, Template{}, err
	}
	return m, m.last, nil
}

// Close makes Next return os.ErrClosed. To be called once.
func (m *Monitor) Close() {
	close(m.quit)
	_ = m.events.Close()
	m.conn.Close()
}

// Next waits until the Template has changed, and returns it. While a template
// interface that Options name is missing, the Template stays as it was. After an
// error other than os.ErrClosed the next call tries again, a second later.
func (m *Monitor) Next() (Template, error) {
	for {
		changed, err := m.step()
		select {
		case <-m.quit:
			return Template{}, os.ErrClosed
		default:
		}
		if m.failed = err != nil; m.failed {
			return Template{}, fmt.Errorf("watch the host's network: %w", err)
		}
		if changed {
			return m.last, nil
		}
	}
}

// step waits for a burst of changes, or to try again, and then reads the state of
// the network.
func (m *Monitor) step() (changed bool, err error) {
	if m.failed {
		select {
		case <-m.quit:
			return false, nil
		case <-time.After(m.retry):
		}
	} else if err := m.wait(); err != nil {
		return false, err
	}
	s, err := m.conn.Snapshot()
	if err != nil {
		return false, err
	}
	next, err := s.Template(m.opts)
	if err != nil { // the named template interface has gone
		return false, nil
	}
	change := m.last.Diff(&next)
	m.last = next
	return !change.Empty(), nil
}

// wait returns after a burst of changes of which one may be relevant.
func (m *Monitor) wait() error {
	if err := m.events.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	for {
		relevant, err := m.read()
		if err != nil {
			return err
		}
		if relevant {
			return m.drain()
		}
	}
}

// drain reads until the burst ends.
func (m *Monitor) drain() error {
	end := time.Now().Add(settleMax)
	for {
		now := time.Now()
		if now.After(end) {
			return nil
		}
		if err := m.events.SetReadDeadline(now.Add(settle)); err != nil {
			return err
		}
		if _, err := m.read(); errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// read reads one datagram and reports whether it may be relevant. Lost ones may.
func (m *Monitor) read() (maybe bool, err error) {
	n, err := m.events.Read(m.buf)
	if errors.Is(err, syscall.ENOBUFS) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return relevant(m.buf[:n]), nil
}

// relevant reports whether one of the messages b may change a Template: all but
// routes of other tables (one in local for each address) and cloned routes.
func relevant(b []byte) bool {
	for len(b) >= sys.SizeofNlMsghdr {
		n := uint64(ne.Uint32(b))
		if n < sys.SizeofNlMsghdr || n > uint64(len(b)) {
			return true // truncated: assume so
		}
		typ, body := ne.Uint16(b[4:]), b[sys.SizeofNlMsghdr:n]
		if typ != sys.RtmNewRoute && typ != sys.RtmDelRoute {
			return true
		}
		if _, ok := parseRoute(body); ok {
			return true
		}
		b = b[min((n+3)&^3, uint64(len(b))):]
	}
	return false
}
