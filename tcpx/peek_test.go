package tcpx

import (
	"fmt"
	"testing"

	"penne/internal/wire"
)

// TestSmallAnswersStayForAWhile: what the guest acknowledged of small answers leaves the socket a few of them at a
// time, and all of it in the end. Peeks without an offset begin with what is in the socket: there, each leaves at once.
func TestSmallAnswersStayForAWhile(t *testing.T) {
	for _, noOff := range []bool{false, true} {
		t.Run(fmt.Sprintf("NoPeekOff %t", noOff), func(t *testing.T) {
			smallAnswers(t, newRig(t, false, Config{NoPeekOff: noOff}))
		})
	}
}

func smallAnswers(t *testing.T, r *rig) {
	g, host := r.open()
	left := 0
	for range 2 * maxDeferrals {
		host.Write([]byte("answer"))
		s := g.Next()
		for len(s.Data) == 0 { // an acknowledgment
			s = g.Next()
		}
		g.Ack += uint32(len(s.Data))
		g.Send(wire.PSH, []byte("thanks"))
		g.Pass()
		readAll(t, host, 6)
		left = max(left, int(r.conn().consume))
	}
	low, high := 2*6, (maxDeferrals-1)*6
	if !r.tcp.peeker.offsets(r.conn()) { // asked for, or a kernel before 6.9
		low, high = 0, 0
	}
	if left < low || left > high {
		t.Errorf("at most %d octets were left, not %d to %d", left, low, high)
	}
	host.Close()
	g.Next()
	g.Ack++
	g.Send(wire.FIN, nil)
	g.Pass()
	if c := r.conn(); c.phase() != "TIME-WAIT" || c.fd >= 0 || c.consume != 0 {
		t.Errorf("%s, socket %d, %d octets left", c.phase(), c.fd, c.consume)
	}
}

// TestEndOfALargeAnswerDoesNotStay: its last octets, few as they are, are a piece of a large segment whose whole memory
// they hold: with it in the socket, the remote may never be given a window again.
func TestEndOfALargeAnswerDoesNotStay(t *testing.T) {
	const size, end = 60_000, 3000
	r := newRig(t, false, Config{})
	g, host := r.open()
	host.Write(pattern(size))
	for start, got := g.Ack, 0; got < size; {
		s := g.Next()
		got += len(s.Data)
		g.Ack = start + uint32(min(got, size-end))
		g.Send(0, nil)
		g.Pass()
	}
	g.Ack += end
	g.Send(0, nil)
	g.Pass()
	if c := r.conn(); c.consume != 0 {
		t.Errorf("%d octets stay in the socket", c.consume)
	}
}

// TestFlightBound: a flow whose peeks copy what is in flight has little of it.
func TestFlightBound(t *testing.T) {
	for _, noOff := range []bool{false, true} {
		r := newRig(t, false, Config{NoPeekOff: noOff})
		r.open()
		c := r.conn()
		c.wnd, c.cwnd = 4*maxPrefix, 0
		want := c.wnd
		if !r.tcp.peeker.offsets(c) {
			want = maxPrefix
		}
		if got := r.tcp.sendWindow(c); got != want {
			t.Errorf("NoPeekOff %t: %d octets, want %d", noOff, got, want)
		}
	}
}
