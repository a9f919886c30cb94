// Package engine composes the running program: it reads the host's network,
// opens the tap, starts the shards, binds the forwarded ports, closes the
// sandbox, and then is the thin control thread that follows events until it is
// told to end. It owns what it composes; nothing here is on the packet path.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"penne/internal/conf"
	"penne/internal/fwd"
	"penne/internal/log"
	"penne/internal/netns"
	"penne/internal/nl"
	"penne/internal/pcap"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard"
	"penne/shard/flow"
	"penne/shard/steer"
	"penne/tap/tun"
)

// engine is the state of the control thread.
type engine struct {
	conf     *conf.Config
	handles  *netns.Handles
	log      *log.Log
	resolv   *resolvFile
	dns      resolver
	leftOut  []string // warnings of warnLeftOut that still hold
	monitor  *nl.Monitor
	template nl.Template
	rules    *fwd.Rules
	guest    fwd.Guest
	device   *tun.Device // nil without a tap (--splice-only)
	capture  *pcap.Sink  // nil unless asked for
	inner    *nl.Conn    // to configure the namespace with; nil if that is not done, or no longer
	index    int32       // of the interface there
	group    *shard.Group
	inside   *netns.Worker              // the thread that lives in the namespace
	pools    map[socketKind]*netns.Pool // sockets made there; nil where a family is off
	ports    forwarder
	auto     auto
	failed   chan error // a shard lost its tap
	began    time.Time
	shown    int64 // activity of the last table printed
}

// Serve is the engine of package netns: it returns when ctx ends, or with an
// error when forwarding cannot be set up or go on.
func Serve(ctx context.Context, c *conf.Config, h *netns.Handles) error {
	// Whoever reads standard error may go; writing to sockets tells by itself.
	signal.Ignore(syscall.SIGPIPE)
	e := &engine{conf: c, handles: h, failed: make(chan error, 1), began: time.Now()}
	if err := e.openLog(); err != nil {
		return err
	}
	err := e.start()
	if err == nil {
		err = h.Ready()
	}
	if err != nil {
		e.logFailure(err)
		e.log.Close()
		return err
	}
	e.detachLog()
	return e.run(ctx)
}

// start sets everything up, in the order in which one thing needs the other.
// Shards come after the ports, which fail more often: a capture file is emptied
// with them.
func (e *engine) start() error {
	limitRuntime(e.queues())
	for _, step := range []func() error{
		e.readHost, e.openTap, e.openInside, e.bindPorts, e.makeShards, e.openAuto, e.sandbox,
	} {
		if err := step(); err != nil {
			return withHint(err)
		}
	}
	if e.capture != nil {
		e.capture.Start()
	}
	e.group.Start()
	e.ports.serve(e.group)
	e.summary()
	return nil
}

// withHint adds what to do, where the error alone does not tell.
func withHint(err error) error {
	if errors.Is(err, syscall.EMFILE) {
		return fmt.Errorf("%w: raise the limit of open files, ulimit -n", err)
	}
	return err
}

// run follows events until the end.
func (e *engine) run(ctx context.Context) error {
	defer e.stop()
	var scan, show <-chan time.Time // never, where nobody asked for it
	timer := time.NewTimer(0)
	defer timer.Stop()
	if len(e.auto.watchers) > 0 {
		scan = timer.C
	}
	if every := e.conf.Logging.Stats; every > 0 {
		show = time.Tick(every)
	}
	advertise := time.Tick(advertiseEvery)
	templates, resolvers := e.followHost()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-e.failed:
			e.logFailure(err)
			return err
		case <-scan:
			timer.Reset(e.scan())
		case t := <-templates:
			e.hostChanged(&t)
		case e.dns = <-resolvers:
			e.log.Info("the host's resolvers have changed")
			e.setRules()
			e.followStubs()
		case <-advertise:
			e.group.Advertise()
		case <-show:
			e.printStats()
		case sig := <-e.handles.User:
			if sig == syscall.SIGUSR1 {
				e.logStats()
			}
		}
	}
}

// stop closes listeners, so that a successor can bind at once, while it ends all
// flows. Thousands of listeners take half a second to close: peers must not
// wait for that, lest the process be ended before they are told.
func (e *engine) stop() {
	e.ports.release()
	var slow sync.WaitGroup
	defer slow.Wait()
	slow.Go(e.ports.close)
	// The end of an inotify descriptor waits for a grace period of the kernel,
	// 15 ms, as that of a tap does: these shall be the same.
	slow.Go(func() {
		if w := e.handles.Watches; w != nil {
			w.Close()
		}
	})
	e.group.Close()
	e.inside.Close()
	if e.capture != nil {
		if err := e.capture.Close(); err != nil {
			e.log.Warn(err.Error())
		}
		if n := e.capture.Dropped(); n > 0 {
			e.log.Warn(fmt.Sprintf("%d frames are missing from the capture: the file was slower than the traffic", n))
		}
	}
	e.log.Close()
}

