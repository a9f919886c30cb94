package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"penne/perf/report"
	"penne/test/bed"
)

// limit ends a client that a stall would keep for ever; it is far beyond any sample's length.
const limit = "25"

// tcpRows are iperf3 streams: direction × MTU × streams × family.
func tcpRows() []Row {
	var rows []Row
	for _, v6 := range []bool{false, true} {
		for _, mtu := range []int{1500, 9000, 65520} {
			for _, streams := range []int{1, 4} {
				rows = append(rows, tcpRow("out", mtu, streams, v6), tcpRow("in", mtu, streams, v6))
			}
		}
	}
	return rows
}

func tcpName(direction string, mtu, streams int, v6 bool) string {
	family := "v4"
	if v6 {
		family = "v6"
	}
	return fmt.Sprintf("tcp/%s/mtu%d/x%d/%s", direction, mtu, streams, family)
}

func tcpRow(direction string, mtu, streams int, v6 bool) Row {
	targets := []report.Target{report.AtLeast(0.40, report.Direct)}
	switch {
	case mtu == 1500:
		targets = append(targets, report.AtLeast(10, report.Debian))
	case mtu == 65520 && direction == "out":
		targets = append(targets, report.AtLeast(5, report.Debian))
	case mtu == 65520:
		targets = append(targets, report.AtLeast(1.3, report.Debian))
	}
	if direction == "out" {
		targets = append(targets, report.Balanced(0.7, 1.4, tcpName("in", mtu, streams, v6)))
	}
	addr := bed.RemoteIP4
	if v6 {
		addr = bed.RemoteIP6
	}
	return Row{
		Name: tcpName(direction, mtu, streams, v6),
		MTU:  mtu,
		Metrics: []Metric{
			{Unit: "Gbit/s", Targets: targets},
			{Name: "cpu", Unit: "CPU-s/GB"},
		},
		Sample: func(e *Env) (Figures, error) {
			return e.stream(e.Bed.Remote, addr, streams, direction == "in")
		},
	}
}

// stream is one run of iperf3 against a server of its own: one that a stalled client held would refuse the next.
func (e *Env) stream(at *bed.NS, addr string, streams int, reverse bool) (Figures, error) {
	return e.streamPort(at, addr, freePort(), streams, reverse)
}

func (e *Env) streamPort(at *bed.NS, addr string, port, streams int, reverse bool) (Figures, error) {
	server, err := at.Start(bed.Spec{
		Argv:  []string{"iperf3", "-s", "-1", "--forceflush", "-p", strconv.Itoa(port)},
		Ready: "Server listening",
	})
	if err != nil {
		return nil, err
	}
	defer server.Kill()
	argv := []string{
		"timeout", "-k", "1", limit, "iperf3", "-J", "-c", addr, "-p", strconv.Itoa(port),
		"-t", e.seconds(), "-P", strconv.Itoa(streams),
	}
	if reverse {
		argv = append(argv, "-R")
	}
	own := e.Session.Processes()
	before := bed.UsageOf(own)
	res, err := e.Session.Run(argv...)
	if err != nil {
		return nil, err
	}
	used := bed.UsageOf(own).CPU - before.CPU
	bits, moved, err := parseIperf(res)
	if err != nil {
		return nil, err
	}
	f := Figures{"": bits / 1e9}
	if len(own) > 0 {
		f["cpu"] = used.Seconds() / (moved / 1e9)
	}
	return f, nil
}

// parseIperf reads bits a second and bytes, both as received.
func parseIperf(res bed.Result) (bits, moved float64, err error) {
	var r struct {
		Error string
		End   struct {
			SumReceived struct {
				Bytes         float64
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(res.Stdout), &r); err != nil {
		return 0, 0, fmt.Errorf("iperf3: status %d: %.200s%.200s", res.Status, res.Stdout, res.Stderr)
	}
	got := r.End.SumReceived
	switch {
	case r.Error != "":
		return 0, 0, errors.New("iperf3: " + r.Error)
	case got.Bytes == 0:
		return 0, 0, errors.New("iperf3: nothing received")
	}
	return got.BitsPerSecond, got.Bytes, nil
}

var lastPort = 20000

// freePort gives ports that nothing else in the bed uses, below the ephemeral ones, each for the first time in
// a long while: no socket of an earlier sample lingers on it.
func freePort() int {
	lastPort++
	if lastPort == 30000 {
		lastPort = 20001
	}
	return lastPort
}
