package log

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// Rate of lines per key, for what a peer can trigger.
const (
	// limitBurst is how many lines may be logged at once.
	limitBurst = 10
	// limitEvery is the time after which one more may be.
	limitEvery = time.Second
)

// Limited logs at a limited rate: limitBurst lines at once, then one per
// limitEvery. The first line after a gap says how many were omitted. It is safe
// for concurrent use, by shards too: [Limited.Allow] neither locks nor allocates.
type Limited struct {
	l   *Log
	now func() int64 // nanoseconds since some start
	// next is when the token bucket is full again, on now's clock: a line
	// costs limitEvery, and next is at most limitBurst lines ahead.
	next    atomic.Int64
	omitted atomic.Uint64
}

// Limited returns the limiter of a key, always the same one. Keys are constants,
// never made from input: limiters are kept for ever.
func (l *Log) Limited(key string) *Limited {
	l.limMu.Lock()
	defer l.limMu.Unlock()
	if m, ok := l.limits[key]; ok {
		return m
	}
	m := &Limited{l: l, now: func() int64 { return int64(time.Since(l.c.start)) }}
	l.limits[key] = m
	return m
}

// Allow reports whether a line may be logged now. If so, the caller logs one with
// [Limited.Emit]; this saves composing lines that would be omitted.
func (m *Limited) Allow() bool {
	now := m.now()
	for {
		old := m.next.Load()
		next := max(old, now) + int64(limitEvery)
		if next-now > limitBurst*int64(limitEvery) {
			m.omitted.Add(1)
			return false
		}
		if m.next.CompareAndSwap(old, next) {
			return true
		}
	}
}

// Emit logs a line for which Allow has returned true.
func (m *Limited) Emit(level slog.Level, msg string, args ...any) {
	if n := m.omitted.Swap(0); n > 0 {
		args = append(args[:len(args):len(args)], "omitted", n)
	}
	m.l.Log(context.Background(), level, msg, args...)
}

// emit is Allow and Emit for a level that may be off.
func (m *Limited) emit(level slog.Level, msg string, args []any) {
	if m.l.Enabled(context.Background(), level) && m.Allow() {
		m.Emit(level, msg, args...)
	}
}

// Error logs at error level, if the rate permits.
func (m *Limited) Error(msg string, args ...any) { m.emit(slog.LevelError, msg, args) }

// Warn logs at warning level, if the rate permits.
func (m *Limited) Warn(msg string, args ...any) { m.emit(slog.LevelWarn, msg, args) }

// Info logs at informational level, if the rate permits.
func (m *Limited) Info(msg string, args ...any) { m.emit(slog.LevelInfo, msg, args) }

// Debug logs at debug level, if the rate permits.
func (m *Limited) Debug(msg string, args ...any) { m.emit(slog.LevelDebug, msg, args) }

// Trace logs at LevelTrace, if the rate permits.
func (m *Limited) Trace(msg string, args ...any) { m.emit(LevelTrace, msg, args) }