// openTap makes the interface inside and sets it up.
func (e *engine) openTap() error {
	keep := e.keepsInside()
	return netns.Do(e.handles.NetNS, func() (err error) {
		c, err := nl.Dial()
		if err != nil {
			return err
		}
		defer func() {
			if e.inner == nil {
				c.Close()
			}
		}()
		if err := c.LoopbackUp(); err != nil || e.conf.Pasta.SpliceOnly {
			return err
		}
		if e.device, err = e.openDevice(); err != nil {
			return err
		}
		err = e.configure(c)
		if err == nil && keep {
			e.inner = c
		}
		return err
	})
}

// openDevice makes a tap, or takes over the one that was passed on.
func (e *engine) openDevice() (*tun.Device, error) {
	if fd := e.conf.Pasta.FD; fd > 0 {
		sys.SetCloseOnExec(fd)
		return tun.Adopt(fd, tun.Options{})
	}
	name := e.conf.Pasta.Ifname
	if name == "" {
		name = e.template.Ifname
	}
	d, err := tun.Open(tun.Options{Name: name, Queues: e.queues()})
	if err != nil {
		return nil, netns.TunError(err)
	}
	return d, nil
}

// configure sets up the interface. It runs inside the namespace.
func (e *engine) configure(c *nl.Conn) error {
	report, err := c.Configure(nl.Config{
		Name: e.device.Name(), MAC: e.conf.Pasta.NSMAC, MTU: e.conf.Net.MTU,
		TxQueueLen: tun.DefaultTxQueueLen, Up: e.conf.Pasta.ConfigNet, Template: &e.template,
	})
	if err != nil {
		return err
	}
	for _, p := range report.Problems {
		e.log.Warn("left out: " + p.String())
	}
	mac := wire.MAC(report.MAC)
	e.guest.SawMAC(&mac)
	if report.LinkLocal.IsValid() {
		ll := wire.AddrFrom(report.LinkLocal)
		e.guest.SawAddr(&ll)
	}
	e.index = report.Index
	return nil
}

// makeShards makes one shard for each queue of the tap; none runs yet.
func (e *engine) makeShards() error {
	cfg := shard.Config{
		Rules: e.rules, Guest: &e.guest, Pin: e.conf.Process.Pin, Services: e.services(), Bypass: e.bypass(),
		Seed: flow.NewSeed(), Flows: e.flows(),
		Warn:   e.pingRefused(),
		Failed: func(err error) { e.failed <- err },
	}
	var err error
	if cfg.Ports, err = e.tapPorts(); err != nil {
		return err
	}
	if n := len(cfg.Ports); n > 1 && e.device != nil {
		mode, err := steer.Attach(e.device.Queue(0).FD(), n, &cfg.Seed)
		if err != nil {
			e.log.Warn(err.Error())
		}
		e.log.Debug("queues are steered by " + mode.String())
	}
	e.group, err = shard.NewGroup(cfg)
	return err
}

// pingRefused logs the first refusal of a ping socket.
func (e *engine) pingRefused() func(error) {
	var once sync.Once
	return func(err error) {
		once.Do(func() { e.log.Warn("no ping for the guest: " + err.Error()) })
	}
}

// queues is the number of shards wanted.
func (e *engine) queues() int {
	if n := e.conf.Process.Queues; n > 0 {
		return n
	}
	cpus, err := sys.UsableCPUs()
	if err != nil {
		return 1
	}
	return min(len(cpus), conf.MaxQueues)
}

// reservedFDs is for all that is not a flow: taps, epoll instances, pipes,
// netlink, and a margin.
const reservedFDs = 512

// fewFlows is when people should hear of it.
const fewFlows = 4096

// flows is how many flows the limit of descriptors allows.
func (e *engine) flows() int {
	limit := sys.RaiseFileLimit()
	if limit >= shard.MaxFlows+reservedFDs {
		return shard.MaxFlows
	}
	n := max(limit-reservedFDs, 64)
	level := slog.LevelDebug
	if n < fewFlows {
		level = slog.LevelInfo
	}
	e.log.Log(context.Background(), level, fmt.Sprintf("open file limit %d allows %d flows of %d", limit, n, shard.MaxFlows))
	return n
}

// heapRoom is how much garbage may gather over the whole life before the
// collector runs at all, in octets: the control thread makes a little.
const heapRoom = 64 << 20

// limitRuntime sets the Go runtime up: a scheduler slot for each shard and two
// for the control thread, and no periodic garbage collection, which would run
// every two minutes otherwise.
func limitRuntime(shards int) {
	runtime.GOMAXPROCS(shards + 2)
	debug.SetGCPercent(-1)
}

// limitHeap allows heapRoom beyond what has been set up.
func limitHeap() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	debug.SetMemoryLimit(int64(m.Sys-m.HeapReleased) + heapRoom)
}
