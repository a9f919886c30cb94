package udpx

import (
	"testing"

	"penne/internal/stats"
	"penne/internal/sys"
)

// TestFullSocket plays a send buffer that stays full: it is raised once, then
// datagrams are dropped, as a router with a full queue does.
func TestFullSocket(t *testing.T) {
	r, srv := newRig(t), newServer(t, v4)
	r.out(v4.datagram(20100, srv.port(), []byte("x")))
	f := &r.u.rec[0]
	if !r.u.retry(f, sys.EAGAIN) || r.u.retry(f, sys.EAGAIN) {
		t.Error("send buffer not raised exactly once")
	}
	r.u.full([]message{{count: 3}, {count: 1}})
	if n := r.Env.Count.Drops[stats.SocketFull]; n != 4 {
		t.Errorf("%d drops counted, want 4", n)
	}
}

// TestLostDatagrams counts by cause and tells the guest where there is a way.
func TestLostDatagrams(t *testing.T) {
	for _, c := range []struct {
		errno sys.Errno
		why   stats.Reason
		icmp  bool
	}{
		{sys.ENOBUFS, stats.SocketFull, false},
		{sys.EPERM, stats.BadDest, true}, // a firewall of the host's
		{sys.ENETUNREACH, stats.BadDest, true},
		{sys.EMSGSIZE, stats.TooLong, true},
		{sys.EINVAL, stats.BadDest, false},
	} {
		r, srv := newRig(t), newServer(t, v4)
		d := v4.datagram(20101, srv.port(), []byte("x"))
		r.out(d)
		fr := r.Datagram(d)
		r.u.refused(&r.u.rec[0], &message{f: fr, frames: 1, to: 1, count: 1}, c.errno)
		r.Env.Out.Flush()
		if n := r.Env.Count.Drops[c.why]; n != 1 || len(r.Sent) == 1 != c.icmp {
			t.Errorf("%v: %d drops as %v, %d ICMP messages", c.errno, n, c.why, len(r.Sent))
		}
		if c.errno == sys.EMSGSIZE {
			r.checkICMP(r.in(), icmpWant{from: v4.gateway, typ: 3, code: 4, info: 65535, quote: d})
		}
	}
}

// TestBusyFlowYields: one call of Event takes a bounded number of datagrams.
func TestBusyFlowYields(t *testing.T) {
	r, srv := newRig(t), newServer(t, v4)
	r.out(v4.datagram(20102, srv.port(), []byte("x")))
	peer := srv.expect([]byte("x"))
	r.widen()
	const sent = 3 * maxRounds * recvRow
	for range sent {
		srv.reply([]byte("y"), peer)
	}
	got := uint64(0)
	for calls := 1; got < sent; calls++ {
		r.Wait(r.u.Event)
		n := r.Env.Count.UDPToGuest - got
		if n == 0 || n > maxRounds*recvRow {
			t.Fatalf("call %d took %d datagrams, want 1 to %d", calls, n, maxRounds*recvRow)
		}
		got += n
	}
}
