package scenario

import (
	"slices"
	"strings"
	"testing"

	"penne/perf/report"
	"penne/test/bed"
)

func TestRowsAreDistinctAndComplete(t *testing.T) {
	seen := map[string]bool{}
	rows := Rows()
	for _, row := range rows {
		if seen[row.Name] {
			t.Errorf("two rows %s", row.Name)
		}
		seen[row.Name] = true
		if row.Sample == nil || len(row.Metrics) == 0 {
			t.Errorf("row %s measures nothing", row.Name)
		}
	}
	for _, row := range rows {
		for _, m := range row.Metrics {
			for _, target := range m.Targets {
				if target.Row != "" && !seen[target.Row] {
					t.Errorf("row %s is compared with %s, which is no row", row.Name, target.Row)
				}
			}
		}
	}
}

func TestArgv(t *testing.T) {
	r := Runner{Pasta: "/p/pasta", Debian: "/usr/bin/pasta", Queues: 4}
	row := &Row{MTU: 1500, Options: []string{"-T", "99"}}
	for peer, want := range map[string]string{
		report.Debian: "/usr/bin/pasta --config-net -f -m 1500 -q -t none -u none -U none -T 99",
		report.PenneA: "/p/pasta --config-net -f --queues 1 -m 1500 -q -t none -u none -U none -T 99",
		report.PenneN: "/p/pasta --config-net -f --queues 4 -m 1500 -q -t none -u none -U none -T 99",
	} {
		if got := strings.Join(r.argv(peer, row), " "); got != want {
			t.Errorf("%s: %s", peer, got)
		}
	}
	if got := strings.Join(r.argv(report.Debian, &Row{Bare: true}), " "); got != "/usr/bin/pasta --config-net -f" {
		t.Errorf("bare: %s", got)
	}
}

func TestPeersWithoutDebian(t *testing.T) {
	r := Runner{}
	if got := r.peers(&Row{}); slices.Contains(got, report.Debian) || len(got) != 3 {
		t.Errorf("peers: %v", got)
	}
	r.Debian = "/usr/bin/pasta"
	if got := r.peers(&Row{}); len(got) != 4 {
		t.Errorf("peers: %v", got)
	}
	if got := r.peers(&Row{Peers: tapPeers}); !slices.Equal(got, tapPeers) {
		t.Errorf("peers: %v", got)
	}
}

func TestParseIperf(t *testing.T) {
	const good = `{"start":{},"end":{"sum_sent":{"bytes":9},"sum_received":{"bytes":125000000,"bits_per_second":1.0e9}}}`
	bits, moved, err := parseIperf(bed.Result{Stdout: good})
	if err != nil || bits != 1e9 || moved != 125e6 {
		t.Errorf("got %v %v %v", bits, moved, err)
	}
	for _, bad := range []string{"", "{", `{"end":{}}`, `{"error":"unable to connect","end":{}}`} {
		if _, _, err := parseIperf(bed.Result{Stdout: bad}); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestParseSockperf(t *testing.T) {
	const good = `sockperf: ---> <MAX> observation =  103.110
sockperf: ---> percentile 99.999 =  103.110
sockperf: ---> percentile 99.000 =   11.437
sockperf: ---> percentile 50.000 =    4.567
`
	f, err := parseSockperf(bed.Result{Stdout: good})
	if err != nil || f["p50"] != 4.567 || f["p99"] != 11.437 {
		t.Errorf("got %v %v", f, err)
	}
	if _, err := parseSockperf(bed.Result{Status: 1, Stdout: good}); err == nil {
		t.Error("a failed run was read")
	}
	if _, err := parseSockperf(bed.Result{Stdout: "sockperf: No messages were received"}); err == nil {
		t.Error("nothing was read")
	}
}

func TestFind(t *testing.T) {
	ab := bed.Result{Stdout: "Failed requests:        0\nRequests per second:    10021.53 [#/sec] (mean)\n"}
	if got, err := find(ab, abRate); err != nil || got != 10021.53 {
		t.Errorf("ab: %v %v", got, err)
	}
	if got, err := find(ab, abFailed); err != nil || got != 0 {
		t.Errorf("ab: %v %v", got, err)
	}
	if got, err := find(bed.Result{Stdout: "Requests/sec:  38050.12\n"}, wrkRate); err != nil || got != 38050.12 {
		t.Errorf("wrk: %v %v", got, err)
	}
	if _, err := find(bed.Result{}, wrkRate); err == nil {
		t.Error("found in nothing")
	}
}
