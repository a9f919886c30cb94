package e2e

import (
	"net"
	"strconv"
	"syscall"
	"testing"

	"penne/test/bed"
)

func serveUDP(t *testing.T, n *bed.NS, ip string) *bed.Server {
	t.Helper()
	srv, err := n.ServeUDP(bed.HostPort(ip, "0"), bed.Echo)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	return srv
}

// TestUDPSizes sends every kind of size that fits the MTU; what does not is fragmented by the guest, and
// fragments are not carried.
func TestUDPSizes(t *testing.T) {
	for _, c := range []struct {
		mtu   string
		sizes []string
		most  map[string]string // the largest payload, by family
	}{
		{"1500", []string{"1", "2", "3", "63", "64", "1000", "1400"}, map[string]string{"v4": "1472", "v6": "1452"}},
		{"9000", []string{"1", "64", "1400", "1472", "4096"}, map[string]string{"v4": "8972", "v6": "8952"}},
		{"65520", []string{"1", "1472", "8972", "32768"}, map[string]string{"v4": "65492", "v6": "65472"}},
	} {
		t.Run("mtu"+c.mtu, func(t *testing.T) {
			b, s := connect(t, "-m", c.mtu)
			eachFamily(t, func(t *testing.T, f family) {
				args := append([]string{serveUDP(t, b.Remote, f.remote).Addr.String()}, c.sizes...)
				if o := tool(t, s, "udpecho", append(args, c.most[f.name])...); o.Text != "" {
					t.Errorf("%+v", o)
				}
			})
		})
	}
}

func TestUDPSameHost(t *testing.T) {
	b, s := connect(t)
	for _, c := range []struct{ name, loopback, gateway string }{
		{"v4", "127.0.0.1", bed.GatewayIP4}, {"v6", "::1", bed.GatewayIP6},
	} {
		t.Run(c.name, func(t *testing.T) {
			port := serveUDP(t, b.Host, c.loopback).Port()
			o := tool(t, s, "udpecho", bed.HostPort(c.gateway, strconv.Itoa(port)), "1", "1400")
			if o.Text != "" {
				t.Errorf("%+v", o)
			}
		})
	}
}

// TestUDPRefused carries a port unreachable to the client.
func TestUDPRefused(t *testing.T) {
	b, s := connect(t)
	eachFamily(t, func(t *testing.T, f family) {
		srv := serveUDP(t, b.Remote, f.remote)
		srv.Close()
		srv.Wait()
		o := tool(t, s, "udpsend", srv.Addr.String())
		if syscall.Errno(o.Errno) != syscall.ECONNREFUSED {
			t.Errorf("got %+v, want connection refused", o)
		}
	})
}

// TestUDPSourcePortIsKept binds inside and looks at what the server saw. Nothing takes the port on the host by chance:
// the kernel chooses from 32768 on.
func TestUDPSourcePortIsKept(t *testing.T) {
	b, s := connect(t)
	eachFamily(t, func(t *testing.T, f family) {
		need(t, "socat")
		srv, err := b.Remote.ServeUDP(bed.HostPort(f.remote, "0"), func(_ []byte, from net.Addr) []byte {
			return []byte(from.String())
		})
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		to := "UDP" + f.flag[1:] + "-CONNECT:" + bracketed(f.remote) + ":" + strconv.Itoa(srv.Port()) + ",sourceport=20123"
		// -t60 waits for the answer after the end of input, and readbytes ends with it.
		want := bed.HostPort(f.host, "20123")
		res, err := s.RunInput([]byte("x"), "socat", "-t60", "-", to+",readbytes="+strconv.Itoa(len(want)))
		if err != nil || res.Stdout != want {
			t.Errorf("server saw %q, want %q (%v, %s)", res.Stdout, want, err, res.Stderr)
		}
	})
}

func bracketed(ip string) string {
	if net.ParseIP(ip).To4() != nil {
		return ip
	}
	return "[" + ip + "]"
}
