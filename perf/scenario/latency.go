package scenario

import (
	"fmt"
	"regexp"
	"strconv"

	"penne/perf/report"
	"penne/test/bed"
)

// latencyRows are request and response of 64 bytes, one at a time. sockperf reports half of the round trip.
func latencyRows() []Row {
	var rows []Row
	for _, proto := range []string{"tcp", "udp"} {
		var targets []report.Target
		if proto == "tcp" {
			targets = []report.Target{report.AtMost(0.85, report.Debian)}
		}
		rows = append(rows, Row{
			Name:    "rr/" + proto,
			Metrics: []Metric{{Name: "p50", Unit: "µs", Targets: targets}, {Name: "p99", Unit: "µs"}},
			Sample: func(e *Env) (Figures, error) {
				return e.pingPong(e.Bed.Remote, bed.RemoteIP4, bed.RemoteIP4, freePort(), proto)
			},
		})
	}
	return rows
}

// pingPong runs sockperf from inside to addr, against a server bound to bind.
func (e *Env) pingPong(at *bed.NS, bind, addr string, port int, proto string) (Figures, error) {
	args := []string{"-p", strconv.Itoa(port)}
	if proto == "tcp" {
		args = append(args, "--tcp")
	}
	server, err := at.Start(bed.Spec{
		// A pipe would hold the line back that says it listens.
		Argv:  append([]string{"stdbuf", "-oL", "sockperf", "server", "-i", bind}, args...),
		Ready: "to block on socket|listen on",
	})
	if err != nil {
		return nil, err
	}
	defer server.Kill()
	argv := append([]string{"timeout", "-k", "1", limit, "sockperf", "ping-pong", "-i", addr, "-m", "64",
		"-t", e.seconds()}, args...)
	res, err := e.Session.Run(argv...)
	if err != nil {
		return nil, err
	}
	return parseSockperf(res)
}

var percentile = regexp.MustCompile(`percentile (50|99)\.0+ *= *([0-9.]+)`)

func parseSockperf(res bed.Result) (Figures, error) {
	f := Figures{}
	for _, m := range percentile.FindAllStringSubmatch(res.Stdout, -1) {
		value, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return nil, fmt.Errorf("read sockperf: %w", err)
		}
		f["p"+m[1]] = value
	}
	if len(f) != 2 || res.Status != 0 {
		return nil, fmt.Errorf("sockperf: status %d: %.300s%.300s", res.Status, res.Stdout, res.Stderr)
	}
	return f, nil
}
