package splice

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
)

// parting is small enough for the receive buffer of a socket that nobody reads.
var parting = bytes.Repeat([]byte("goodbye\n"), 4096)

// reset ends a connection with an RST.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// wantParting reads from c what came before its end, which is of a kind: nil for a FIN.
func wantParting(t *testing.T, c *net.TCPConn, end error) {
	t.Helper()
	got, err := io.ReadAll(c)
	if !bytes.Equal(got, parting) || !errors.Is(err, end) {
		t.Errorf("%d of %d octets, then %v instead of %v", len(got), len(parting), err, end)
	}
}

// bothWays runs f with each end as the one that resets; how is "pipe" or "copy".
func bothWays(t *testing.T, f func(t *testing.T, b *bench, killer, victim *net.TCPConn)) {
	for _, from := range []string{"client", "server"} {
		for _, how := range []string{"pipe", "copy"} {
			t.Run(from+", "+how, func(t *testing.T) {
				b := newBench(t)
				killer, victim := b.pair()
				if from == "server" {
					killer, victim = victim, killer
				}
				if how == "copy" {
					b.exhaust()
				}
				f(t, b, killer, victim)
			})
		}
	}
}

// TestDataBeforeAReset: the relay learns of octets and of the reset behind them
// at once, on a new connection and on one in use.
func TestDataBeforeAReset(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bench, killer, victim *net.TCPConn) {
		killer.Write(parting)
		reset(killer)
		b.run(nil)
		wantParting(t, victim, syscall.ECONNRESET)
	})
	bothWays(t, func(t *testing.T, b *bench, killer, victim *net.TCPConn) {
		b.exchange(killer, victim, 100_000)
		killer.Write(parting)
		reset(killer)
		b.run(nil)
		wantParting(t, victim, syscall.ECONNRESET)
	})
}

// TestAnswerToAnUnreadRequest: the end that resets has not read what the other
// still sends, such as a server that answers "too large". The relay learns of the
// reset as it carries that.
func TestAnswerToAnUnreadRequest(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bench, killer, victim *net.TCPConn) {
		b.exchange(killer, victim, 1)
		victim.Write(parting)
		b.g.Ready(b.r.Event) // it is in killer's socket
		killer.Write(parting)
		killer.Close() // with octets unread: an RST
		victim.Write(parting)
		b.carryFrom(victim)
		b.run(nil)
		wantParting(t, victim, syscall.ECONNRESET)
	})
}

// TestEndBeforeAReset: the end that has sent its FIN and closed answers what
// comes later with an RST. Its FIN still counts.
func TestEndBeforeAReset(t *testing.T) {
	bothWays(t, func(t *testing.T, b *bench, killer, victim *net.TCPConn) {
		b.exchange(killer, victim, 1)
		killer.Write(parting)
		killer.Close()
		for range 2 { // the first brings the RST, which the second meets
			victim.Write(parting[:100])
			b.carryFrom(victim)
		}
		b.run(nil)
		wantParting(t, victim, nil)
	})
}

// carryFrom lets the relay carry what c has sent, without a look at what else
// has happened.
func (b *bench) carryFrom(c *net.TCPConn) {
	for id := range b.r.conns {
		for side, fd := range b.r.conns[id].fd {
			if peer, err := syscall.Getpeername(fd); err == nil && b.r.conns[id].live && portOf(peer) == c.LocalAddr().(*net.TCPAddr).Port {
				b.r.conns[id].ways[side].readable = true
				b.r.move(int32(id))
				return
			}
		}
	}
	b.t.Fatal("no such connection")
}

func portOf(sa syscall.Sockaddr) int {
	if a, ok := sa.(*syscall.SockaddrInet4); ok {
		return a.Port
	}
	return 0
}
