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

// checked moves each bytes on every stream at once and gives the number of streams whose sum is wrong.
func (e *Env) checked(direction string, streams int, each int64) (Figures, error) {
	const seed = 11
	handle, tool := client.Sink, "upload"
	if direction == "in" {
		handle, tool = client.Source(seed, each), "download"
	}
	srv, err := e.Bed.Remote.ServeTCP(bed.HostPort(bed.RemoteIP4, strconv.Itoa(freePort())), handle)
	if err != nil {
		return nil, err
	}
	defer srv.Close()
	want := bed.PatternSum(seed, each)
	var (
		mu     sync.Mutex // guards what follows
		wrong  int
		failed []error
		wg     sync.WaitGroup
	)
	for range streams {
		wg.Go(func() {
			var o client.Outcome
			err := e.Session.Tool(&o, tool, srv.Addr.String(), strconv.Itoa(seed), strconv.FormatInt(each, 10))
			mu.Lock()
			defer mu.Unlock()
			if o.Text != "" {
				err = errors.Join(err, errors.New(o.Text))
			}
			failed = append(failed, err)
			if o.Sum != want || o.Bytes != each {
				wrong++
			}
		})
	}
	wg.Wait()
	return Figures{"": float64(wrong)}, errors.Join(failed...)
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
