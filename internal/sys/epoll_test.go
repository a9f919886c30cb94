package sys

import (
	"testing"
	"time"
)

// TestEpollWaits has both ways of waiting, with and without epoll_pwait2, give
// up after a timeout, and find what is ready.
func TestEpollWaits(t *testing.T) {
	defer noPwait2.Store(noPwait2.Load())
	ep, err := NewEpoll(4)
	if err != nil {
		t.Fatal(err)
	}
	defer ep.Close()
	wake, err := NewEventFD()
	if err != nil {
		t.Fatal(err)
	}
	defer Close(wake)
	const token = 1<<40 | 7 // both halves of what the kernel carries
	if errno := ep.Add(wake, EPOLLIN, token); errno != 0 {
		t.Fatal(errno)
	}
	events := make([]Event, 4)
	for _, coarse := range []bool{false, true} {
		for name, wait := range map[string]func([]Event, time.Duration) int{"Wait": ep.Wait, "WaitRaw": ep.WaitRaw} {
			noPwait2.Store(coarse)
			if n := wait(events, 500*time.Microsecond); n != 0 {
				t.Errorf("%s, coarse %v: %d events of nothing", name, coarse, n)
			}
			Signal(wake)
			for _, timeout := range []time.Duration{0, time.Millisecond, -1} {
				if n := wait(events, timeout); n != 1 || events[0].Token != token || events[0].Bits != EPOLLIN {
					t.Errorf("%s, coarse %v, timeout %v: %d events, the first %+v", name, coarse, timeout, n, events[0])
				}
			}
			if n := testing.AllocsPerRun(50, func() { wait(events, 0) }); n != 0 {
				t.Errorf("%s, coarse %v: %v allocations", name, coarse, n)
			}
			Drain(wake)
		}
	}
}
