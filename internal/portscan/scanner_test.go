package portscan

import (
	"io"
	"net"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"penne/internal/nl"
	"penne/internal/sys"
	"penne/test/links"
)

// inNetns runs f in a new network namespace, with lo up.
func inNetns(t testing.TB, f func()) {
	t.Helper()
	links.Inside(t, func() {
		c, err := nl.Dial()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if err := c.LoopbackUp(); err != nil {
			t.Error(err)
			return
		}
		f()
	})
}

// diagOnly reports whether all ports come from sock_diag, none from /proc/net.
func diagOnly(s *Scanner) bool { return s.tcp.tables == nil && s.udp.tables == nil }

// open opens a Scanner that is closed with the test.
func open(t testing.TB, o Options) *Scanner {
	t.Helper()
	o.TCP, o.UDP = true, true
	s, err := Open(o)
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
	t.Cleanup(s.Close)
	return s
}

// keep closes c with the test.
func keep[C io.Closer](t testing.TB, c C, err error) C {
	t.Helper()
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func listen(t testing.TB, network, addr string) uint16 {
	t.Helper()
	l, err := net.Listen(network, addr)
	return portOf(keep(t, l, err).Addr().String())
}

func bind(t testing.TB, network, addr string) uint16 {
	t.Helper()
	l, err := net.ListenPacket(network, addr)
	return portOf(keep(t, l, err).LocalAddr().String())
}

func portOf(hostport string) uint16 {
	_, p, _ := net.SplitHostPort(hostport)
	n, _ := strconv.ParseUint(p, 10, 16)
	return uint16(n)
}

func ports(p *Ports) []uint16 { return slices.Collect(p.All()) }

// TestScan has sockets of each kind, and finds those that matter, by both ways.
func TestScan(t *testing.T) {
	inNetns(t, func() {
		listen(t, "tcp4", "127.0.0.1:1001")
		listen(t, "tcp4", "0.0.0.0:1002")
		listen(t, "tcp6", "[::1]:1003")
		listen(t, "tcp", "[::]:1004")
		l, err := net.Listen("tcp4", "127.0.0.1:1006")
		keep(t, l, err)
		c, err := net.Dial("tcp4", "127.0.0.1:1006")
		established := portOf(keep(t, c, err).LocalAddr().String())
		bind(t, "udp4", "127.0.0.1:2001")
		bind(t, "udp6", "[::1]:2003")
		bind(t, "udp", "[::]:2004")
		u, err := net.Dial("udp4", "127.0.0.1:2001")
		connected := portOf(keep(t, u, err).LocalAddr().String())
		for _, o := range []Options{{}, {Proc: true}} {
			s := open(t, o)
			if diagOnly(s) == o.Proc {
				t.Errorf("sock_diag only: %v with Proc %v", diagOnly(s), o.Proc)
			}
			for range 2 {
				var r Result
				if err := s.Scan(&r); err != nil {
					t.Error(err)
				}
				check(t, "TCP IPv4", &r.TCP.V4, 1001, 1002, 1004, 1006)
				check(t, "TCP IPv6", &r.TCP.V6, 1003, 1004)
				check(t, "UDP IPv4", &r.UDP.V4, 2001, 2004)
				check(t, "UDP IPv6", &r.UDP.V6, 2003, 2004)
				if r.TCP.V4.Has(established) || r.UDP.V4.Has(connected) {
					t.Error("found a connected socket's port")
				}
			}
		}
	})
}

func check(t *testing.T, what string, p *Ports, want ...uint16) {
	t.Helper()
	if got := ports(p); !slices.Equal(got, want) {
		t.Errorf("%s: ports %v, want %v", what, got, want)
	}
}

// TestScanWithoutDiag: a protocol whose sock_diag the kernel lacks, a module of
// its own, is read from the tables. No kernel has one for protocol 253 (RFC 3692).
func TestScanWithoutDiag(t *testing.T) {
	inNetns(t, func() {
		bind(t, "udp4", "127.0.0.1:2006")
		bind(t, "udp6", "[::1]:2007")
		d, err := openDiag()
		if err != nil {
			t.Error(err)
			return
		}
		s := &Scanner{diag: d}
		t.Cleanup(s.Close)
		var src source
		if err := s.openSource(&src, "udp", 253, sys.TCPClose); err != nil || len(src.dumps) != 0 {
			t.Errorf("error %v, %d dumps", err, len(src.dumps))
			return
		}
		s.udp = src
		var f Families
		if err := s.scan(&src, &f); err != nil {
			t.Error(err)
		}
		check(t, "IPv4", &f.V4, 2006)
		check(t, "IPv6", &f.V6, 2007)
	})
}

// TestScanV6Only finds that a socket bound to :: with IPV6_V6ONLY does not
// serve IPv4; the tables cannot tell.
func TestScanV6Only(t *testing.T) {
	inNetns(t, func() {
		listen(t, "tcp6", "[::]:1005")
		bind(t, "udp6", "[::]:2005")
		s := open(t, Options{})
		if !diagOnly(s) {
			t.Skip("this kernel has no sock_diag for TCP and UDP")
		}
		var r Result
		if err := s.Scan(&r); err != nil {
			t.Error(err)
		}
		check(t, "TCP IPv4", &r.TCP.V4)
		check(t, "TCP IPv6", &r.TCP.V6, 1005)
		check(t, "UDP IPv4", &r.UDP.V4)
		check(t, "UDP IPv6", &r.UDP.V6, 2005)
	})
}

// TestScanFollows finds ports that come and go.
func TestScanFollows(t *testing.T) {
	inNetns(t, func() {
		for _, o := range []Options{{}, {Proc: true}} {
			s := open(t, o)
			var r Result
			l, err := net.Listen("tcp4", "127.0.0.1:1234")
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Scan(&r); err != nil || !r.TCP.V4.Has(1234) {
				t.Errorf("error %v, ports %v; want 1234", err, ports(&r.TCP.V4))
			}
			l.Close()
			if err := s.Scan(&r); err != nil || r.TCP.V4.Len() != 0 {
				t.Errorf("error %v, ports %v; want none", err, ports(&r.TCP.V4))
			}
		}
	})
}

// TestScanElsewhere scans from a thread outside the namespace.
func TestScanElsewhere(t *testing.T) {
	var s [2]*Scanner
	inNetns(t, func() {
		listen(t, "tcp4", "127.0.0.1:4321")
		s = [2]*Scanner{open(t, Options{}), open(t, Options{Proc: true})}
	})
	for _, s := range s {
		var r Result
		if err := s.Scan(&r); err != nil {
			t.Fatal(err)
		}
		check(t, "TCP IPv4", &r.TCP.V4, 4321)
	}
}

// thousand binds 1,000 sockets, 250 of each kind.
func thousand(t testing.TB) {
	for i := range 250 {
		p := ":" + strconv.Itoa(10000+i)
		listen(t, "tcp4", "127.0.0.1"+p)
		listen(t, "tcp6", "[::1]"+p)
		bind(t, "udp4", "127.0.0.1"+p)
		bind(t, "udp6", "[::1]"+p)
	}
}

func TestScanThousand(t *testing.T) {
	inNetns(t, func() {
		thousand(t)
		for _, o := range []Options{{}, {Proc: true}} {
			var r Result
			if err := open(t, o).Scan(&r); err != nil {
				t.Error(err)
			}
			for _, p := range []*Ports{&r.TCP.V4, &r.TCP.V6, &r.UDP.V4, &r.UDP.V6} {
				if p.Len() != 250 || !p.Has(10000) || !p.Has(10249) {
					t.Errorf("found %d ports, want 10000 to 10249", p.Len())
				}
			}
		}
	})
}

func TestScanNoAlloc(t *testing.T) {
	inNetns(t, func() {
		thousand(t)
		for _, o := range []Options{{}, {Proc: true}} {
			s := open(t, o)
			var r Result
			if n := testing.AllocsPerRun(20, func() {
				if err := s.Scan(&r); err != nil {
					t.Error(err)
				}
			}); n != 0 {
				t.Errorf("%v allocations per scan with %+v, want none", n, o)
			}
		}
	})
}

func TestOpenOneProtocol(t *testing.T) {
	s, err := Open(Options{TCP: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	keep(t, u, err)
	var r Result
	if err := s.Scan(&r); err != nil || r.UDP != (Families{}) {
		t.Errorf("error %v, %d UDP ports; want none", err, r.UDP.V4.Len())
	}
}

func TestPorts(t *testing.T) {
	var p, own Ports
	for _, port := range []uint16{0, 1, 63, 64, 65535} {
		p.Add(port)
	}
	own.Add(63)
	own.Add(2)
	p.RemoveAll(&own)
	check(t, "ports", &p, 0, 1, 64, 65535)
	p.Remove(1)
	check(t, "ports", &p, 0, 64, 65535)
}

func TestPolicy(t *testing.T) {
	const s = time.Second
	steps := []struct {
		now     time.Duration
		traffic uint64
		changed bool
		want    time.Duration
	}{
		{5 * s, 0, false, BusyInterval},
		{14*s + 999*time.Millisecond, 0, false, BusyInterval},
		{15 * s, 0, false, IdleInterval},
		{60 * s, 0, false, IdleInterval},
		{61 * s, 7, false, BusyInterval},
		{70 * s, 7, false, BusyInterval},
		{71 * s, 7, false, IdleInterval},
		{72 * s, 7, true, BusyInterval},
		{75 * s, 8, false, BusyInterval},
		{82 * s, 8, false, BusyInterval},
		{85 * s, 8, false, IdleInterval},
		{86 * s, 3, false, BusyInterval}, // a counter that starts again counts as traffic
	}
	var p Policy
	for _, st := range steps {
		if got := p.Next(st.now, st.traffic, st.changed); got != st.want {
			t.Errorf("at %v: %v, want %v", st.now, got, st.want)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	for _, bm := range []struct {
		name string
		o    Options
		fill func(testing.TB)
	}{
		{"empty/diag", Options{}, func(testing.TB) {}},
		{"empty/proc", Options{Proc: true}, func(testing.TB) {}},
		{"thousand/diag", Options{}, thousand},
		{"thousand/proc", Options{Proc: true}, thousand},
	} {
		b.Run(bm.name, func(b *testing.B) {
			inNetns(b, func() {
				bm.fill(b)
				s := open(b, bm.o)
				var r Result
				b.ReportAllocs()
				for b.Loop() {
					if err := s.Scan(&r); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
