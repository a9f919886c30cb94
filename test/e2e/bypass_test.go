package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"penne/test/bed"
	"penne/test/client"
)

// path is a way from a client to a server on the other side of pasta.
type path struct {
	name    string
	options []string
	client  func(host, remote, inside *bed.Session) *bed.Session
	server  func(host, inside *bed.Session) *bed.Session
	addr    map[string]string // where the client connects, by family
}

// paths are the tap's and the bypass's: in by the remote machine and by loopback, out by loopback.
var paths = []path{
	{
		"tap in", nil,
		func(_, remote, _ *bed.Session) *bed.Session { return remote },
		func(_, inside *bed.Session) *bed.Session { return inside },
		map[string]string{"v4": net4, "v6": net6},
	},
	{
		"bypass in", nil,
		func(host, _, _ *bed.Session) *bed.Session { return host },
		func(_, inside *bed.Session) *bed.Session { return inside },
		map[string]string{"v4": lo4, "v6": lo6},
	},
	{
		"bypass in to loopback", []string{"--host-lo-to-ns-lo"},
		func(host, _, _ *bed.Session) *bed.Session { return host },
		func(_, inside *bed.Session) *bed.Session { return inside },
		map[string]string{"v4": lo4, "v6": lo6},
	},
	{
		"tap in from loopback", []string{"--no-splice"},
		func(host, _, _ *bed.Session) *bed.Session { return host },
		func(_, inside *bed.Session) *bed.Session { return inside },
		map[string]string{"v4": lo4, "v6": lo6},
	},
	{
		"bypass out", nil,
		func(_, _, inside *bed.Session) *bed.Session { return inside },
		func(host, _ *bed.Session) *bed.Session { return host },
		map[string]string{"v4": lo4, "v6": lo6},
	},
}

// eachPath runs a subtest for each path and family with a session that forwards port 8000 both ways; network and
// kinds are of the servers, at 8001 for the first kind, and so on, reached at 7001 and so on.
func eachPath(t *testing.T, network string, kinds []string, f func(t *testing.T, client *bed.Session, addr func(kind int) string)) {
	b := newBed(t)
	host, remote := direct(t, b, b.Host), direct(t, b, b.Remote)
	in, out := "-t", "-T"
	if network == "udp" {
		in, out = "-u", "-U"
	}
	for _, p := range paths {
		t.Run(p.name, func(t *testing.T) {
			way := in
			if p.name == "bypass out" {
				way = out
			}
			options := append(append(noForward, way, "7001-7004:8001-8004"), p.options...)
			inside := forward(t, b, options...)
			for i, kind := range kinds {
				serveIn(t, p.server(host, inside), network, kind, ":"+strconv.Itoa(8001+i))
			}
			eachFamily(t, func(t *testing.T, fam family) {
				f(t, p.client(host, remote, inside), func(kind int) string { return at(p.addr[fam.name], 7001+kind) })
			})
		})
	}
}

// TestForwardedTransfers moves 10 MiB each way, and both ways at once, over each path.
func TestForwardedTransfers(t *testing.T) {
	size := strconv.Itoa(transfer)
	eachPath(t, "tcp", []string{"sink", "source", "echo"}, func(t *testing.T, c *bed.Session, addr func(int) string) {
		wantBytes(t, tool(t, c, "upload", addr(0), "1", size), 1, transfer)
		wantBytes(t, tool(t, c, "download", addr(1)), 2, transfer)
		wantBytes(t, tool(t, c, "echo", addr(2), "3", size), 3, transfer)
	})
}

// TestForwardedEnds carries half-closes, resets and refusals over each path. The server at 8004 is missing.
func TestForwardedEnds(t *testing.T) {
	eachPath(t, "tcp", []string{"reset", "early", "sink"}, func(t *testing.T, c *bed.Session, addr func(int) string) {
		if o := tool(t, c, "poke", addr(0)); syscall.Errno(o.Errno) != syscall.ECONNRESET {
			t.Errorf("a server's reset arrives as %+v", o)
		}
		if o := tool(t, c, "upload", addr(1), "5", "3000000"); o.Text != "" || o.Bytes != 3000000 || o.Sum != "" {
			t.Errorf("upload after the server's end: %+v", o)
		}
		if o := tool(t, c, "upload", addr(2), "6", "0"); o.Sum != bed.PatternSum(6, 0) {
			t.Errorf("a client's end without a byte: %+v", o)
		}
		// Nobody listens over there: the connection is accepted here before that is known, and then reset.
		o := tool(t, c, "poke", addr(3))
		if errno := syscall.Errno(o.Errno); errno != syscall.ECONNRESET && errno != syscall.ECONNREFUSED {
			t.Errorf("a server that is missing: %+v", o)
		}
	})
}

