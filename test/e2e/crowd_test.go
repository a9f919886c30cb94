package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"penne/test/bed"
	"penne/test/client"
)

// limited starts pasta with a limit of open files, which its command shares.
func limited(t *testing.T, b *bed.Bed, files int, options ...string) *bed.Session {
	t.Helper()
	limit := fmt.Sprintf("--nofile=%d:%d", files, files)
	argv := append([]string{"/usr/bin/prlimit", limit, staged(t, b)}, "--config-net", "-f")
	s, err := b.Pasta(append(argv, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// crowd holds connections to an echo server until it is stopped.
func crowd(t *testing.T, s *bed.Session, addr string, n int) (stop func()) {
	t.Helper()
	end, err := s.BackgroundTool("^holding "+strconv.Itoa(n)+"$", "hold", addr, strconv.Itoa(n), "echo")
	if err != nil {
		t.Fatal(err)
	}
	return func() { end() }
}

// TestNoDescriptorLeft opens more connections than the limit of files allows. Those that exist go on, and when
// some end, new ones are served.
func TestNoDescriptorLeft(t *testing.T) {
	b, host, remote := portsBed(t)
	for _, c := range []struct {
		name, option string
		addr         string
		sockets      int    // that the engine comes to have
		how          string // do clients wait: a full table of flows turns them away
	}{{"bypass in", "-t", lo4, 700, "watch"}, {"bypass out", "-T", lo4, 700, "watch"}, {"tap", "-t", net4, 200, ""}} {
		t.Run(c.name, func(t *testing.T) {
			s := limited(t, b, 900, append(noForward, c.option, "8000-8002:9000-9002")...)
			from, server := clientOf(host, remote, c.addr), s
			if c.option == "-T" {
				from, server = s, host
			}
			serveIn(t, server, "tcp", "echo", ":9000", ":9001")
			serveIn(t, server, "tcp", "who", ":9002")
			stopOld, err := from.BackgroundTool("^kept", "keep", at(c.addr, 8001))
			if err != nil {
				t.Fatal(err)
			}
			// The backlog takes what the process cannot.
			stop, err := from.BackgroundTool("^holding", "hold", at(c.addr, 8000), "1500", c.how)
			if err != nil {
				t.Fatal(err)
			}
			awaitSockets(t, engineOf(t, s), c.sockets)
			if err := stop(); err != nil {
				t.Errorf("the crowd: %v", err)
			}
			await(t, from, "tcp", at(c.addr, 8002)) // there is room for one
			run(t, server, "timeout", "60", "sh", "-c", "while ss -Htn sport = :9000 state connected exclude time-wait | grep -q .; do :; done")
			o := tool(t, from, "short", at(c.addr, 8000), "200", "16")
			if o.Bytes != 200 || o.Fails != 0 {
				t.Errorf("after the crowd: %+v", o)
			}
			if err := stopOld(); err != nil {
				t.Errorf("the connection from before has ended: %v", err)
			}
		})
	}
}

// awaitSockets waits until a process has n sockets.
func awaitSockets(t *testing.T, pid, n int) {
	t.Helper()
	used := 0
	for end := time.Now().Add(client.Patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if used = countFDs(pid, "socket:"); used >= n {
			return
		}
	}
	t.Fatalf("%d sockets in the end", used)
}

// TestNamespaceDiesWithACrowd ends the namespace's last process with ten thousand connections open.
func TestNamespaceDiesWithACrowd(t *testing.T) {
	const n = 5000
	b, host, remote := portsBed(t)
	s := forward(t, b, append(noForward, "-t", "8000-8001")...)
	serveIn(t, s, "tcp", "echo", ":8000")
	serveIn(t, s, "tcp", "echo", ":8001") // has a pipe for each connection as well, and its own limit of files
	stopHost, stopRemote := crowd(t, host, at(lo4, 8000), n), crowd(t, remote, at(net4, 8001), n)
	defer stopHost()
	defer stopRemote()
	processes := s.Processes()
	if used := countFDs(engineOf(t, s), "socket:"); used < 3*n {
		t.Errorf("%d sockets for %d connections", used, 2*n)
	}
	s.Close() // waits for pasta's end
	for _, pid := range processes {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("process %d is still there", pid)
		}
	}
	left := inHost(t, b, "ss", "-Htln", "sport = :8000 or sport = :8001")
	if left != "" {
		t.Errorf("listeners are left: %s", left)
	}
}

// TestTermWithACrowd stops pasta with a thousand connections open; peers are told.
func TestTermWithACrowd(t *testing.T) {
	const n = 1000
	b, host, remote := portsBed(t)
	s, err := b.Pasta(append(append([]string{pastaBinary(t)}, forwarding...), append(noForward, "-t", "8000")...)...)
	if err != nil {
		t.Fatal(err)
	}
	serveIn(t, s, "tcp", "echo", ":8000")
	stopHost, stopRemote := crowd(t, host, at(lo4, 8000), n), crowd(t, remote, at(net4, 8000), n)
	defer stopHost()
	defer stopRemote()
	s.Terminate()
	// The last resets may be under way.
	run(t, remote, "timeout", "60", "sh", "-c", "while ss -Htn state established dport = :8000 | grep -q .; do :; done")
}

// TestTermWithManyListeners stops a pasta whose listeners take longer to close than its flows to end. The namespace
// goes on, and so do its ends of the connections: peers hear by a reset that theirs are cut.
func TestTermWithManyListeners(t *testing.T) {
	const n = 50
	need(t, "socat")
	b, host, remote := portsBed(t)
	for _, c := range []struct {
		name   string
		client *bed.Session
		addr   string
	}{{"bypass", host, lo4}, {"tap", remote, net4}} {
		t.Run(c.name, func(t *testing.T) {
			s, pidFile := caller(t, b, true), scratch(t, b, "pid")
			dir, err := b.ScratchDir()
			if err != nil {
				t.Fatal(err)
			}
			vars := map[string]string{"DIR": dir, "PASTA": staged(t, b), "PID": pidFile}
			script(t, s, vars, netnsFile+`"$PASTA" --config-net -q -P "$PID" -t 8000,10000-24999 -u none -T none -U none --netns "$DIR/ns"`)
			inside(t, s, vars, `nsenter --net="$DIR/ns" socat -d -d TCP6-LISTEN:8000,ipv6only=0,fork PIPE`)
			if o := tool(t, c.client, "outlive", at(c.addr, 8000), strconv.Itoa(n), pidFile); o.Bytes != n {
				t.Errorf("%d of %d connections are reset: %+v", o.Bytes, n, o)
			}
		})
	}
}

var _ = bed.Register("outlive", outliveTool)

// outliveTool has COUNT echoing connections to ADDR when it sends a TERM to the process of PIDFILE, and reports how
// many are reset.
func outliveTool(args []string) (any, error) {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, err
	}
	conns := make([]net.Conn, n)
	for i := range conns {
		if conns[i], err = net.Dial("tcp", args[0]); err != nil {
			return nil, err
		}
		if err := echoByte(conns[i]); err != nil {
			return nil, err
		}
	}
	text, err := os.ReadFile(args[2])
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return nil, err
	}
	var o client.Outcome
	for _, c := range conns {
		if _, err := c.Read(make([]byte, 1)); errors.Is(err, syscall.ECONNRESET) {
			o.Bytes++
		} else {
			o.Text = fmt.Sprint(err)
		}
	}
	return o, nil
}

