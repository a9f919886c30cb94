package nl

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"penne/internal/sys"
	"penne/test/links"
)

// patience is when a test gives up.
const patience = time.Minute

// follow runs f in a new namespace with a Monitor of it.
func follow(t *testing.T, o Options, setup []string, f func(m *Monitor, tpl Template, next func(until func(Template) bool) Template)) {
	t.Helper()
	links.Inside(t, func() {
		ipCmds(t, setup...)
		m, tpl, err := NewMonitor(o)
		if err != nil {
			t.Error(err)
			return
		}
		defer m.Close()
		changes, errs := make(chan Template), make(chan error, 1)
		run := sync.OnceFunc(func() { go tell(m, changes, errs) })
		f(m, tpl, func(until func(Template) bool) (tpl Template) {
			t.Helper()
			run()
			give := time.After(patience)
			for {
				select {
				case tpl = <-changes:
					if until(tpl) {
						return tpl
					}
				case err := <-errs:
					t.Errorf("monitor: %v", err)
					return tpl
				case <-give:
					t.Errorf("no such change; the last template was %+v", tpl)
					return tpl
				}
			}
		})
	})
}

func tell(m *Monitor, changes chan<- Template, errs chan<- error) {
	for {
		tpl, err := m.Next()
		if err != nil {
			errs <- err
			return
		}
		changes <- tpl
	}
}

// TestMonitor follows a host that gets a network, changes it, and loses it.
func TestMonitor(t *testing.T) {
	follow(t, Options{}, []string{"link set lo up"}, func(_ *Monitor, tpl Template, next func(func(Template) bool) Template) {
		if !tpl.V4.Local {
			t.Errorf("before there is a network: %+v", tpl)
		}
		ipCmds(t, host[1:]...)
		tpl = next(func(t Template) bool {
			return t.V4.Gateway == addr("198.51.100.1") && t.V6.Gateway == addr("2001:db8:1::1")
		})
		if tpl.V4.Local || tpl.Ifname != "up0" {
			t.Errorf("with a network: %+v", tpl)
		}
		ipCmds(t, "route replace default via 198.51.100.9")
		next(func(t Template) bool { return t.V4.Gateway == addr("198.51.100.9") })
		ipCmds(t, "link set up0 mtu 1400")
		next(func(t Template) bool { return t.V4.MTU == 1400 })
		ipCmds(t, "link del up0")
		tpl = next(func(t Template) bool { return t.V4.Local && t.V6.Local })
		if tpl.Ifname != FallbackIfname {
			t.Errorf("without a network: %+v", tpl)
		}
	})
}

// TestMonitorIgnores changes what a guest does not see, then what it does: the
// first change told is the second one.
func TestMonitorIgnores(t *testing.T) {
	follow(t, Options{}, host, func(_ *Monitor, tpl Template, next func(func(Template) bool) Template) {
		// The link gets its link-local address in its own time.
		if !tpl.V6.HostLinkLocal.IsValid() {
			next(func(t Template) bool { return t.V6.HostLinkLocal.IsValid() })
		}
		ipCmds(t, "route add 10.0.0.0/8 via 198.51.100.7 table 100", "veth other0", "route add blackhole 10.0.0.0/8",
			"addr add 192.0.2.3/24 dev lo")
		ipCmds(t, "route add 10.0.0.0/8 via 198.51.100.7 metric 5")
		tpl = next(func(Template) bool { return true })
		if !slices.ContainsFunc(tpl.V4.Routes, func(r Route) bool { return r.Metric == 5 }) {
			t.Errorf("told without a change: %+v", tpl)
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
		tpl, err := m.Next()
		if err != nil || tpl.V4.Gateway != addr("198.51.100.1") {
			t.Errorf("then it sees %+v, %v", tpl, err)
		}
	})
}

// TestMonitorNamed keeps the template of a named interface that goes, and
// finds it when it is back.
func TestMonitorNamed(t *testing.T) {
	follow(t, Options{Interface: "up0"}, host, func(m *Monitor, _ Template, next func(func(Template) bool) Template) {
		ipCmds(t, "link del up0")
		if changed, err := m.step(); changed || err != nil || m.last.V4.Gateway != addr("198.51.100.1") {
			t.Errorf("template was lost: changed %v, %v, %+v", changed, err, m.last)
		}
		ipCmds(t, "veth up0", "link set up0 up", "addr add 203.0.113.2/24 dev up0", "route add default via 203.0.113.1")
		next(func(t Template) bool { return t.V4.Gateway == addr("203.0.113.1") })
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
