package nl

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"penne/internal/sys"
)

// Changes come in rows: a VPN's start is a link, addresses, routes. A row ends
// when nothing has come for a moment; one that never ends is looked at anyway.
const (
	settle    = 10 * time.Millisecond
	settleMax = 100 * time.Millisecond
)

// retry is when to look again after a look that failed: the kernel may have
// been short of memory.
const retry = time.Second

// Monitor follows a network namespace. It waits for the kernel's word and
// polls nothing. It is used by one goroutine, but for Close.
type Monitor struct {
	events *os.File
	conn   *Conn
	opts   Options
	buf    []byte
	last   Template
	failed bool // the last look did
	retry  time.Duration
	quit   chan struct{} // closed by Close
}

// NewMonitor starts to follow the network namespace of the calling thread, and
// returns what it is like now.
func NewMonitor(o Options) (*Monitor, Template, error) {
	fd, err := sys.RouteEvents()
	if err != nil {
		return nil, Template{}, fmt.Errorf("watch the host's network: %w", err)
	}
	m := &Monitor{
		events: os.NewFile(uintptr(fd), "route events"), opts: o, buf: make([]byte, 32<<10),
		retry: retry, quit: make(chan struct{}),
	}
	// Listening comes first, so that nothing changes unseen in between.
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

// Close ends the watch, once: Next returns os.ErrClosed.
func (m *Monitor) Close() {
	close(m.quit)
	_ = m.events.Close()
	m.conn.Close()
}

// Next waits until the Template has changed. A named template interface that has
// gone leaves the Template as it was, for it may come back. After an error other
// than os.ErrClosed the next call looks again, a second later.
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

// step waits for a row of changes, or to try again, and looks at what has
// become of the network.
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

// wait returns after a row of changes of which one may matter.
func (m *Monitor) wait() error {
	if err := m.events.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	for {
		matters, err := m.read()
		if err != nil {
			return err
		}
		if matters {
			return m.drain()
		}
	}
}

// drain reads until the row of changes ends.
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

// read takes one message and tells whether it may matter. Lost ones do.
func (m *Monitor) read() (matters bool, err error) {
	n, err := m.events.Read(m.buf)
	if errors.Is(err, syscall.ENOBUFS) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return relevant(m.buf[:n]), nil
}

// relevant tells whether one of the messages may change a Template: all but
// routes of other tables, which come with each address (local), and clones.
func relevant(b []byte) bool {
	for len(b) >= sys.SizeofNlMsghdr {
		n := uint64(ne.Uint32(b))
		if n < sys.SizeofNlMsghdr || n > uint64(len(b)) {
			return true // cut short: look, to be safe
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
