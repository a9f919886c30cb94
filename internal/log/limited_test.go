package log

import (
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestLimited checks burst, refill and the count of what was left out.
func TestLimited(t *testing.T) {
	l, b := toBuffer(slog.LevelInfo, false)
	m := l.Limited("key")
	var now int64
	m.now = func() int64 { return now }
	for range 100 {
		m.Warn("hit")
	}
	if got := strings.Count(b.String(), "hit\n"); got != limitBurst {
		t.Errorf("burst of %d lines", got)
	}
	b.Reset()
	now += int64(limitEvery) - 1
	m.Warn("hit")
	now++
	m.Info("hit", "k", "v")
	m.Error("hit")
	if got := b.String(); got != "hit k=v omitted=91\n" {
		t.Errorf("after one interval: %q", got)
	}
	b.Reset()
	now += int64(time.Hour)
	for range 100 {
		m.Error("hit")
	}
	if got := strings.Count(b.String(), "\n"); got != limitBurst {
		t.Errorf("after an hour: burst of %d lines", got)
	}
	if got := b.String(); !strings.HasPrefix(got, "hit omitted=1\nhit\n") {
		t.Errorf("after an hour: %q", got)
	}
}

// TestLimitedLevel checks that lines below the level cost no place.
func TestLimitedLevel(t *testing.T) {
	l, b := toBuffer(slog.LevelInfo, false)
	m := l.Limited("key")
	m.now = func() int64 { return 0 }
	for range 100 {
		m.Debug("x")
		m.Trace("x")
	}
	m.Warn("y")
	if b.String() != "y\n" {
		t.Errorf("got %q", b)
	}
}

func TestLimitedKeys(t *testing.T) {
	l := Discard()
	a, b := l.Limited("a"), l.Limited("b")
	if again := l.Limited("a"); a != again || a == b {
		t.Error("keys do not tell limiters apart")
	}
}

// TestAllowConcurrent checks that no place is given twice.
func TestAllowConcurrent(t *testing.T) {
	m := Discard().Limited("key")
	m.now = func() int64 { return 0 }
	var got atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				if m.Allow() {
					got.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if got.Load() != limitBurst || m.omitted.Load() != 4000-limitBurst {
		t.Errorf("%d places, %d left out", got.Load(), m.omitted.Load())
	}
}

// TestAllowNoAlloc holds for the real clock, granted or not.
func TestAllowNoAlloc(t *testing.T) {
	m := Discard().Limited("key")
	if n := testing.AllocsPerRun(100, func() { m.Allow() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
