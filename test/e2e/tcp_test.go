package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"penne/test/bed"
	"penne/test/client"
)

// serve runs a TCP server for the length of a test.
func serve(t *testing.T, n *bed.NS, ip string, handle func(*net.TCPConn)) *bed.Server {
	t.Helper()
	srv, err := n.ServeTCP(bed.HostPort(ip, "0"), handle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	return srv
}

// tool runs a tool inside.
func tool(t *testing.T, s *bed.Session, name string, args ...string) client.Outcome {
	t.Helper()
	var o client.Outcome
	if err := s.Tool(&o, name, args...); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestTCPTransfers(t *testing.T) {
	for _, mtu := range []int{1500, 9000, 65520} {
		t.Run(fmt.Sprint("mtu", mtu), func(t *testing.T) {
			b, s := connect(t, "-m", strconv.Itoa(mtu))
			eachFamily(t, func(t *testing.T, f family) { transfers(t, b, s, f) })
		})
	}
}

// transfers moves bytes out, in, and both ways at once, and compares sums.
func transfers(t *testing.T, b *bed.Bed, s *bed.Session, f family) {
	const n = 16 << 20
	size := strconv.Itoa(n)
	t.Run("out", func(t *testing.T) {
		o := tool(t, s, "upload", serve(t, b.Remote, f.remote, client.Sink).Addr.String(), "1", size)
		wantBytes(t, o, 1, n)
	})
	t.Run("in", func(t *testing.T) {
		srv := serve(t, b.Remote, f.remote, client.Source(2, n))
		wantBytes(t, tool(t, s, "download", srv.Addr.String()), 2, n)
	})
	t.Run("both", func(t *testing.T) {
		srv := serve(t, b.Remote, f.remote, bed.EchoTCP)
		wantBytes(t, tool(t, s, "echo", srv.Addr.String(), "3", size), 3, n)
	})
}

func wantBytes(t *testing.T, o client.Outcome, seed uint64, n int64) {
	t.Helper()
	if want := bed.PatternSum(seed, n); o.Bytes != n || o.Sum != want || o.Text != "" {
		t.Errorf("%d bytes of %d, sum %.8s of %.8s, %s", o.Bytes, n, o.Sum, want, o.Text)
	}
}

// TestTCPParallelTransfers has streams of different bytes each: what reaches another than its own shows.
func TestTCPParallelTransfers(t *testing.T) {
	const (
		n       = 4 << 20
		streams = 20
	)
	b, s := connect(t)
	eachFamily(t, func(t *testing.T, f family) {
		up := serve(t, b.Remote, f.remote, client.Sink).Addr.String()
		var wg sync.WaitGroup
		for i := range streams {
			seed := uint64(i)
			args := []string{up, strconv.Itoa(i), strconv.Itoa(n)}
			name := "upload"
			if i%2 == 1 {
				args[0] = serve(t, b.Remote, f.remote, client.Source(seed, n)).Addr.String()
				name = "download"
			}
			wg.Go(func() {
				var o client.Outcome
				if err := s.Tool(&o, name, args...); err != nil {
					t.Error(err)
					return
				}
				wantBytes(t, o, seed, n)
			})
		}
		wg.Wait()
	})
}

// TestTCPServerEndsFirst is the other half-close: the server's direction ends at once, the client's goes on.
func TestTCPServerEndsFirst(t *testing.T) {
	const n = 4 << 20
	b, s := connect(t)
	eachFamily(t, func(t *testing.T, f family) {
		sum := make(chan string, 1)
		srv := serve(t, b.Remote, f.remote, func(c *net.TCPConn) {
			c.CloseWrite()
			h := sha256.New()
			io.Copy(h, c)
			sum <- hex.EncodeToString(h.Sum(nil))
		})
		o := tool(t, s, "upload", srv.Addr.String(), "4", strconv.Itoa(n))
		if o.Text != "" || o.Bytes != n {
			t.Fatalf("upload after the server's end: %+v", o)
		}
		if got, want := <-sum, bed.PatternSum(4, n); got != want {
			t.Errorf("sum %.8s, want %.8s", got, want)
		}
	})
}

// TestTCPAddressChanges: a connection outlives a change of the Ethernet address inside.
func TestTCPAddressChanges(t *testing.T) {
	need(t, "bash")
	b, s := connect(t)
	eachFamily(t, func(t *testing.T, f family) {
		srv := serve(t, b.Remote, f.remote, bed.EchoTCP)
		link := strings.Fields(run(t, s, "ip", "-o", "link", "show", "type", "tun"))
		dev, mac := strings.TrimSuffix(link[1], ":"), link[slices.Index(link, "link/ether")+1]
		const script = `set -e
			exec 3<>/dev/tcp/$1/$2
			for mac in $4 ${4%??}77 $4; do
				ip link set dev $3 address $mac
				echo $mac >&3
				read -t 60 -u 3 answer
				[ $answer = $mac ]
			done`
		run(t, s, "bash", "-c", script, "bash", f.remote, strconv.Itoa(srv.Port()), dev, mac)
	})
}

// TestTCPReset carries a server's reset to the client.
func TestTCPReset(t *testing.T) {
	b, s := connect(t)
	eachFamily(t, func(t *testing.T, f family) {
		srv := serve(t, b.Remote, f.remote, func(c *net.TCPConn) {
			io.ReadFull(c, make([]byte, 1))
			c.SetLinger(0)
		})
		o := tool(t, s, "poke", srv.Addr.String())
		if syscall.Errno(o.Errno) != syscall.ECONNRESET {
			t.Errorf("got %+v, want a connection reset", o)
		}
	})
}

func TestTCPRefused(t *testing.T) {
	b, s := connect(t)
	eachFamily(t, func(t *testing.T, f family) {
		closed := serve(t, b.Remote, f.remote, bed.EchoTCP)
		closed.Close()
		o := tool(t, s, "dial", closed.Addr.String())
		if syscall.Errno(o.Errno) != syscall.ECONNREFUSED {
			t.Errorf("got %+v, want connection refused", o)
		}
	})
}

// TestTCPUnreachable has the host's routing refuse a destination; the client is told the truth, not silence
// and not a refusal by a machine that was never reached.
func TestTCPUnreachable(t *testing.T) {
	b, s := connect(t)
	for _, c := range []struct{ name, prefix, addr string }{
		{"v4", "203.0.113.0/24", "203.0.113.9:80"},
		{"v6", "2001:db8:dead::/64", "[2001:db8:dead::9]:80"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inHost(t, b, "ip", "route", "add", "unreachable", c.prefix)
			o := tool(t, s, "dial", c.addr)
			if errno := syscall.Errno(o.Errno); errno != syscall.EHOSTUNREACH && errno != syscall.ENETUNREACH {
				t.Errorf("got %+v, want unreachable", o)
			}
		})
	}
}

// inHost runs a command as root in the host namespace.
func inHost(t *testing.T, b *bed.Bed, argv ...string) string {
	t.Helper()
	res, err := b.Host.Run(bed.Spec{Argv: argv, Root: true})
	if err != nil {
		t.Fatal(err)
	}
	if res.Status != 0 {
		t.Fatalf("%v: status %d: %s", argv, res.Status, res.Stderr)
	}
	return res.Stdout
}

func TestTCPShortConnections(t *testing.T) {
	const n = 2000
	b, s := connect(t)
	eachFamily(t, func(t *testing.T, f family) {
		srv := serve(t, b.Remote, f.remote, bed.EchoTCP)
		o := tool(t, s, "short", srv.Addr.String(), strconv.Itoa(n), "32")
		if o.Bytes != n || o.Fails != 0 {
			t.Errorf("%d of %d connections, %d failures, the last: %s", o.Bytes, n, o.Fails, o.Text)
		}
	})
}

// TestTCPSameHost reaches the host's loopback by the gateway's address.
func TestTCPSameHost(t *testing.T) {
	const n = 4 << 20
	b, s := connect(t)
	for _, c := range []struct{ name, loopback, gateway string }{
		{"v4", "127.0.0.1", bed.GatewayIP4}, {"v6", "::1", bed.GatewayIP6},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := serve(t, b.Host, c.loopback, bed.EchoTCP)
			o := tool(t, s, "echo", bed.HostPort(c.gateway, strconv.Itoa(srv.Port())), "6", strconv.Itoa(n))
			wantBytes(t, o, 6, n)
		})
	}
}

// TestTCPOverALossyPath is the remote peer that same-host tests never see: 10 ms away, losing 1 frame in 200.
func TestTCPOverALossyPath(t *testing.T) {
	const n = 2 << 20
	b := newBed(t, bed.WithRelay(10*time.Millisecond, 0.005), bed.WithMTU(1500))
	s := attach(t, b)
	eachFamily(t, func(t *testing.T, f family) {
		o := tool(t, s, "upload", serve(t, b.Remote, f.remote, client.Sink).Addr.String(), "7", strconv.Itoa(n))
		wantBytes(t, o, 7, n)
		srv := serve(t, b.Remote, f.remote, client.Source(8, n))
		wantBytes(t, tool(t, s, "download", srv.Addr.String()), 8, n)
	})
}
