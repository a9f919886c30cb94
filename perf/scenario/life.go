package scenario

import (
	"fmt"
	"strconv"
	"syscall"
	"time"

	"penne/perf/report"
	"penne/test/bed"
)

// tapPeers are those that are a pasta.
var tapPeers = []string{report.Debian, report.PenneA, report.PenneN}

// settle is how long a freshly started pasta is left alone before its memory is read.
const settle = time.Second

// lifeRows are start, rest and end.
func lifeRows() []Row {
	return []Row{
		startRow("start", true), startRow("start/no-ports", false),
		{
			Name: "idle", Peers: tapPeers, Once: true,
			Metrics: []Metric{
				{Name: "rss", Unit: "MB", Targets: []report.Target{report.Within(32)}},
				{Name: "wake-ups", Unit: "1/s", Targets: []report.Target{report.Within(0)}},
				{Name: "threads", Unit: ""},
			},
			Sample: (*Env).idle,
		},
		{
			Name: "stop/1000", Peers: tapPeers, Alone: true,
			Metrics: []Metric{{Unit: "ms", Targets: []report.Target{report.Within(100)}}},
			Sample:  (*Env).stopTime,
		},
	}
}

// startRow is `pasta --config-net -f -- true`: bare, as users type it, with the ports that "auto" finds, or with none.
func startRow(name string, bare bool) Row {
	return Row{
		Name: name, Bare: bare, Peers: tapPeers, Alone: true,
		Metrics: []Metric{{Unit: "ms", Targets: []report.Target{report.AtMost(1.2, report.Debian)}}},
		Sample:  (*Env).startTime,
	}
}

// starts is how many starts one sample is the mean of.
const starts = 10

// startTime is the time from the creation of pasta's process to its end, with true for a command.
func (e *Env) startTime() (Figures, error) {
	argv := e.Run.argv(e.Peer, e.Row)
	program, err := e.Bed.Stage(argv[0])
	if err != nil {
		return nil, err
	}
	argv[0] = program
	argv = append(argv, "--", "true")
	begin := time.Now()
	for range starts {
		res, err := e.Bed.Host.Run(bed.Spec{Argv: argv})
		if err != nil {
			return nil, err
		}
		if res.Status != 0 {
			return nil, fmt.Errorf("status %d: %s", res.Status, res.Stderr)
		}
	}
	return Figures{"": milliseconds(time.Since(begin)) / starts}, nil
}

// idle reads memory and counts wake-ups of a pasta that nobody uses.
func (e *Env) idle() (Figures, error) {
	time.Sleep(settle)
	own := e.Session.Processes()
	before := bed.UsageOf(own)
	const watched = 4 * time.Second
	time.Sleep(watched)
	after := bed.UsageOf(own)
	return Figures{
		"rss":      float64(after.RSS) / 1e6,
		"wake-ups": float64(after.Wakeups-before.Wakeups) / watched.Seconds(),
		"threads":  float64(after.Threads),
	}, nil
}

// stopTime is the time from TERM to the end, with 1,000 connections open.
func (e *Env) stopTime() (Figures, error) {
	s, err := e.Bed.Pasta(e.Run.argv(e.Peer, e.Row)...)
	if err != nil {
		return nil, err
	}
	srv, err := e.Bed.Remote.ServeTCP(bed.HostPort(bed.RemoteIP4, strconv.Itoa(freePort())), bed.EchoTCP)
	if err != nil {
		return nil, err
	}
	defer srv.Close()
	if _, err := s.BackgroundTool("^holding$", "load-hold", srv.Addr.String(), "1000"); err != nil {
		s.Proc.Signal(syscall.SIGKILL)
		return nil, err
	}
	begin := time.Now()
	s.Terminate()
	return Figures{"": milliseconds(time.Since(begin))}, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
