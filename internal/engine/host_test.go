package engine

import (
	"reflect"
	"strings"
	"testing"

	"penne/internal/fwd"
	"penne/internal/nl"
	"penne/internal/stats"
	"penne/internal/wire"
)

func TestMoveGuest(t *testing.T) {
	rule := func(a string) *fwd.Rules { return &fwd.Rules{V4: fwd.Family{On: true, Guest: w(a)}} }
	for _, c := range []struct{ seen, old, next, want string }{
		{"192.0.2.2", "192.0.2.2", "192.0.2.3", "192.0.2.3"}, // it had what we gave
		{"", "192.0.2.2", "192.0.2.3", "192.0.2.3"},
		{"192.0.2.9", "192.0.2.2", "192.0.2.3", "192.0.2.9"}, // its own choice
		{"192.0.2.2", "192.0.2.2", "192.0.2.2", "192.0.2.2"},
		{"192.0.2.2", "192.0.2.2", "", "192.0.2.2"},
	} {
		var g fwd.Guest
		if seen := w(c.seen); c.seen != "" {
			g.SawAddr(&seen)
		}
		old, next := rule(c.old), rule(c.next)
		moveGuest(&g, old, next)
		peer := w("198.51.100.1")
		if got := g.Addr(&peer, next); got != w(c.want) {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestDescribeFamily(t *testing.T) {
	r := &fwd.Family{On: true, Gateway: w("192.0.2.1"), HostLoopback: w("192.0.2.1"), GuestMap: w("169.254.1.2")}
	full := template().V4
	full.Name = "eth0"
	local := nl.Family{On: true, Local: true, Addrs: []nl.Addr{{Prefix: nl.LocalGuest4}}}
	for _, c := range []struct {
		t    nl.Family
		r    fwd.Family
		want string
	}{
		{full, *r, "IPv4 after eth0: 192.0.2.9/24; router 192.0.2.1; host's loopback at 192.0.2.1; host itself at 169.254.1.2"},
		{local, fwd.Family{On: true}, "IPv4: the host has no network: 169.254.2.1/16"},
		{full, fwd.Family{}, ""},
	} {
		if got := describeFamily("IPv4", &c.t, &c.r); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestDescribeNames(t *testing.T) {
	r := &fwd.Rules{
		V4: fwd.Family{On: true, DNSForward: w("169.254.1.1"), DNSHost: w("127.0.0.53")},
		V6: fwd.Family{On: true, DNSForward: w("fd00::53")},
	}
	n := &announcement{servers: []wire.Addr{w("169.254.1.1"), w("2001:db8::53")}, search: []string{"a.example", "b.example"}}
	want := "names: 169.254.1.1 leads to 127.0.0.53; fd00::53 leads to no resolver, there is none of its family; announced 169.254.1.1 2001:db8::53; search a.example b.example"
	if got := describeNames(r, n); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := describeNames(&fwd.Rules{}, &announcement{}); got != "" {
		t.Errorf("nothing to tell: %q", got)
	}
}

func TestTable(t *testing.T) {
	one, two := stats.Counters{TapRxFrames: 3}, stats.Counters{TapRxFrames: 4, UDPFlows: 1}
	two.Drop(stats.Malformed)
	for _, c := range []struct {
		shards []stats.Counters
		want   string
	}{
		{[]stats.Counters{one}, "total; frames from guest 3"},
		{[]stats.Counters{one, two}, "total shard 0 shard 1; frames from guest 7 3 4; UDP flows 1 0 1; dropped: malformed 1 0 1"},
	} {
		lines := table(c.shards)
		for i := range lines {
			lines[i] = strings.Join(strings.Fields(lines[i]), " ")
		}
		if got := strings.Join(lines, "; "); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// TestTableHasEveryCounter counts one of each: one that is in stats.Counters and
// not in the table would be missed by its readers.
func TestTableHasEveryCounter(t *testing.T) {
	var c stats.Counters
	rows := 0
	v := reflect.ValueOf(&c).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Uint64 {
			f.SetUint(1)
			rows++
		}
	}
	for r := range stats.NumReasons {
		c.Drop(r)
		rows++
	}
	if got := len(table([]stats.Counters{c})); got != rows+1 {
		t.Errorf("%d lines for %d counters", got, rows)
	}
}
