package bed

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"penne/test/links"
)

// Addresses of the bed. Servers belong on the Remote ones: pasta maps the gateway's to the host's loopback.
const (
	HostIP4    = "198.51.100.2"
	RemoteIP4  = "198.51.100.3"
	GatewayIP4 = "198.51.100.1"
	HostIP6    = "2001:db8:1::2"
	RemoteIP6  = "2001:db8:1::3"
	GatewayIP6 = "2001:db8:1::1"

	// Link is the name of the interface that host and remote each have.
	Link = "uplink"
	// UID and GID are the unprivileged user's; no account has them.
	UID = 64321
	GID = 64321
)

// Bed is one host and one remote namespace and what runs in them. Methods may be called from any goroutine.
type Bed struct {
	Host, Remote *NS

	dir   string // world-readable, holds copies of binaries
	mark  string // in the environment of all its processes
	relay *relay

	mu       sync.Mutex // guards what follows; held for short calls only
	staged   map[string]string
	sessions map[*Session]struct{}
	procs    map[*Proc]struct{}
	closed   bool
	signals  chan os.Signal
}

// count numbers the beds of this process.
var count atomic.Int64

type config struct {
	rtt  time.Duration
	loss float64
	mtu  int
}

// Option changes what New builds.
type Option func(*config)

// WithRelay puts a relay between host and remote: frames arrive rtt/2 after they left, and the share loss
// of them (0..1) never arrives. It stands in for netem, which some kernels lack.
func WithRelay(rtt time.Duration, loss float64) Option {
	return func(c *config) { c.rtt, c.loss = rtt, loss }
}

// WithMTU sets the MTU of the link between host and remote; without it, 65520: the tap's MTU then
// decides alone.
func WithMTU(mtu int) Option {
	return func(c *config) { c.mtu = mtu }
}

// Need skips a test that cannot have a bed.
func Need(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("network namespaces and an unprivileged user to run as need root")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		tb.Skip("no tap devices here: ", err)
	}
}

// New builds a bed. The caller closes it; a test does so by t.Cleanup.
func New(opts ...Option) (*Bed, error) {
	c := config{mtu: 65520}
	for _, o := range opts {
		o(&c)
	}
	if err := prepareSystem(); err != nil {
		return nil, err
	}
	removeStale()
	b := &Bed{
		mark:     mark(os.Getpid(), count.Add(1)),
		staged:   map[string]string{},
		sessions: map[*Session]struct{}{},
		procs:    map[*Proc]struct{}{},
	}
	if err := b.build(c); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	b.closeOnSignal()
	return b, nil
}

func (b *Bed) build(c config) (err error) {
	if b.dir, err = newDir(); err != nil {
		return err
	}
	if b.Host, err = newNS("host"); err != nil {
		return err
	}
	if b.Remote, err = newNS("remote"); err != nil {
		return err
	}
	b.Host.bed, b.Remote.bed = b, b
	if c.rtt > 0 || c.loss > 0 {
		b.relay, err = newRelay(b.Host, b.Remote, c)
	} else {
		err = joinByVeth(b.Host, b.Remote)
	}
	if err != nil {
		return err
	}
	if err := address(b.Host, b.Remote); err != nil {
		return err
	}
	err = errors.Join(links.AwaitLocal(b.Host.fd, HostIP6), links.AwaitLocal(b.Remote.fd, RemoteIP6, GatewayIP6))
	if err != nil {
		return err
	}
	if err := b.SetMTU(c.mtu); err != nil || b.relay != nil {
		return err // a tap carries at once
	}
	return errors.Join(links.AwaitUp(b.Host.fd, Link), links.AwaitUp(b.Remote.fd, Link))
}

// Dir is a directory that everybody can read, and that goes with the bed.
func (b *Bed) Dir() string { return b.dir }

// ScratchDir makes a directory in Dir which the unprivileged user owns.
func (b *Bed) ScratchDir() (string, error) {
	dir, err := os.MkdirTemp(b.dir, "scratch-")
	if err != nil {
		return "", fmt.Errorf("make scratch directory: %w", err)
	}
	if err := os.Chown(dir, UID, GID); err != nil {
		return "", fmt.Errorf("give scratch directory to uid %d: %w", UID, err)
	}
	return dir, nil
}

// Stage copies a program into the bed's directory under its own base name, once, and returns the copy's path.
// What lies under /usr stays where it is: everybody can run it there, and it may want its neighbours (Debian's
// pasta starts passt.avx2 beside itself where the CPU has AVX2).
func (b *Bed) Stage(program string) (string, error) {
	if strings.HasPrefix(program, "/usr/") {
		return program, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if to, ok := b.staged[program]; ok {
		return to, nil
	}
	// A directory for each program: argv[0] chooses what penne is, so base names stay.
	dir, err := os.MkdirTemp(b.dir, "bin-")
	if err != nil {
		return "", fmt.Errorf("stage %s: %w", program, err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", fmt.Errorf("stage %s: %w", program, err)
	}
	to := filepath.Join(dir, filepath.Base(program))
	if err := copyFile(to, program); err != nil {
		return "", fmt.Errorf("stage %s: %w", program, err)
	}
	b.staged[program] = to
	return to, nil
}

// Close ends what runs in the bed and removes its directory. The namespaces go with their threads. Data races in what
// ran, if it was built with the race detector, are an error.
func (b *Bed) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	sessions, procs, signals := b.sessions, b.procs, b.signals
	b.sessions, b.procs = nil, nil
	b.mu.Unlock()

	for s := range sessions {
		s.kill()
	}
	for p := range procs {
		p.Kill()
	}
	killMarked(b.mark)
	if b.relay != nil {
		b.relay.close()
	}
	for _, n := range []*NS{b.Host, b.Remote} {
		if n != nil {
			n.close()
		}
	}
	if signals != nil {
		signal.Stop(signals)
		close(signals)
	}
	if b.dir == "" {
		return nil
	}
	return errors.Join(raceReports(b.dir), os.RemoveAll(b.dir))
}

// closeOnSignal makes an interrupted run leave nothing behind; the signal then has its usual effect.
func (b *Bed) closeOnSignal() {
	b.signals = make(chan os.Signal, 1)
	signal.Notify(b.signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func(ch <-chan os.Signal) {
		sig, ok := <-ch
		if !ok {
			return
		}
		b.Close()
		signal.Reset(sig)
		if err := syscall.Kill(os.Getpid(), sig.(syscall.Signal)); err != nil {
			panic(err) // a process may signal itself
		}
	}(b.signals)
}
