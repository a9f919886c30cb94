package nl

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"penne/internal/sys"
	"penne/test/links"
)

// patience is when a test gives up.
const patience = time.Minute

// follow runs f in a new namespace with a Monitor of it.
func follow(t *testing.T, o Options, setup []string, f func(m *Monitor, s State, next func(until func(State) bool) State)) {
	t.Helper()
	links.Inside(t, func() {
		ipCmds(t, setup...)
		m, s, err := NewMonitor(o)
		if err != nil {
			t.Error(err)
			return
		}
		defer m.Close()
		states, errs := make(chan State), make(chan error, 1)
		go func() {
			for {
				s, err := m.Next()
				if err != nil {
					errs <- err
					return
				}
				states <- s
			}
		}()
		f(m, s, func(until func(State) bool) (s State) {
			t.Helper()
			give := time.After(patience)
			for {
				select {
				case s = <-states:
					if until(s) {
						return s
					}
				case err := <-errs:
					t.Errorf("monitor: %v", err)
					return s
				case <-give:
					t.Errorf("no such change; the last state was %+v", s)
					return s
				}
			}
		})
	})
}

// TestMonitor follows a host that gets a network, changes it, and loses it.
func TestMonitor(t *testing.T) {
	follow(t, Options{}, []string{"link set lo up"}, func(_ *Monitor, s State, next func(func(State) bool) State) {
		if !s.Template.V4.Local || s.Local.Contains(addr("198.51.100.2")) {
			t.Errorf("before there is a network: %+v", s)
		}
		ipCmds(t, host[1:]...)
		s = next(func(s State) bool {
			return s.Template.V4.Gateway == addr("198.51.100.1") && s.Template.V6.Gateway == addr("2001:db8:1::1")
		})
		if s.Template.V4.Local || s.Template.Ifname != "up0" || !s.Local.Contains(addr("198.51.100.2")) || !s.Local.Contains(addr("2001:db8:1::2")) {
			t.Errorf("with a network: %+v", s)
		}
		ipCmds(t, "route replace default via 198.51.100.9")
		next(func(s State) bool { return s.Template.V4.Gateway == addr("198.51.100.9") })
		ipCmds(t, "link set up0 mtu 1400")
		next(func(s State) bool { return s.Template.V4.MTU == 1400 })
		ipCmds(t, "addr add 192.0.2.3/24 dev lo")
		next(func(s State) bool { return s.Local.Contains(addr("192.0.2.3")) })
		ipCmds(t, "link del up0")
		s = next(func(s State) bool { return s.Template.V4.Local && s.Template.V6.Local })
		if s.Local.Contains(addr("198.51.100.2")) || s.Template.Ifname != FallbackIfname {
			t.Errorf("without a network: %+v", s)
		}
	})
}

// TestMonitorIgnores changes what a guest does not see, then what it does: the
// first state told is the second one's.
func TestMonitorIgnores(t *testing.T) {
	follow(t, Options{}, host, func(_ *Monitor, s State, next func(func(State) bool) State) {
		// Both ends of the link get their link-local addresses in their own time.
		settled := func(s State) bool {
			return len(slices.DeleteFunc(slices.Clone(s.Local.All()), func(a netip.Addr) bool { return !a.IsLinkLocalUnicast() })) == 2
		}
		if !settled(s) {
			next(settled)
		}
		ipCmds(t, "route add 10.0.0.0/8 via 198.51.100.7 table 100", "veth other0", "route add blackhole 10.0.0.0/8")
		ipCmds(t, "route add 10.0.0.0/8 via 198.51.100.7 metric 5")
		s = next(func(State) bool { return true })
		if !slices.ContainsFunc(s.Template.V4.Routes, func(r Route) bool { return r.Metric == 5 }) {
			t.Errorf("told without a change: %+v", s)
		}
	})
}

// TestMonitorRecovers has a look at the network fail, as without memory: what
// changed meanwhile is found by the next one.
func TestMonitorRecovers(t *testing.T) {
	links.Inside(t, func() {
		m, _, err := NewMonitor(Options{})
		if err != nil {
			t.Error(err)
			return
		}
		defer m.Close()
		m.retry = 0
		m.conn.Close()
		ipCmds(t, host...)
		if _, err := m.Next(); err == nil || errors.Is(err, os.ErrClosed) {
			t.Errorf("a look that fails says %v", err)
		}
		if m.conn, err = Dial(); err != nil {
			t.Error(err)
			return
		}
		s, err := m.Next()
		if err != nil || s.Template.V4.Gateway != addr("198.51.100.1") {
			t.Errorf("then it sees %+v, %v", s, err)
		}
	})
}

// TestMonitorNamed keeps the template of a named interface that goes, and
// finds it when it is back.
func TestMonitorNamed(t *testing.T) {
	follow(t, Options{Interface: "up0"}, host, func(_ *Monitor, _ State, next func(func(State) bool) State) {
		ipCmds(t, "link del up0")
		s := next(func(s State) bool { return !s.Local.Contains(addr("198.51.100.2")) })
		if s.Template.V4.Gateway != addr("198.51.100.1") {
			t.Errorf("template was lost: %+v", s)
		}
		ipCmds(t, "veth up0", "link set up0 up", "addr add 203.0.113.2/24 dev up0", "route add default via 203.0.113.1")
		next(func(s State) bool { return s.Template.V4.Gateway == addr("203.0.113.1") })
	})
}