// TestLoopbackOfAnIPv4Host: the guest has no address of IPv6, so that local clients of IPv6 are led to that of IPv4. What
// listens on its loopback alone is not theirs.
func TestLoopbackOfAnIPv4Host(t *testing.T) {
	b, host, _ := portsBed(t)
	onHost(t, b, "-6", "addr", "flush", "dev", bed.Link)
	s := forward(t, b, append(noForward, "-t", "8000-8001", "-u", "8000-8001")...)
	for _, network := range []string{"tcp", "udp"} {
		serveIn(t, s, network, "who", ":8000", at(lo6, 8001))
		if a := ask(t, host, network, at(lo6, 8000)); a.localIP() != net4 {
			t.Errorf("%s by %s: %+v, want %s", network, lo6, a, net4)
		}
	}
	if a := ask(t, host, "tcp", at(lo6, 8001)); a.Local != "" {
		t.Errorf("a server on the loopback inside answers: %+v", a)
	}
}

// lastWords is what is said before a reset, in octets: less than what Linux sends before the first acknowledgment,
// which the reset would take back.
const lastWords = 10_000

// parting waits for a byte, since who dials may take a reset in that moment for a refusal; then it speaks and resets
// the connection.
func parting(c *net.TCPConn) {
	io.ReadFull(c, make([]byte, 1))
	c.Write(make([]byte, lastWords))
	c.SetLinger(0)
}

// witness tells a client that says nothing how the connection of an earlier one has ended.
func witness(c *net.TCPConn) {
	n, err := io.Copy(io.Discard, c)
	if n == 0 && err == nil {
		fmt.Fprint(c, <-testimonies)
		return
	}
	testimonies <- story(n, err)
}

var _ = bed.Register("hear", hearTool)

// hearTool sends a byte to ADDR and tells what comes then.
func hearTool(args []string) (any, error) {
	c, err := net.DialTimeout("tcp", args[0], client.Patience)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(client.Patience))
	c.Write([]byte{1})
	n, err := io.Copy(io.Discard, c)
	return story(n, err), nil
}

func story(n int64, end error) string {
	return fmt.Sprint(n, " octets, reset: ", errors.Is(end, syscall.ECONNRESET))
}

var testimonies = make(chan string, 100)

// TestLastWords sends octets and a reset right behind them over each path, and out by the tap.
func TestLastWords(t *testing.T) {
	const n = 20
	want := story(lastWords, syscall.ECONNRESET)
	listen := func(t *testing.T, c *bed.Session, parting, witness string) {
		for range n {
			var got string
			if err := c.Tool(&got, "hear", parting); err != nil || got != want {
				t.Errorf("a server's last words: %s, %v", got, err)
			}
		}
		tool(t, c, "abort", witness, strconv.Itoa(n), strconv.Itoa(lastWords))
		for range n {
			if o := tool(t, c, "upload", witness, "0", "0"); o.Sum != want {
				t.Fatalf("a client's last words: %s, %s", o.Sum, o.Text)
			}
		}
	}
	eachPath(t, "tcp", []string{"parting", "witness"}, func(t *testing.T, c *bed.Session, addr func(int) string) {
		listen(t, c, addr(0), addr(1))
	})
	t.Run("tap out", func(t *testing.T) {
		b, s := connect(t)
		remote := direct(t, b, b.Remote)
		serveIn(t, remote, "tcp", "parting", ":8001")
		serveIn(t, remote, "tcp", "witness", ":8002")
		eachFamily(t, func(t *testing.T, f family) { listen(t, s, at(f.remote, 8001), at(f.remote, 8002)) })
	})
}

// TestForwardedShortConnections makes many connections over each path.
func TestForwardedShortConnections(t *testing.T) {
	const n = 1000
	eachPath(t, "tcp", []string{"echo"}, func(t *testing.T, c *bed.Session, addr func(int) string) {
		o := tool(t, c, "short", addr(0), strconv.Itoa(n), "32")
		if o.Bytes != n || o.Fails != 0 {
			t.Errorf("%d of %d connections, the last failure: %s", o.Bytes, n, o.Text)
		}
	})
}

