package scenario

import (
	"errors"
	"fmt"
	"strconv"
	"sync"

	"penne/perf/report"
	"penne/test/bed"
	"penne/test/client"
)

// integrityRows move bytes whose SHA-256 is known and count what went wrong.
func integrityRows() []Row {
	const total = 4 << 30
	var rows []Row
	for _, streams := range []int{1, 20} {
		for _, direction := range []string{"out", "in"} {
			rows = append(rows, Row{
				Name:  fmt.Sprintf("integrity/%s/x%d", direction, streams),
				Peers: report.Subjects, Once: true,
				Metrics: []Metric{{Unit: "streams wrong", Targets: []report.Target{report.Within(0)}}},
				Sample: func(e *Env) (Figures, error) {
					return e.checked(direction, streams, total/int64(streams))
				},
			})
		}
	}
	return append(rows, Row{
		Name: "integrity/short", Peers: report.Subjects, Once: true,
		Metrics: []Metric{{Unit: "connections failed", Targets: []report.Target{report.Within(0)}}},
		Sample:  (*Env).shortConnections,
	})
}

// checked moves each bytes on every stream at once and gives the number of streams whose sum is wrong. No two streams
// carry the same bytes: what is delivered to another than its own shows.
func (e *Env) checked(direction string, streams int, each int64) (Figures, error) {
	wrong, failed := make([]bool, streams), make([]error, streams)
	var wg sync.WaitGroup
	for i := range streams {
		wg.Go(func() { wrong[i], failed[i] = e.checkedStream(direction, uint64(i), each) })
	}
	wg.Wait()
	count := 0
	for _, w := range wrong {
		if w {
			count++
		}
	}
	return Figures{"": float64(count)}, errors.Join(failed...)
}

// checkedStream moves n bytes of a pattern between inside and a server of its own in remote.
func (e *Env) checkedStream(direction string, seed uint64, n int64) (wrong bool, err error) {
	handle, tool := client.Sink, "upload"
	if direction == "in" {
		handle, tool = client.Source(seed, n), "download"
	}
	srv, err := e.Bed.Remote.ServeTCP(bed.HostPort(bed.RemoteIP4, "0"), handle)
	if err != nil {
		return false, err
	}
	defer srv.Close()
	var o client.Outcome
	err = e.Session.Tool(&o, tool, srv.Addr.String(), strconv.FormatUint(seed, 10), strconv.FormatInt(n, 10))
	if o.Text != "" {
		err = errors.Join(err, errors.New(o.Text))
	}
	return o.Sum != bed.PatternSum(seed, n) || o.Bytes != n, err
}

// shortConnections makes 10,000 connections, 32 at a time, each for one line and its echo.
func (e *Env) shortConnections() (Figures, error) {
	srv, err := e.Bed.Remote.ServeTCP(bed.HostPort(bed.RemoteIP4, strconv.Itoa(freePort())), bed.EchoTCP)
	if err != nil {
		return nil, err
	}
	defer srv.Close()
	var o client.Outcome
	if err := e.Session.Tool(&o, "short", srv.Addr.String(), "10000", "32"); err != nil {
		return nil, err
	}
	if o.Bytes+int64(o.Fails) != 10000 {
		return nil, fmt.Errorf("only %d connections were made", o.Bytes+int64(o.Fails))
	}
	return Figures{"": float64(o.Fails)}, nil
}
