package portscan

import "time"

// Intervals between scans.
const (
	// BusyInterval lets a bind show within 300 ms.
	BusyInterval = 250 * time.Millisecond
	// IdleInterval is for a namespace where nothing happens.
	IdleInterval = time.Second
	// busyFor is how long traffic or a change keeps scans frequent.
	busyFor = 10 * time.Second
)

// Policy says how long to wait until the next scan: a short time while there
// was traffic or a change of ports within the last 10 seconds, else a long one.
// It makes no system call; its owner tells it the time. The zero value starts
// frequent.
type Policy struct {
	traffic uint64
	until   time.Duration
	started bool
}

// Next takes the time on a clock that does not jump, a count that grows with
// traffic (of frames, say), and whether the scan just made found other ports
// than the one before. It returns how long to wait.
func (p *Policy) Next(now time.Duration, traffic uint64, changed bool) time.Duration {
	if !p.started || changed || traffic != p.traffic {
		p.started, p.traffic, p.until = true, traffic, now+busyFor
	}
	if now < p.until {
		return BusyInterval
	}
	return IdleInterval
}