func TestMonitorClose(t *testing.T) {
	m, _, err := NewMonitor(Options{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		for {
			if _, err := m.Next(); err != nil {
				done <- err
				return
			}
		}
	}()
	m.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("error %v, want %v", err, os.ErrClosed)
	}
}

func TestRelevant(t *testing.T) {
	msg := func(typ uint16, body []byte) []byte {
		b := ne.AppendUint32(nil, uint32(sys.SizeofNlMsghdr+len(body)))
		return append(append(ne.AppendUint16(b, typ), make([]byte, 10)...), body...)
	}
	main := (&Route{Dst: netip.MustParsePrefix("10.0.0.0/8"), Type: sys.RtnUnicast}).body(2)
	local := slices.Clone(main)
	local[4] = 255
	clone := slices.Clone(main)
	ne.PutUint32(clone[8:], sys.RtmFCloned)
	tests := []struct {
		name string
		b    []byte
		want bool
	}{
		{"nothing", nil, false},
		{"link", msg(sys.RtmNewLink, make([]byte, 16)), true},
		{"address", msg(sys.RtmDelAddr, make([]byte, 8)), true},
		{"route", msg(sys.RtmDelRoute, main), true},
		{"local table", msg(sys.RtmNewRoute, local), false},
		{"clone", msg(sys.RtmNewRoute, clone), false},
		{"several", append(msg(sys.RtmNewRoute, local), msg(sys.RtmNewRoute, main)...), true},
		{"cut short", msg(sys.RtmNewRoute, local)[:40], true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := relevant(tt.b); got != tt.want {
				t.Errorf("relevant is %v, want %v", got, tt.want)
			}
		})
	}
}

func TestLocal(t *testing.T) {
	s := &Snapshot{Addrs: []Addr{
		{Prefix: netip.MustParsePrefix("198.51.100.2/24")}, {Prefix: netip.MustParsePrefix("fe80::1/64")},
		{Prefix: netip.MustParsePrefix("10.0.0.1/8")}, {Prefix: netip.MustParsePrefix("fe80::1/64"), Index: 3},
		{Prefix: netip.MustParsePrefix("2001:db8::1/64"), Flags: sys.IfaFDADFailed},
	}}
	l := s.Local()
	for ip, want := range map[string]bool{"198.51.100.2": true, "10.0.0.1": true, "fe80::1": true, "127.9.9.9": true, "::1": true,
		"198.51.100.3": false, "2001:db8::1": false, "::ffff:10.0.0.1": false} {
		if got := l.Contains(addr(ip)); got != want {
			t.Errorf("Contains(%s) is %v, want %v", ip, got, want)
		}
	}
	if len(l.All()) != 3 {
		t.Errorf("addresses %v, want each once", l.All())
	}
	a := addr("fe80::1")
	if n := testing.AllocsPerRun(100, func() { l.Contains(a) }); n != 0 {
		t.Errorf("%v allocations per Contains", n)
	}
}

// FuzzMessages has all parsers read anything.
func FuzzMessages(f *testing.F) {
	r := Route{Dst: netip.MustParsePrefix("10.0.0.0/8"), Gateway: addr("fe80::1"), Type: sys.RtnUnicast, Metric: 5, Metrics: "1234"}
	f.Add(r.body(2))
	r.Nexthops = []Nexthop{{Gateway: addr("192.0.2.1"), Weight: 3}, {}}
	f.Add(r.body(2))
	f.Add(addrBody(2, &Addr{Prefix: netip.MustParsePrefix("2001:db8::1/64"), Peer: addr("2001:db8::2")}))
	f.Add(attr(linkBody(3, 1, 1), sys.IflaIfname, []byte("eth0\x00")))
	f.Add(attr(attr32(make([]byte, 8), sys.NhaID, 7), sys.NhaGroup, make([]byte, 20)))
	f.Add([]byte("\x02\x00\x000\xfe0000000\b\x00\x01\x000000")) // a default route with an address
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, ok := parseLink(b); ok && strings.ContainsRune(l.Name, 0) {
			t.Error("a name holds its terminator")
		}
		if a, ok := parseAddr(b); ok && !a.Prefix.IsValid() {
			t.Error("took an address that is none")
		}
		if r, ok := parseRoute(b); ok {
			// What was read is written as it was meant.
			back, ok := parseRoute(r.body(r.Index))
			if !ok && r.Dst.IsValid() && r.Dst.Addr().Is4() == (b[0] == sys.AF_INET) && !r.Default() {
				t.Errorf("%v does not survive", r)
			}
			if ok && (back.Dst != r.Dst || back.Metric != r.Metric || len(back.Nexthops) != len(r.Nexthops)) {
				t.Errorf("%v became %v", r, back)
			}
		}
		parseNexthopObject(b)
		relevant(b)
	})
}
