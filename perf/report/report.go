package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Names of the peers, as columns and as keys of samples.
const (
	Direct = "direct"
	Debian = "debian"
	PenneA = "penne-1" // one queue
	PenneN = "penne-n" // one queue per CPU
)

// Subjects are the peers that targets judge.
var Subjects = []string{PenneA, PenneN}

// Target is what a subject's median must reach.
type Target struct {
	Against string  // a peer, whose median divides the subject's; empty for the subject's own median
	Row     string  // divide by the subject's own median in this row instead
	Min     float64 // inclusive; -Inf for none
	Max     float64 // inclusive; +Inf for none
}

// AtLeast wants subject ÷ peer to be x or more.
func AtLeast(x float64, peer string) Target { return Target{Against: peer, Min: x, Max: math.Inf(1)} }

// AtMost wants subject ÷ peer to be x or less.
func AtMost(x float64, peer string) Target { return Target{Against: peer, Min: math.Inf(-1), Max: x} }

// Within wants the subject's own figure to be x or less.
func Within(x float64) Target { return Target{Min: math.Inf(-1), Max: x} }

// Balanced wants the subject's figure to be between two multiples of its own in another row.
func Balanced(low, high float64, row string) Target { return Target{Row: row, Min: low, Max: high} }

// String says the target as the table does.
func (t Target) String() string {
	of := ""
	switch {
	case t.Row != "":
		of = " × " + t.Row
	case t.Against != "":
		of = " × " + t.Against
	}
	switch {
	case math.IsInf(t.Max, 1):
		return fmt.Sprintf("≥ %g%s", t.Min, of)
	case math.IsInf(t.Min, -1):
		return fmt.Sprintf("≤ %g%s", t.Max, of)
	default:
		return fmt.Sprintf("%g to %g%s", t.Min, t.Max, of)
	}
}

// Series is one figure of one row for all peers.
type Series struct {
	Row      string               `json:"row"`
	Metric   string               `json:"metric"`
	Unit     string               `json:"unit"`
	Samples  map[string][]float64 `json:"samples"`
	Failures map[string][]string  `json:"failures,omitempty"`
	Targets  []Target             `json:"-"`
}

// Name is the row and, for all but its first figure, the figure.
func (s *Series) Name() string {
	if s.Metric == "" {
		return s.Row
	}
	return s.Row + " " + s.Metric
}

// Median is the middle sample of a peer, and false if there is none.
func (s *Series) Median(peer string) (float64, bool) {
	sorted := slices.Sorted(slices.Values(s.Samples[peer]))
	n := len(sorted)
	if n == 0 {
		return 0, false
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2, true
}

// Ratio is the median of one peer divided by that of another.
func (s *Series) Ratio(peer, against string) (float64, bool) {
	a, ok := s.Median(peer)
	b, okB := s.Median(against)
	if !ok || !okB || b == 0 {
		return 0, false
	}
	return a / b, true
}

// Verdict is a target's answer for one subject.
type Verdict string

// The verdicts. Unknown is for what was not measured in this run; it is no pass. A subject with a failed sample misses,
// however good its others are.
const (
	Pass    Verdict = "pass"
	Miss    Verdict = "MISS"
	Unknown Verdict = "?"
)

// Report is the outcome of a run.
type Report struct {
	About  []string  `json:"about"` // how and where it was measured, a line each
	Series []*Series `json:"series"`
}

// Judge holds a target against a subject's figures.
func (r *Report) Judge(s *Series, t Target, subject string) (Verdict, float64) {
	if len(s.Failures[subject]) > 0 {
		return Miss, 0
	}
	value, ok := s.Median(subject)
	switch {
	case t.Row != "":
		other := r.find(t.Row, s.Metric)
		if other == nil {
			return Unknown, 0
		}
		base, okBase := other.Median(subject)
		ok = ok && okBase && base != 0
		value /= base
	case t.Against != "":
		value, ok = s.Ratio(subject, t.Against)
	}
	switch {
	case !ok || math.IsNaN(value):
		return Unknown, 0
	case value < t.Min || value > t.Max:
		return Miss, value
	default:
		return Pass, value
	}
}

func (r *Report) find(row, metric string) *Series {
	for _, s := range r.Series {
		if s.Row == row && s.Metric == metric {
			return s
		}
	}
	return nil
}

// Count tells how many targets a subject passed, missed, and left open.
func (r *Report) Count(subject string) map[Verdict]int {
	count := map[Verdict]int{}
	for _, s := range r.Series {
		for _, t := range s.Targets {
			v, _ := r.Judge(s, t, subject)
			count[v]++
		}
	}
	return count
}

// number prints three digits that matter.
func number(x float64) string {
	switch {
	case x == 0:
		return "0"
	case math.Abs(x) >= 1000:
		return grouped(int64(math.Round(x)))
	case math.Abs(x) >= 100:
		return fmt.Sprintf("%.0f", x)
	case math.Abs(x) >= 10:
		return fmt.Sprintf("%.1f", x)
	default:
		return fmt.Sprintf("%.2f", x)
	}
}

// grouped prints thousands with commas.
func grouped(n int64) string {
	text := fmt.Sprint(n)
	var parts []string
	for len(text) > 3 && text[len(text)-4] != '-' {
		parts = append(parts, text[len(text)-3:])
		text = text[:len(text)-3]
	}
	slices.Reverse(parts)
	return strings.Join(append([]string{text}, parts...), ",")
}
