// Command perf measures penne beside its peers, direct veth and Debian's passt, and writes one table:
//
//	perf [-scenario REGEXP] [-rounds N] [-for DURATION] [-out DIR] [-pasta PATH]
//
// It needs root, to build the two-namespace bed that package bed describes.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"penne/perf/report"
	"penne/perf/scenario"
	"penne/test/bed"
)

// options are the command line.
type options struct {
	scenario string
	rounds   int
	lasting  time.Duration
	out      string
	pasta    string
	debian   string
	list     bool
}

func main() {
	if bed.RunAgent() {
		return
	}
	var o options
	flag.StringVar(&o.scenario, "scenario", "", "measure only rows whose name matches this regular expression")
	flag.IntVar(&o.rounds, "rounds", 3, "samples per row and peer")
	flag.DurationVar(&o.lasting, "for", time.Second, "length of one sample")
	flag.StringVar(&o.out, "out", "perf/results", "directory for table.md and table.json")
	flag.StringVar(&o.pasta, "pasta", "bin/pasta", "binary to measure")
	flag.StringVar(&o.debian, "debian", "/usr/bin/pasta", "binary to compare with; left out if missing")
	flag.BoolVar(&o.list, "list", false, "list rows and targets, measure nothing")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "perf:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	rows, err := choose(o.scenario)
	if err != nil {
		return err
	}
	if o.list {
		list(rows)
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("namespaces and an unprivileged user to run as need root: run it as root")
	}
	r, err := newRunner(o)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := r.Open(); err != nil {
		r.Close()
		return err
	}
	defer r.Close()
	var result report.Report
	for i := range rows {
		fmt.Fprintf(os.Stderr, "%3d/%d %s\n", i+1, len(rows), rows[i].Name)
		result.Series = append(result.Series, r.Measure(&rows[i])...)
	}
	result.About = about(o, r, time.Since(begin))
	return write(&result, o)
}

// choose picks the rows a regular expression matches.
func choose(expression string) ([]scenario.Row, error) {
	re, err := regexp.Compile(expression)
	if err != nil {
		return nil, fmt.Errorf("read -scenario: %w", err)
	}
	var rows []scenario.Row
	for _, row := range scenario.Rows() {
		if re.MatchString(row.Name) {
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("no row matches %q; -list lists them", expression)
	}
	return rows, nil
}

func list(rows []scenario.Row) {
	for _, row := range rows {
		for _, m := range row.Metrics {
			fmt.Printf("%-28s %-10s %-14s %v\n", row.Name, m.Name, m.Unit, m.Targets)
		}
	}
}

func newRunner(o options) (*scenario.Runner, error) {
	pasta, err := filepath.Abs(o.pasta)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(pasta); err != nil {
		return nil, fmt.Errorf("%w: run make build first", err)
	}
	if _, err := os.Stat(o.debian); err != nil {
		fmt.Fprintln(os.Stderr, "perf: no", o.debian, "to compare with: install Debian's passt")
		o.debian = ""
	}
	return &scenario.Runner{
		Pasta: pasta, Debian: o.debian, Queues: max(2, runtime.NumCPU()), Rounds: o.rounds, Lasting: o.lasting,
		Log: os.Stderr,
	}, nil
}

// about says how and where the table was measured.
func about(o options, r *scenario.Runner, took time.Duration) []string {
	return []string{
		fmt.Sprintf("%s, %d samples of %v per cell, peers alternating, %v in all",
			time.Now().Format(time.DateOnly), o.rounds, o.lasting, took.Round(time.Second)),
		fmt.Sprintf("kernel %s, sched_autogroup_enabled %s, %d CPUs, %s; n queues: %d", output("uname", "-r"),
			output("cat", "/proc/sys/kernel/sched_autogroup_enabled"), runtime.NumCPU(), cpuModel(), r.Queues),
		"penne " + output("git", "describe", "--always", "--dirty") +
			"; Debian's passt " + output("dpkg-query", "-W", "-f=${Version}", "passt"),
	}
}

func output(argv ...string) string {
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown CPU"
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return "unknown CPU"
}

// write prints the table and stores it: a whole run where it is committed, a part of one beside.
func write(r *report.Report, o options) error {
	if err := r.Markdown(os.Stdout); err != nil {
		return err
	}
	name := "table"
	if o.scenario != "" {
		name = "part"
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	for ext, render := range map[string]func(io.Writer) error{".md": r.Markdown, ".json": r.JSON} {
		if err := store(filepath.Join(o.out, name+ext), render); err != nil {
			return err
		}
	}
	return nil
}

func store(path string, render func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := render(f); err != nil {
		f.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	return f.Close()
}
