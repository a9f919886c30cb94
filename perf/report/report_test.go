package report

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func sample() *Report {
	return &Report{
		About: []string{"a line"},
		Series: []*Series{
			{
				Row: "tcp/out", Unit: "Gbit/s",
				Samples: map[string][]float64{
					Direct: {100, 90, 110}, Debian: {5}, PenneA: {50, 52}, PenneN: {20, 30, 10},
				},
				Targets: []Target{AtLeast(0.4, Direct), AtLeast(5, Debian), Balanced(0.7, 1.4, "tcp/in")},
			},
			{
				Row: "tcp/in", Unit: "Gbit/s", Samples: map[string][]float64{PenneA: {51}, PenneN: {40}},
				Failures: map[string][]string{Debian: {"iperf3:\n no answer"}},
				Targets:  []Target{AtLeast(1.3, Debian)},
			},
			{Row: "idle", Metric: "wake-ups", Unit: "1/s", Samples: map[string][]float64{PenneA: {0}, PenneN: {2}},
				Targets: []Target{Within(0)}},
			{Row: "rr", Metric: "p50", Unit: "µs", Samples: map[string][]float64{PenneA: {4, 5}},
				Failures: map[string][]string{PenneA: {"no answer"}, PenneN: {"no answer", "again"}},
				Targets:  []Target{Within(9)}},
		},
	}
}

func TestMedian(t *testing.T) {
	s := &Series{Samples: map[string][]float64{"a": {3, 1, 2}, "b": {1, 4, 2, 3}, "c": {7}}}
	for peer, want := range map[string]float64{"a": 2, "b": 2.5, "c": 7} {
		if got, ok := s.Median(peer); !ok || got != want {
			t.Errorf("median of %s: %v %v, want %v", peer, got, ok, want)
		}
	}
	if _, ok := s.Median("nobody"); ok {
		t.Error("a median of nothing")
	}
}

func TestJudge(t *testing.T) {
	r := sample()
	for _, c := range []struct {
		series, target int
		subject        string
		verdict        Verdict
		value          float64
	}{
		{0, 0, PenneA, Pass, 0.51},
		{0, 0, PenneN, Miss, 0.2},
		{0, 1, PenneA, Pass, 10.2},
		{0, 1, PenneN, Miss, 4},
		{0, 2, PenneA, Pass, 1},
		{0, 2, PenneN, Miss, 0.5},
		{1, 0, PenneA, Unknown, 0},
		{2, 0, PenneA, Pass, 0},
		{2, 0, PenneN, Miss, 2},
		{3, 0, PenneA, Miss, 0},
		{3, 0, PenneN, Miss, 0},
	} {
		s := r.Series[c.series]
		v, value := r.Judge(s, s.Targets[c.target], c.subject)
		if v != c.verdict || value != c.value {
			t.Errorf("%s %v of %s: %v %v, want %v %v", s.Name(), s.Targets[c.target], c.subject, v, value, c.verdict, c.value)
		}
	}
	if got := r.Count(PenneA); got[Pass] != 4 || got[Miss] != 1 || got[Unknown] != 1 {
		t.Errorf("count: %v", got)
	}
}

func TestMarkdown(t *testing.T) {
	var b strings.Builder
	if err := sample().Markdown(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"- a line\n",
		"- penne-1: 4 targets passed, 1 missed, 1 not measured\n",
		"| tcp/out | Gbit/s | 100 | 5.00 | 51.0 | 20.0 | 0.51 / 0.20 | 10.2 / 4.00 | " +
			"≥ 0.4 × direct; ≥ 5 × debian; 0.7 to 1.4 × tcp/in | pass (0.51); pass (10.2); pass (1.00) |" +
			" MISS (0.20); MISS (4.00); MISS (0.50) |\n",
		"| tcp/in | Gbit/s |  | failed | 51.0 | 40.0 |  |  | ≥ 1.3 × debian | ? | ? |\n",
		"| idle wake-ups | 1/s |  |  | 0 | 2.00 |  |  | ≤ 0 | pass (0) | MISS (2.00) |\n",
		"| rr p50 | µs |  |  | 4.50 (1 failed) | failed |  |  | ≤ 9 | MISS (1 failed) | MISS (2 failed) |\n",
		"- tcp/in, Debian passt, 1: iperf3: no answer\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("lacks %q in\n%s", want, b.String())
		}
	}
}

func TestJSONCanBeReadBack(t *testing.T) {
	var b bytes.Buffer
	if err := sample().JSON(&b); err != nil {
		t.Fatal(err)
	}
	var back struct {
		Rows []struct {
			Row     string
			Samples map[string][]float64
			Medians map[string]float64
			Targets []judged
		}
	}
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	first := back.Rows[0]
	if first.Row != "tcp/out" || first.Medians[Direct] != 100 || len(first.Samples[PenneN]) != 3 ||
		first.Targets[1].Result[PenneN] != Miss {
		t.Errorf("read back: %+v", first)
	}
}

func TestNumber(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 0.123: "0.12", 12.34: "12.3", 123.4: "123", 1234567: "1,234,567", -2500: "-2,500"} {
		if got := number(x); got != want {
			t.Errorf("number(%v) = %s, want %s", x, got, want)
		}
	}
}
