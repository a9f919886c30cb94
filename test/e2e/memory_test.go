package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"penne/test/bed"
	"penne/test/client"
)

// portMemory is the most memory that the engine may take for a socket of thousands that it listens on.
const portMemory = 512

// TestManyPorts forwards thousands of ports, and all there can be, reports what that costs (with -v), and uses the
// last of them.
func TestManyPorts(t *testing.T) {
	b, host, remote := portsBed(t)
	var none int64 // RSS without any port
	for _, c := range []struct {
		name    string
		options []string
		port    int // to be forwarded by TCP; and by UDP if udp is set
		udp     bool
		says    string
	}{
		{"none", noForward, 0, false, ""},
		{"1000 TCP", append(noForward, "-t", "8000-8999"), 8999, false, ""},
		{"1000 TCP and UDP", append(noForward, "-t", "8000-8999", "-u", "8000-8999"), 8999, true, ""},
		{"all", append(noForward, "-t", "all", "-u", "all"), 2000, true, "open files"},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			s := limited(t, b, 20000, append([]string{"-q"}, c.options...)...)
			took := time.Since(start)
			pid := engineOf(t, s)
			u := bed.UsageOf([]int{pid})
			fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			t.Logf("%s: RSS %.1f MiB, %d descriptors, started in %v", c.name, float64(u.RSS)/(1<<20), len(fds), took)
			if c.says != "" && !strings.Contains(s.Proc.Stderr.String(), c.says) {
				t.Errorf("it says %q, want %q", s.Proc.Stderr, c.says)
			}
			if c.port == 0 {
				none = u.RSS
				return
			}
			if len(fds) > 5000 {
				awaitMemory(t, pid, none+int64(len(fds))*portMemory)
			}
			reach(t, host, remote, s, "tcp", c.port)
			if c.udp {
				reach(t, host, remote, s, "udp", c.port)
			}
		})
	}
}

// awaitMemory waits until no more than most octets of a process are resident: garbage of its start goes after it.
func awaitMemory(t *testing.T, pid int, most int64) {
	t.Helper()
	rss := int64(0)
	for end := time.Now().Add(client.Patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if rss = bed.UsageOf([]int{pid}).RSS; rss <= most {
			return
		}
	}
	t.Errorf("RSS %d KiB in the end, want %d at most", rss>>10, most>>10)
}

// reach asks a server inside by a forwarded port, from both sides.
func reach(t *testing.T, host, remote, inside *bed.Session, network string, port int) {
	t.Helper()
	serveIn(t, inside, network, "who", fmt.Sprint(":", port))
	for _, ip := range []string{lo4, lo6, net4, net6} {
		if a := ask(t, clientOf(host, remote, ip), network, at(ip, port)); a.localPort() != port {
			t.Errorf("%s port %d by %s: %+v", network, port, ip, a)
		}
	}
}