// TestResetsDuringHandshakes has clients that reset their connections as soon as they have them, or before.
func TestResetsDuringHandshakes(t *testing.T) {
	b, host, remote := portsBed(t)
	s := forward(t, b, append(noForward, "-t", "8000")...)
	serveIn(t, s, "tcp", "echo", ":8000")
	for _, c := range []struct {
		client *bed.Session
		addr   string
	}{{host, lo4}, {remote, net4}, {remote, net6}} {
		tool(t, c.client, "abort", at(c.addr, 8000), "500")
		o := tool(t, c.client, "short", at(c.addr, 8000), "50", "8")
		if o.Bytes != 50 || o.Fails != 0 {
			t.Errorf("after resets by %s: %+v", c.addr, o)
		}
	}
}

// TestConnectionsSpread looks at which shard has how many of the connections to one port: each watches those it
// has, in an epoll instance of its own.
func TestConnectionsSpread(t *testing.T) {
	const n = 64
	b, host, remote := portsBed(t)
	for _, c := range []struct {
		name   string
		client *bed.Session
		addr   string
	}{{"bypass", host, lo4}, {"tap", remote, net4}} {
		t.Run(c.name, func(t *testing.T) {
			s := forward(t, b, append(noForward, "-t", "8000", "--queues", "2")...)
			serveIn(t, s, "tcp", "echo", ":8000")
			engine := engineOf(t, s)
			before := watched(t, engine)
			defer crowd(t, c.client, at(c.addr, 8000), n)()
			after, busy := watched(t, engine), 0
			for epoll := range after {
				if after[epoll] -= before[epoll]; after[epoll] >= n/4 {
					busy++
				}
			}
			if busy != 2 {
				t.Errorf("%d shards have a fair share of %d connections: %v", busy, n, after)
			}
		})
	}
}

// watched is how many descriptors each epoll instance of a process watches.
func watched(t *testing.T, pid int) map[string]int {
	t.Helper()
	all := map[string]int{}
	dir := fmt.Sprintf("/proc/%d/", pid)
	entries, err := os.ReadDir(dir + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, _ := os.Readlink(dir + "fd/" + e.Name()); to != "anon_inode:[eventpoll]" {
			continue
		}
		info, err := os.ReadFile(dir + "fdinfo/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = strings.Count(string(info), "tfd:")
	}
	return all
}