// TestForwardedPortsAreUsedAgain has a client that keeps no TIME-WAIT, and few ports: each connection is like one that
// has just ended, which another thread of pasta may have had.
func TestForwardedPortsAreUsedAgain(t *testing.T) {
	b := newBed(t)
	remote := direct(t, b, b.Remote)
	settings := []string{"sysctl", "-qw", "net.ipv4.tcp_max_tw_buckets=0", "net.ipv4.ip_local_port_range=40000 40099"}
	if res, err := b.Remote.Run(bed.Spec{Argv: settings, Root: true}); err != nil || res.Status != 0 {
		t.Fatalf("%v %+v", err, res)
	}
	inside := forward(t, b, append(noForward, "-t", "7001:8001", "--queues", "2")...)
	serveIn(t, inside, "tcp", "echo", ":8001")
	const n = 1000
	for _, addr := range []string{net4, net6} {
		if o := tool(t, remote, "short", at(addr, 7001), strconv.Itoa(n), "8"); o.Bytes != n || o.Fails != 0 {
			t.Errorf("%s: %d of %d connections, the last failure: %s", addr, o.Bytes, n, o.Text)
		}
	}
}

// TestForwardedDatagrams sends datagrams of several sizes over each path.
func TestForwardedDatagrams(t *testing.T) {
	eachPath(t, "udp", []string{"echo"}, func(t *testing.T, c *bed.Session, addr func(int) string) {
		if o := tool(t, c, "udpecho", addr(0), "1", "64", "1472", "1400", "9000", "65000"); o.Text != "" {
			t.Errorf("%+v", o)
		}
	})
}

// TestWhatTheServerSees compares the addresses at both ends of forwarded connections with the manual's rules.
func TestWhatTheServerSees(t *testing.T) {
	b := newBed(t)
	host, remote := direct(t, b, b.Host), direct(t, b, b.Remote)
	const kept = "the client's own"
	type seen struct{ local, remote string }
	for _, c := range []struct {
		name    string
		options []string
		client  *bed.Session
		addr    [2]string // IPv4 and IPv6
		want    [2]seen
	}{
		// The client's own address is kept through the tap.
		{"remote", nil, remote, [2]string{net4, net6}, [2]seen{{net4, kept}, {net6, kept}}},
		// A spliced connection comes from the guest's own stack.
		{"loopback", nil, host, [2]string{lo4, lo6}, [2]seen{{net4, net4}, {net6, net6}}},
		{"loopback to loopback", []string{"--host-lo-to-ns-lo"}, host, [2]string{lo4, lo6}, [2]seen{{lo4, lo4}, {lo6, lo6}}},
		// Through the tap, loopback is what the guest calls it: the gateway.
		{
			"loopback by tap",
			[]string{"--no-splice"},
			host,
			[2]string{lo4, lo6},
			[2]seen{{net4, bed.GatewayIP4}, {net6, bed.GatewayIP6}},
		},
		{
			"loopback by tap, mapped",
			[]string{"--no-splice", "--map-host-loopback", "192.0.2.9", "--map-host-loopback", "2001:db8:9::9"},
			host,
			[2]string{lo4, lo6},
			[2]seen{{net4, "192.0.2.9"}, {net6, "2001:db8:9::9"}},
		},
		// The host's own address is the guest's as well, which could not answer itself.
		{"own address", nil, host, [2]string{net4, net6}, [2]seen{{net4, bed.GatewayIP4}, {net6, bed.GatewayIP6}}},
		{
			"own address, mapped",
			[]string{"--map-guest-addr", "192.0.2.8", "--map-guest-addr", "2001:db8:9::8"},
			host,
			[2]string{net4, net6},
			[2]seen{{net4, "192.0.2.8"}, {net6, "2001:db8:9::8"}},
		},
		{
			"explicit target",
			[]string{
				"-t", "none", "-t", "127.0.0.1/8000:127.0.0.1/8000", "-t", "[::1]/8000:[::1]/8000",
				"-u", "none", "-u", "127.0.0.1/8000:127.0.0.1/8000", "-u", "[::1]/8000:[::1]/8000",
			},
			host,
			[2]string{lo4, lo6},
			[2]seen{{lo4, lo4}, {lo6, lo6}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := forward(t, b, append([]string{"-t", "8000", "-u", "8000", "-T", "none", "-U", "none"}, c.options...)...)
			for _, network := range []string{"tcp", "udp"} {
				serveIn(t, s, network, "who", ":8000")
				for i, addr := range c.addr {
					a := ask(t, c.client, network, at(addr, 8000))
					want := c.want[i]
					if want.remote == kept {
						want.remote = ipOf(a.From)
					}
					if a.localIP() != want.local || a.remoteIP() != want.remote || a.Text != "" {
						t.Errorf("%s by %s: the server saw %+v, want %+v", addr, network, a, want)
					}
				}
			}
		})
	}
}
