package shard_test

import (
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"testing"

	"penne/tap/tun/tuntest"
)

// TestSteadyStateAllocatesNothing counts what all goroutines allocate while
// TCP and UDP echoes cross the whole path: with one queue, with two, and with
// frames at random queues, most of which are handed over. What the methods of
// single packages allocate has tests there.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	for _, c := range []struct {
		name   string
		queues int
		random bool
	}{{"one queue", 1, false}, {"two queues", 2, false}, {"hand-off", 2, true}} {
		t.Run(c.name, func(t *testing.T) {
			tuntest.Enter(t)
			g := echoGroup(t, c.queues, c.random)
			const flows, warm, rounds = 4, 50, 200
			talk := newEchoes(t, flows)
			talk.rounds(t, warm)
			defer debug.SetGCPercent(debug.SetGCPercent(-1))
			before, objects := total(g).HandedOut, mallocs()
			talk.rounds(t, rounds)
			objects = mallocs() - objects
			// The runtime allocates a little by itself, such as threads.
			if objects > rounds/5 {
				t.Errorf("%d objects allocated in %d rounds of %d packets", objects, rounds, 4*flows)
			}
			if n := total(g).HandedOut - before; c.random && n < rounds {
				t.Errorf("%d frames handed over in %d rounds", n, rounds)
			}
		})
	}
}

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// echoes are clients inside, which allocate nothing in a round.
type echoes struct {
	conns []net.Conn
	in    []byte
}

func newEchoes(t *testing.T, flows int) *echoes {
	t.Helper()
	e := &echoes{in: make([]byte, 2048)}
	f := families["4"]
	for _, network := range []string{"tcp4", "udp4"} {
		port := echoServer(t, onHost, network, f.loopback)
		for range flows {
			e.conns = append(e.conns, dial(t, inside, network, at(f.gateway, port)))
		}
	}
	return e
}

// rounds sends a message on each connection and waits for its echo, n times.
func (e *echoes) rounds(t *testing.T, n int) {
	t.Helper()
	out := make([]byte, 1000)
	for range n {
		for _, c := range e.conns {
			if _, err := c.Write(out); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range e.conns {
			if _, err := io.ReadFull(c, e.in[:len(out)]); err != nil {
				t.Fatal(err)
			}
		}
	}
}
