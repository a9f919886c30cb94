// Package engine composes the running program: it reads the host's network,
// opens the tap, starts the shards, binds the forwarded ports, closes the
// sandbox, and then is the thin control thread that follows events until it is
// told to end. It owns what it composes; nothing here is on the packet path.
package engine

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"penne/internal/conf"
	"penne/internal/fwd"
	"penne/internal/log"
	"penne/internal/ndp"
	"penne/internal/netns"
	"penne/internal/nl"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard"
	"penne/shard/flow"
	"penne/shard/steer"
	"penne/tap"
	"penne/tap/tun"
)

// engine is the state of the control thread.
type engine struct {
	conf     *conf.Config
	handles  *netns.Handles
	log      *log.Log
	dns      resolver
	template nl.Template
	rules    *fwd.Rules
	guest    fwd.Guest
	device   *tun.Device
	group    *shard.Group
	inside   *netns.Worker // the thread that lives in the namespace
	pool4    *netns.Pool   // sockets made there
	pool6    *netns.Pool
	ports    forwarder
	auto     auto
	failed   chan error // a shard lost its tap
}

// Serve is the engine of package netns: it returns when ctx ends, or with an
// error when forwarding cannot be set up or go on.
func Serve(ctx context.Context, c *conf.Config, h *netns.Handles) error {
	e := &engine{conf: c, handles: h, failed: make(chan error, 1)}
	if err := e.start(); err != nil {
		return err
	}
	if err := h.Ready(); err != nil {
		return err
	}
	return e.run(ctx)
}

// start sets everything up, in the order in which one thing needs the other.
func (e *engine) start() error {
	if err := e.openLog(); err != nil {
		return err
	}
	limitRuntime(e.queues())
	for _, step := range []func() error{
		e.readHost, e.openTap, e.makeShards, e.openInside, e.bindPorts, e.openAuto, e.sandbox,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	e.group.Start()
	return e.ports.serve(e.group)
}

// run follows events until the end.
func (e *engine) run(ctx context.Context) error {
	defer e.stop()
	var scan <-chan time.Time // never, where no "auto" is in force
	timer := time.NewTimer(0)
	defer timer.Stop()
	if len(e.auto.watchers) > 0 {
		scan = timer.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-e.failed:
			return err
		case <-scan:
			timer.Reset(e.scan())
		}
	}
}

// stop closes listeners first, so that a successor can bind at once, and then
// ends all flows.
func (e *engine) stop() {
	e.ports.close()
	e.group.Close()
	if e.inside != nil {
		e.inside.Close()
	}
	e.log.Close()
}

// readHost finds out what the guest shall look like.
func (e *engine) readHost() error {
	if f, err := os.Open("/etc/resolv.conf"); err == nil { // without one there is no resolver
		e.dns = readResolver(f)
		f.Close()
	}
	n := &e.conf.Net
	var err error
	e.template, err = nl.ReadTemplate(nl.Options{
		Interface: n.Interface, OutboundIf4: n.OutboundIf4, OutboundIf6: n.OutboundIf6,
		NoIPv4: n.IPv6Only, NoIPv6: n.IPv4Only,
		Addr4: n.Addr4, Addr6: n.Addr6, Bits4: n.Bits4, Bits6: n.Bits6,
		Gateway4: n.Gateway4, Gateway6: n.Gateway6,
		NoCopyAddrs: e.conf.Pasta.NoCopyAddrs, NoCopyRoutes: e.conf.Pasta.NoCopyRoutes,
	})
	if err != nil {
		return err
	}
	e.rules = rules(e.conf, &e.template, &e.dns)
	if !e.rules.V4.On && !e.rules.V6.On {
		return fmt.Errorf("neither IPv4 nor IPv6 can be served: check options -4 and -6, and the host's kernel")
	}
	return nil
}

// openTap makes the interface inside and sets it up.
func (e *engine) openTap() error {
	return netns.Do(e.handles.NetNS, func() error {
		name := e.conf.Pasta.Ifname
		if name == "" {
			name = e.template.Ifname
		}
		var err error
		if e.device, err = tun.Open(tun.Options{Name: name, Queues: e.queues()}); err != nil {
			return netns.TunError(err)
		}
		return e.configure()
	})
}

// configure sets up the interface. It runs inside the namespace.
func (e *engine) configure() error {
	c, err := nl.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.LoopbackUp(); err != nil {
		return err
	}
	report, err := c.Configure(nl.Config{
		Name: e.device.Name(), MAC: e.conf.Pasta.NSMAC, MTU: e.conf.Net.MTU,
		Up: e.conf.Pasta.ConfigNet, Template: &e.template,
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
	return nil
}

// makeShards makes one shard for each queue of the tap; none runs yet.
func (e *engine) makeShards() error {
	cfg := shard.Config{
		Rules: e.rules, Guest: &e.guest, Pin: e.conf.Process.Pin, NDP: e.ndp(), Bypass: e.bypass(),
		Seed: flow.NewSeed(), Flows: e.flows(),
		Warn:   e.pingRefused(),
		Failed: func(err error) { e.failed <- err },
	}
	for i := range e.device.Queues() {
		cfg.Ports = append(cfg.Ports, tap.Port(e.device.Queue(i)))
	}
	if n := len(cfg.Ports); n > 1 {
		mode, err := steer.Attach(e.device.Queue(0).FD(), n, &cfg.Seed)
		if err != nil {
			e.log.Warn(err.Error())
		}
		e.log.Debug("queues are steered by " + mode.String())
	}
	var err error
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

// ndp is what router advertisements say.
func (e *engine) ndp() ndp.Config {
	p := &e.conf.Protocols
	return ndp.Config{Off: p.NoNDP, NoRA: p.NoRA, Managed: !p.NoDHCPv6, Other: !p.NoDHCPv6}
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

// flows is how many flows the limit of descriptors allows.
func (e *engine) flows() int {
	limit := sys.RaiseFileLimit()
	if limit >= shard.MaxFlows+reservedFDs {
		return shard.MaxFlows
	}
	n := max(limit-reservedFDs, 64)
	e.log.Info(fmt.Sprintf("open file limit %d allows %d flows of %d", limit, n, shard.MaxFlows))
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
