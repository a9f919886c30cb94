package engine

import (
	"net"
	"strconv"
	"syscall"
	"testing"

	"penne/internal/conf"
	"penne/tap/tun"
	"penne/test/links"
)

// TestNameOfTheTapComesFree has a predecessor in the same namespace let go of its tap after the first attempt.
func TestNameOfTheTapComesFree(t *testing.T) {
	links.Inside(t, func() {
		old, err := tun.Open(tun.Options{Name: "eth0", Queues: 2})
		if err != nil {
			t.Error(err)
			return
		}
		var r retry
		tries := 0
		err = r.whileInUse(func() error {
			tries++
			d, err := tun.Open(tun.Options{Name: "eth0", Queues: 2})
			if err != nil {
				old.Close()
				return err
			}
			return d.Close()
		})
		if err != nil || tries != 2 {
			t.Errorf("%d attempts: %v", tries, err)
		}
	})
}

// TestLowPortsLeftOver has a launcher bind as many ports of "all" as it may, and
// a lane that takes fewer of them: nobody may be left waiting at the rest.
func TestLowPortsLeftOver(t *testing.T) {
	c, err := conf.Parse([]string{"pasta", "-t", "all"})
	if err != nil {
		t.Fatal(err)
	}
	links.Inside(t, func() {
		b := privilegedBinder{conf: c, last: 1023, tcp: true, maxAll: 5}
		b.bindAll(&c.Forward.TCPIn[0])
		if len(b.sockets) != 5 {
			t.Errorf("the launcher bound %d ports, want 5", len(b.sockets))
		}
		n := lane{privileged: b.sockets}
		for range 3 {
			p := n.privileged[0]
			fd, ok := n.takePrivileged(conf.PortRule{}, p.Port)
			if !ok {
				t.Errorf("port %d is not found", p.Port)
			}
			defer syscall.Close(fd)
		}
		n.closePrivileged()
		for port := 1; port <= 6; port++ {
			l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
			if free := err == nil; free != (port > 3) {
				t.Errorf("port %d is free: %v (%v)", port, free, err)
			} else if free {
				l.Close()
			}
		}
	})
}
