package scenario

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	"penne/perf/report"
	"penne/test/bed"
)

// Figures are what one sample yields, by metric.
type Figures map[string]float64

// Metric is one figure of a row. The main one has no name.
type Metric struct {
	Name    string
	Unit    string
	Targets []report.Target
}

// Row is one line of the table, or several if it has more than one metric.
type Row struct {
	Name    string
	MTU     int      // of the tap and of the link; 0 is pasta's default, 65520
	Options []string // of pasta, beside the common ones
	Peers   []string // all of them if empty
	Metrics []Metric
	Bare    bool // without -q, and with pasta's own choice of ports
	Once    bool // one sample per peer is enough: long, or a plain yes or no
	// Alone means that Sample starts pasta itself.
	Alone bool
	// Fresh means a session for each sample, the only one at that time: peers would want the same port.
	Fresh  bool
	Sample func(e *Env) (Figures, error)
}

// Env is what a sample works with.
type Env struct {
	Bed     *bed.Bed
	Peer    string
	Session *bed.Session // inside; nil for rows that are Alone
	Lasting time.Duration
	Far     *bed.Session // in remote
	Run     *Runner
	Row     *Row
}

// Runner measures rows.
type Runner struct {
	Pasta   string // path of the binary under test
	Debian  string // path of the peer's; empty if not installed
	Queues  int    // of the peer with many
	Rounds  int
	Lasting time.Duration // of one sample
	Log     io.Writer

	bed *bed.Bed
	far *bed.Session
	web *bed.Proc
}

// common are the options that every pasta of the table has.
var common = []string{"--config-net", "-f"}

// noForward switches each kind of forwarding off that a row does not use.
func noForward(used []string) []string {
	var off []string
	for _, flag := range []string{"-t", "-u", "-T", "-U"} {
		if !slices.Contains(used, flag) {
			off = append(off, flag, "none")
		}
	}
	return off
}

// argv is a peer's command line for a row.
func (r *Runner) argv(peer string, row *Row) []string {
	program := r.Pasta
	if peer == report.Debian {
		program = r.Debian
	}
	argv := append([]string{program}, common...)
	switch peer {
	case report.PenneA:
		argv = append(argv, "--queues", "1")
	case report.PenneN:
		argv = append(argv, "--queues", strconv.Itoa(r.Queues))
	}
	if row.MTU != 0 {
		argv = append(argv, "-m", strconv.Itoa(row.MTU))
	}
	if !row.Bare { // forwarding is off unless the row is about it
		argv = append(append(argv, "-q"), noForward(row.Options)...)
	}
	return append(argv, row.Options...)
}

// peers are those of a row that can be had.
func (r *Runner) peers(row *Row) []string {
	all := row.Peers
	if len(all) == 0 {
		all = []string{report.Direct, report.Debian, report.PenneA, report.PenneN}
	}
	return slices.DeleteFunc(slices.Clone(all), func(p string) bool { return p == report.Debian && r.Debian == "" })
}

// Open builds the bed and what all rows share.
func (r *Runner) Open() (err error) {
	if r.bed, err = bed.New(); err != nil {
		return err
	}
	if r.far, err = r.bed.Direct(r.bed.Remote); err != nil {
		return err
	}
	r.web, err = startFarWeb(r.bed)
	return err
}

// Close takes the bed down.
func (r *Runner) Close() error {
	if r.bed == nil {
		return nil
	}
	return r.bed.Close()
}

// Measure measures one row with all its peers.
func (r *Runner) Measure(row *Row) []*report.Series {
	series := newSeries(row)
	mtu := row.MTU
	if mtu == 0 {
		mtu = 65520
	}
	envs := map[string]*Env{}
	defer func() {
		for _, e := range envs {
			if e.Session != nil {
				e.Session.Close()
			}
		}
	}()
	peers := r.peers(row)
	if err := r.bed.SetMTU(mtu); err != nil {
		r.fail(series, peers, err)
		return series
	}
	for _, p := range peers {
		e := &Env{Bed: r.bed, Peer: p, Lasting: r.Lasting, Far: r.far, Run: r, Row: row}
		if !row.Alone && !row.Fresh {
			if err := e.attach(); err != nil {
				r.fail(series, []string{p}, err)
				continue
			}
		}
		envs[p] = e
	}
	r.rounds(row, peers, envs, series)
	return series
}

func (r *Runner) rounds(row *Row, peers []string, envs map[string]*Env, series []*report.Series) {
	rounds := r.Rounds
	if row.Once {
		rounds = 1
	}
	for round := range rounds {
		// Each round begins with another peer: none is always the first after a pause.
		for i := range peers {
			peer := peers[(i+round)%len(peers)]
			e := envs[peer]
			if e == nil {
				continue
			}
			figures, err := e.sample()
			if err != nil {
				r.fail(series, []string{peer}, err)
				continue
			}
			for _, s := range series {
				if value, ok := figures[s.Metric]; ok {
					s.Samples[peer] = append(s.Samples[peer], value)
				}
			}
		}
	}
}

// attach starts the peer.
func (e *Env) attach() (err error) {
	if e.Peer == report.Direct {
		e.Session, err = e.Bed.Direct(e.Bed.Host)
	} else {
		e.Session, err = e.Bed.Pasta(e.Run.argv(e.Peer, e.Row)...)
	}
	return err
}

// sample takes one sample, in a session of its own if the row wants that.
func (e *Env) sample() (Figures, error) {
	if e.Row.Fresh {
		if err := e.attach(); err != nil {
			return nil, err
		}
		defer func() {
			e.Session.Close()
			e.Session = nil
		}()
	}
	return e.Row.Sample(e)
}

// seconds is a sample's length for the programs that count whole ones; 0 would mean for ever to them.
func (e *Env) seconds() string {
	return strconv.Itoa(max(1, int(math.Round(e.Lasting.Seconds()))))
}

func (r *Runner) fail(series []*report.Series, peers []string, err error) {
	for _, peer := range peers {
		fmt.Fprintf(r.Log, "%s, %s: %v\n", series[0].Row, peer, err)
		for _, s := range series {
			s.Failures[peer] = append(s.Failures[peer], err.Error())
		}
	}
}

func newSeries(row *Row) []*report.Series {
	var all []*report.Series
	for _, m := range row.Metrics {
		all = append(all, &report.Series{
			Row: row.Name, Metric: m.Name, Unit: m.Unit, Targets: m.Targets,
			Samples: map[string][]float64{}, Failures: map[string][]string{},
		})
	}
	return all
}

// Rows are all rows, in the order of the table.
func Rows() []Row {
	return slices.Concat(tcpRows(), udpRows(), latencyRows(), webRows(), lifeRows(), integrityRows(), forwardRows())
}
