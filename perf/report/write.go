package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// columns are the peers in the order of the table.
var columns = []struct{ peer, head string }{
	{Direct, "direct"}, {Debian, "Debian passt"}, {PenneA, "penne 1 queue"}, {PenneN, "penne n queues"},
}

// Markdown writes the table and what is to be known of it.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# penne beside its peers\n\n")
	for _, line := range r.About {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	for _, subject := range Subjects {
		count := r.Count(subject)
		fmt.Fprintf(&b, "- %s: %d targets passed, %d missed, %d not measured\n", subject,
			count[Pass], count[Miss], count[Unknown])
	}
	b.WriteString("\nMedians of the samples. Ratios are penne's median by the peer's, 1 queue / n queues.\n\n")
	b.WriteString("| row | unit |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s |", c.head)
	}
	b.WriteString(" ÷ direct | ÷ Debian | target | 1 queue | n queues |\n")
	b.WriteString("|---|---|---:|---:|---:|---:|---|---|---|---|---|\n")
	for _, s := range r.Series {
		r.line(&b, s)
	}
	r.failures(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// line writes a series' line of the table.
func (r *Report) line(b *strings.Builder, s *Series) {
	fmt.Fprintf(b, "| %s | %s |", s.Name(), s.Unit)
	for _, c := range columns {
		fmt.Fprintf(b, " %s |", s.cell(c.peer))
	}
	for _, against := range []string{Direct, Debian} {
		fmt.Fprintf(b, " %s |", s.ratios(against))
	}
	var targets []string
	verdicts := make([][]string, len(Subjects))
	for _, t := range s.Targets {
		targets = append(targets, t.String())
		for i, subject := range Subjects {
			verdicts[i] = append(verdicts[i], r.verdict(s, t, subject))
		}
	}
	fmt.Fprintf(b, " %s |", strings.Join(targets, "; "))
	for _, v := range verdicts {
		fmt.Fprintf(b, " %s |", strings.Join(v, "; "))
	}
	b.WriteString("\n")
}

// verdict says what Judge found, and from which figure.
func (r *Report) verdict(s *Series, t Target, subject string) string {
	v, value := r.Judge(s, t, subject)
	switch failed := len(s.Failures[subject]); {
	case failed > 0:
		return fmt.Sprintf("%s (%d failed)", v, failed)
	case v == Unknown:
		return string(v)
	default:
		return fmt.Sprintf("%s (%s)", v, number(value))
	}
}

func (s *Series) cell(peer string) string {
	m, ok := s.Median(peer)
	switch {
	case !ok && len(s.Failures[peer]) > 0:
		return "failed"
	case !ok:
		return ""
	case len(s.Failures[peer]) > 0:
		return fmt.Sprintf("%s (%d failed)", number(m), len(s.Failures[peer]))
	default:
		return number(m)
	}
}

func (s *Series) ratios(against string) string {
	var both []string
	for _, subject := range Subjects {
		if ratio, ok := s.Ratio(subject, against); ok {
			both = append(both, number(ratio))
		}
	}
	return strings.Join(both, " / ")
}

// failures lists why samples are missing, once per peer and row.
func (r *Report) failures(b *strings.Builder) {
	head := "\n## Failed samples\n\n"
	for _, s := range r.Series {
		for _, c := range columns {
			if all := s.Failures[c.peer]; len(all) > 0 && s.Metric == r.firstMetric(s.Row) {
				fmt.Fprintf(b, "%s- %s, %s, %d: %s\n", head, s.Row, c.head, len(all), oneLine(all[0]))
				head = ""
			}
		}
	}
}

func (r *Report) firstMetric(row string) string {
	for _, s := range r.Series {
		if s.Row == row {
			return s.Metric
		}
	}
	return ""
}

func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	return text[:min(len(text), 300)]
}

// entry is a series in the JSON, with what was computed of it.
type entry struct {
	*Series
	Medians map[string]float64 `json:"medians"`
	Targets []judged           `json:"targets,omitempty"`
}

type judged struct {
	Target string             `json:"target"`
	Values map[string]float64 `json:"values"`
	Result map[string]Verdict `json:"result"`
}

// JSON writes everything: each sample, medians, verdicts.
func (r *Report) JSON(w io.Writer) error {
	out := struct {
		About []string `json:"about"`
		Rows  []entry  `json:"rows"`
	}{About: r.About}
	for _, s := range r.Series {
		e := entry{Series: s, Medians: map[string]float64{}}
		for _, c := range columns {
			if m, ok := s.Median(c.peer); ok {
				e.Medians[c.peer] = m
			}
		}
		for _, t := range s.Targets {
			j := judged{t.String(), map[string]float64{}, map[string]Verdict{}}
			for _, subject := range Subjects {
				j.Result[subject], j.Values[subject] = r.Judge(s, t, subject)
			}
			e.Targets = append(e.Targets, j)
		}
		out.Rows = append(out.Rows, e)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	return enc.Encode(out)
}
