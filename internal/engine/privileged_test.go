package engine

import (
	"net"
	"strconv"
	"syscall"
	"testing"

	"penne/internal/conf"
	"penne/test/links"
)

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
