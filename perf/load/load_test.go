package load

import (
	"net"
	"testing"
	"time"
)

func socket(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestDatagramsAreCountedOneByOne sends few enough to lose none.
func TestDatagramsAreCountedOneByOne(t *testing.T) {
	for _, s := range []Shape{{Size: 64}, {Size: 1400}, {Size: 1400, Offload: true}, {Size: 8972, Offload: true}} {
		to, from := socket(t), socket(t)
		r, err := NewReceiver(to, s)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- r.Receive(time.Now().Add(time.Minute)) }()
		payload := make([]byte, 3*s.Size)
		if s.Offload {
			if err := setOption(from, 17, udpSegment, s.Size); err != nil {
				t.Fatal(err)
			}
		} else {
			payload = payload[:s.Size]
		}
		for range 10 {
			if _, err := from.WriteTo(payload, to.LocalAddr()); err != nil {
				t.Fatal(err)
			}
		}
		if err := SendEnd(from, to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want := int64(10 * len(payload) / s.Size)
		if got := r.Wait(); got.Datagrams != want {
			t.Errorf("%+v: counted %d, want %d", s, got.Datagrams, want)
		}
	}
}

func TestSendTellsHowManyTheKernelTook(t *testing.T) {
	for _, s := range []Shape{{Size: 100}, {Size: 100, Offload: true}} {
		from, to := socket(t), socket(t)
		sent, err := Send(from, to.LocalAddr(), s, time.Millisecond)
		if err != nil || sent < batch {
			t.Errorf("%+v: sent %d, %v", s, sent, err)
		}
	}
}

func TestReceiveEndsAtItsDeadline(t *testing.T) {
	r, err := NewReceiver(socket(t), Shape{Size: 64})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Receive(time.Now()); err != nil {
		t.Fatal(err)
	}
	if f := r.Wait(); f.Rate() != 0 {
		t.Errorf("a rate of nothing: %+v", f)
	}
}
