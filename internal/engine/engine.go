// Package engine composes the running program: it reads the host's network
// configuration, opens the tap, binds the forwarded ports, makes the shards, enters
// the sandbox, and then is the control thread, which handles events until it is
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
	conf          *conf.Config
	handles       *netns.Handles
	log           *log.Log
	resolv        *resolvFile
	dns           resolvConf
	warned        []string // last warnings of warnLeftOut
	monitor       *nl.Monitor
	template      nl.Template
	rules         *fwd.Rules
	guest         fwd.Guest
	device        *tun.Device // nil without a tap (--splice-only)
	capture       *pcap.Sink  // nil unless asked for
	nsConn        *nl.Conn    // to reconfigure the namespace; nil if that is not done
	nsIndex       int32       // of the interface inside
	group         *shard.Group
	nsWorker      *netns.Worker              // a thread inside the namespace
	nsSockets     map[socketKind]*netns.Pool // ready sockets made there; nil if a kind is not needed
	ports         forwarder
	auto          auto
	failed        chan error // a shard lost its tap
	started       time.Time
	shownActivity int64 // activity of the last table printed
}

// Serve is a netns.Engine: it returns nil when ctx ends, or an error if forwarding
// cannot be set up or cannot go on.
func Serve(ctx context.Context, c *conf.Config, h *netns.Handles) error {
	// The reader of standard error may go away; socket writes return EPIPE anyway.
	signal.Ignore(syscall.SIGPIPE)
	e := &engine{conf: c, handles: h, failed: make(chan error, 1), started: time.Now()}
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

// start sets everything up, in order of dependencies. Making the shards truncates
// the capture file, so it comes after binding ports, which is likely to fail.
func (e *engine) start() error {
	limitRuntime(e.shardCount())
	for _, step := range []func() error{
		e.readHost, e.openTap, e.openNamespace, e.bindPorts, e.makeShards, e.openAuto, e.sandbox,
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

// raiseFileLimit is what the user can do about EMFILE.
const raiseFileLimit = "raise the limit of open files, ulimit -n"

// withHint adds what the user can do about err.
func withHint(err error) error {
	if errors.Is(err, syscall.EMFILE) {
		return fmt.Errorf("%w: %s", err, raiseFileLimit)
	}
	return err
}

// run handles events until ctx ends or a shard fails.
func (e *engine) run(ctx context.Context) error {
	defer e.stop()
	e.releaseGarbage()
	var scan, show <-chan time.Time // nil if not asked for
	timer := time.NewTimer(0)
	defer timer.Stop()
	if len(e.auto.watchers) > 0 {
		scan = timer.C
	}
	if every := e.conf.Logging.Stats; every > 0 {
		show = time.Tick(every)
	}
	advertise := time.Tick(advertiseInterval)
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
			e.setRules()
			e.syncStubs()
			e.log.Info("the host's resolvers have changed")
			e.describeNetwork()
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

// stop ends all flows, and meanwhile closes listeners, so that a successor can bind
// at once. Thousands of listeners take half a second to close: flows must not wait
// for that, since the process may be killed before their peers are told.
func (e *engine) stop() {
	e.ports.release()
	var slow sync.WaitGroup
	defer slow.Wait()
	slow.Go(e.ports.close)
	// Closing an inotify descriptor waits for an RCU grace period of some
	// 15 ms, as closing a tap does: let it be the same one.
	slow.Go(func() {
		if w := e.handles.Inotify; w != nil {
			w.Close()
		}
	})
	e.group.Close()
	e.nsWorker.Close()
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

// openTap makes the interface inside the namespace and configures it.
func (e *engine) openTap() error {
	keep := e.mayReconfigure()
	return netns.Do(e.handles.NetNS, func() (err error) {
		c, err := nl.Dial()
		if err != nil {
			return err
		}
		defer func() {
			if e.nsConn == nil {
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
			e.nsConn = c
		}
		return err
	})
}

// openDevice makes a tap, or adopts the one given by --fd.
func (e *engine) openDevice() (*tun.Device, error) {
	if fd := e.conf.Pasta.FD; fd > 0 {
		sys.SetCloseOnExec(fd)
		return tun.Adopt(fd, tun.Options{})
	}
	name := e.conf.Pasta.Ifname
	if name == "" {
		name = e.template.Ifname
	}
	var d *tun.Device
	var r retry
	err := r.whileInUse(func() (err error) {
		d, err = tun.Open(tun.Options{Name: name, Queues: e.shardCount()})
		return err
	})
	if err != nil {
		return nil, netns.TunError(err)
	}
	return d, nil
}

// configure configures the interface. It runs inside the namespace.
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
	e.nsIndex = report.Index
	return nil
}

// makeShards makes one shard per queue of the tap, without starting them.
func (e *engine) makeShards() error {
	cfg := shard.Config{
		Rules: e.rules, Guest: &e.guest, Pin: e.conf.Process.Pin, Services: e.services(), Bypass: e.bypass(),
		Seed: flow.NewSeed(), Flows: e.maxFlows(),
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

// pingRefused returns a function that logs the first refusal of a ping socket.
func (e *engine) pingRefused() func(error) {
	var once sync.Once
	return func(err error) {
		once.Do(func() { e.log.Warn("no ping for the guest: " + err.Error()) })
	}
}

// shardCount is the number of shards, and of queues of a tap that we make.
func (e *engine) shardCount() int {
	if n := e.conf.Process.Queues; n > 0 {
		return n
	}
	cpus, err := sys.UsableCPUs()
	if err != nil {
		return 1
	}
	return min(len(cpus), conf.MaxQueues)
}

// reservedFDs are for what is not a flow: taps, epoll instances, pipes, netlink, and
// a margin.
const reservedFDs = 512

// lowFlowCount is the limit of flows below which it is logged at information level.
const lowFlowCount = 4096

// maxFlows is how many flows the limit of open files allows.
func (e *engine) maxFlows() int {
	limit := sys.RaiseFileLimit()
	if limit >= shard.MaxFlows+reservedFDs {
		return shard.MaxFlows
	}
	n := max(limit-reservedFDs, 64)
	level := slog.LevelDebug
	if n < lowFlowCount {
		level = slog.LevelInfo
	}
	e.log.Log(context.Background(), level, fmt.Sprintf("open file limit %d allows %d flows of %d", limit, n, shard.MaxFlows))
	return n
}

// heapHeadroom is how many octets of garbage the control thread may make before the
// collector runs at all.
const heapHeadroom = 64 << 20

// limitRuntime configures the Go runtime: a P for each shard and two for the control
// thread, and no periodic garbage collection, which would otherwise run every two
// minutes.
func limitRuntime(shards int) {
	runtime.GOMAXPROCS(shards + 2)
	debug.SetGCPercent(-1)
}

// manyListeners is the number from which releaseGarbage is worth its 8 ms.
const manyListeners = 2000

// releaseGarbage returns to the system what the lists of listeners left behind
// as they grew: more than half of what thousands of them take, which would stay
// for good, as the collector is off.
func (e *engine) releaseGarbage() {
	count := 0
	for _, n := range e.ports.lanes {
		count += len(n.sockets)
	}
	if count < manyListeners {
		return
	}
	e.group.Stats() // the shards answer once they serve the listeners
	debug.FreeOSMemory()
}

// limitHeap makes the collector run heapHeadroom above what is in use now.
func limitHeap() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	debug.SetMemoryLimit(int64(m.Sys-m.HeapReleased) + heapHeadroom)
}
