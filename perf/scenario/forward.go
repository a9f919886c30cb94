package scenario

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"penne/perf/report"
	"penne/test/bed"
)

// bypassPort is forwarded from inside to the host's loopback.
const bypassPort = 19000

// rrFirst to rrLast are for servers that cannot bind a port while connections of an earlier one are in TIME-WAIT there,
// as sockperf cannot: each takes the next.
const rrFirst, rrLast = 19100, 19199

var rrNext = rrFirst

// forwardRows are forwarded ports: the loopback bypass, a published port, and many of them.
func forwardRows() []Row {
	toHost := []string{"-T", strconv.Itoa(bypassPort)}
	rows := []Row{
		bypassStream(1, 1.0, toHost), bypassStream(4, 1.05, toHost),
		{
			Name: "bypass/rr", Options: []string{"-T", fmt.Sprintf("%d-%d", rrFirst, rrLast)},
			Metrics: []Metric{
				{Name: "p50", Unit: "µs", Targets: []report.Target{report.AtMost(1.0, report.Debian)}},
				{Name: "p99", Unit: "µs"},
			},
			Sample: func(e *Env) (Figures, error) {
				port := rrNext
				rrNext = rrFirst + (port+1-rrFirst)%(rrLast+1-rrFirst)
				return e.pingPong(e.Bed.Host, "127.0.0.1", "127.0.0.1", port, "tcp")
			},
		},
		{
			Name: "bypass/conn/32", Options: []string{"-T", strconv.Itoa(webPort)},
			Metrics: []Metric{{Unit: "connections/s", Targets: []report.Target{report.AtLeast(1.2, report.Debian)}}},
			Sample:  (*Env).bypassConnections,
		},
	}
	for _, c := range []struct {
		n     int
		least float64
	}{{1, 1.0}, {32, 1.2}, {256, 1.2}} {
		rows = append(rows, Row{
			Name: fmt.Sprintf("published/http/%d", c.n), Options: []string{"-t", strconv.Itoa(webPort)}, Fresh: true,
			Metrics: []Metric{{Unit: "requests/s", Targets: []report.Target{report.AtLeast(c.least, report.Debian)}}},
			Sample:  func(e *Env) (Figures, error) { return e.published(c.n) },
		})
	}
	return append(rows,
		Row{
			Name: "ports/1000/start", Options: []string{"-t", "10000-10999"}, Peers: tapPeers, Alone: true,
			Metrics: []Metric{{Unit: "ms", Targets: []report.Target{report.AtMost(1.0, report.Debian)}}},
			Sample:  (*Env).startTime,
		},
		Row{
			Name: "ports/1000/memory", Options: []string{"-t", "10000-10999"}, Peers: tapPeers, Once: true, Fresh: true,
			Metrics: []Metric{{Name: "rss", Unit: "MB", Targets: []report.Target{report.AtMost(1.5, report.Debian)}}},
			Sample:  (*Env).memory,
		},
		Row{
			Name: "auto/bind", Options: []string{"-t", "auto"}, Peers: report.Subjects, Fresh: true,
			Metrics: []Metric{{Name: "median", Unit: "ms"}, {Name: "longest", Unit: "ms", Targets: []report.Target{report.Within(300)}}},
			Sample:  (*Env).autoBind,
		},
		Row{
			Name: "ports/all/memory", Options: []string{"-t", "all", "-u", "all"}, Peers: report.Subjects, Once: true, Fresh: true,
			Metrics: []Metric{{Name: "rss", Unit: "MB"}},
			Sample:  (*Env).memory,
		},
	)
}

func bypassStream(streams int, least float64, options []string) Row {
	return Row{
		Name: fmt.Sprintf("bypass/x%d", streams), Options: options,
		Metrics: []Metric{
			{Unit: "Gbit/s", Targets: []report.Target{report.AtLeast(least, report.Debian)}},
			{Name: "cpu", Unit: "CPU-s/GB"},
		},
		Sample: func(e *Env) (Figures, error) {
			return e.streamPort(e.Bed.Host, "127.0.0.1", bypassPort, streams, false)
		},
	}
}

// bypassConnections has nginx on the host's loopback and ab inside.
func (e *Env) bypassConnections() (Figures, error) {
	argv, ready, err := nginx(e.Bed, "master_process off; user root;")
	if err != nil {
		return nil, err
	}
	web, err := e.Bed.Host.Start(bed.Spec{Argv: argv, Ready: ready})
	if err != nil {
		return nil, err
	}
	defer web.Kill()
	return connections(e.Session, e, fmt.Sprintf("http://127.0.0.1:%d/", webPort))
}

// published has nginx inside and wrk in remote, through a forwarded port of the host.
func (e *Env) published(n int) (Figures, error) {
	argv, ready, err := nginx(e.Bed, "master_process off; user root;")
	if err != nil {
		return nil, err
	}
	stop, err := e.Session.Background(ready, argv...)
	if err != nil {
		return nil, err
	}
	defer stop()
	return requests(e.Far, e, fmt.Sprintf("http://%s:%d/", bed.HostIP4, webPort), n)
}

// autoPorts are bound inside for autoBind, from autoFirst on; the first has pasta look out for more.
const autoFirst, autoPorts = 20000, 9

// autoBind is how long it takes until a port that is bound inside can be had on the host.
func (e *Env) autoBind() (Figures, error) {
	stop := make(chan struct{})
	defer close(stop)
	go e.Bed.Host.Do(func() error { callEach(autoFirst, autoPorts, stop); return nil })
	var waited []float64
	if err := e.Session.Tool(&waited, "load-bind", strconv.Itoa(autoFirst), strconv.Itoa(autoPorts), "37ms"); err != nil {
		return nil, err
	}
	waited = waited[1:]
	slices.Sort(waited)
	return Figures{"median": waited[len(waited)/2], "longest": waited[len(waited)-1]}, nil
}

// callEach connects to count ports of the loopback from first on, to each as soon as it can be had.
func callEach(first, count int, stop <-chan struct{}) {
	for port := first; port < first+count; {
		c, err := net.Dial("tcp", bed.HostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			c.Close()
			port++
			continue
		}
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// memory reads what a pasta uses that was left alone for a moment.
func (e *Env) memory() (Figures, error) {
	time.Sleep(settle)
	return Figures{"rss": float64(bed.UsageOf(e.Session.Processes()).RSS) / 1e6}, nil
}
