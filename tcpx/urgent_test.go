package tcpx

import (
	"fmt"
	"net"
	"syscall"
	"testing"
)

// sendUrgent writes before, mark as urgent data, and after.
func sendUrgent(t *testing.T, host *net.TCPConn, before, mark, after string) {
	t.Helper()
	raw, err := host.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	host.Write([]byte(before))
	raw.Control(func(fd uintptr) { err = syscall.Sendto(int(fd), []byte(mark), syscall.MSG_OOB, nil) })
	if err != nil {
		t.Fatal(err)
	}
	host.Write([]byte(after))
}

func TestUrgentFromHost(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	sendUrgent(t, host, "ab", "c", "de")
	if got := receiveSome(t, g, 5); string(got) != "abcde" {
		t.Errorf("%q", got)
	}
}

// TestUrgentInFlight: without an offset for peeks, a mark among what is in flight
// hides what lies behind it until that is acknowledged.
func TestUrgentInFlight(t *testing.T) {
	r := newRig(t, false, Config{NoPeekOff: true})
	g, host := r.open()
	host.Write([]byte("ab"))
	s := g.Next()
	sendUrgent(t, host, "", "c", "de")
	g.Until(func() bool { return r.conn().max-g.Ack == 5 || r.conn().urgent })
	g.Ack += uint32(len(s.Data))
	g.Send(0, nil)
	if got := receiveSome(t, g, 3); string(got) != "cde" {
		t.Errorf("%q", got)
	}
}

// TestUrgentBeforeTheHandshake: what is there when connect ends may hold an urgent
// mark already, and the end.
func TestUrgentBeforeTheHandshake(t *testing.T) {
	for _, noOff := range []bool{false, true} {
		for _, end := range []bool{false, true} {
			t.Run(fmt.Sprintf("NoPeekOff %t end %t", noOff, end), func(t *testing.T) {
				urgentBeforeTheHandshake(t, newRig(t, false, Config{NoPeekOff: noOff}), end)
			})
		}
	}
}

func urgentBeforeTheHandshake(t *testing.T, r *rig, end bool) {
	g := r.dial()
	g.SYN()
	host, err := r.ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	sendUrgent(t, host, "ab", "c", "de")
	if end {
		host.CloseWrite()
	}
	g.Ack = g.Next().Seq() + 1
	g.Send(0, nil)
	if end {
		if got := receive(t, g, 5); string(got) != "abcde" {
			t.Errorf("%q", got)
		}
	} else if got := receiveSome(t, g, 5); string(got) != "abcde" {
		t.Errorf("%q", got)
	}
}
