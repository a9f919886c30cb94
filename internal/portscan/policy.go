package portscan

import "time"

// Intervals between scans.
const (
	// BusyInterval forwards a new port within 300 ms.
	BusyInterval = 250 * time.Millisecond
	// IdleInterval is for an idle namespace.
	IdleInterval = time.Second
	// busyFor is how long scans stay frequent after traffic or a change.
	busyFor = 10 * time.Second
)

// Policy says how long to wait until the next scan: BusyInterval if there was
// traffic or a change of ports within the last 10 seconds, else IdleInterval. The
// zero value is ready to use, and starts busy.
type Policy struct {
	traffic uint64
	until   time.Duration
	started bool
}

// Next returns how long to wait. now is the time on a monotonic clock, traffic a
// number that changes with traffic, and changed says whether the last scan found
// other ports than the one before.
func (p *Policy) Next(now time.Duration, traffic uint64, changed bool) time.Duration {
	if !p.started || changed || traffic != p.traffic {
		p.started, p.traffic, p.until = true, traffic, now+busyFor
	}
	if now < p.until {
		return BusyInterval
	}
	return IdleInterval
}
