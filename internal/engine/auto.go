package engine

import (
	"fmt"
	"slices"
	"time"

	"penne/internal/conf"
	"penne/internal/portscan"
	"penne/internal/sys"
	"penne/internal/wire"
)

// watcher follows the ports that are bound on one side, for the lanes with "auto"
// that forward to it.
type watcher struct {
	scanner *portscan.Scanner
	lanes   []*lane // with "auto", bound on the other side
	own     []*lane // bound on this side: their ports are not forwarded back
	result  portscan.Result
}

// auto is what lanes with "auto" need to follow the ports that are bound.
type auto struct {
	watchers []*watcher
	policy   portscan.Policy
	// ephemeralFirst to ephemeralLast are left out for UDP, where clients are
	// bound just as servers are.
	ephemeralFirst, ephemeralLast uint16
	// retryAt is when ports that could not be bound are tried again, on
	// sys.Now's clock: nothing tells when they become free.
	retryAt int64
}

// retryInterval is how often "auto" tries again to bind a port.
const retryInterval = int64(time.Second)

// openAuto opens the scanners that "auto" needs, if any, and scans: ports that are
// bound already are forwarded by the time that we report readiness.
func (e *engine) openAuto() error {
	e.auto.ephemeralFirst, e.auto.ephemeralLast = ephemeral()
	here := func(fn func() error) error { return fn() }
	for _, n := range e.ports.lanes {
		n.findAutoAddrs()
		if n.proto == wire.ProtoUDP {
			n.heldByFlow = func(port uint16) bool { return e.group.HoldsUDP(port, n.inside) }
		}
	}
	e.syncStubs()
	for _, inside := range []bool{false, true} {
		w := &watcher{}
		var o portscan.Options
		for _, n := range e.ports.lanes {
			switch {
			case n.inside == inside:
				w.own = append(w.own, n)
			case len(n.autoAddrs) > 0:
				w.lanes = append(w.lanes, n)
				o.TCP = o.TCP || n.proto == wire.ProtoTCP
				o.UDP = o.UDP || n.proto == wire.ProtoUDP
			}
		}
		if len(w.lanes) == 0 {
			continue
		}
		run := here
		if inside {
			run = e.nsWorker.Do
		}
		err := run(func() (err error) {
			w.scanner, err = portscan.Open(o)
			return err
		})
		if err != nil {
			return fmt.Errorf("follow bound ports: %w", err)
		}
		e.auto.watchers = append(e.auto.watchers, w)
	}
	if len(e.auto.watchers) > 0 {
		e.scan()
	}
	return nil
}

// scan syncs all lanes with "auto" and returns how long to wait until the next scan.
func (e *engine) scan() time.Duration {
	changed, now := false, sys.Now()
	again := now >= e.auto.retryAt
	if again {
		e.auto.retryAt = now + retryInterval
	}
	for _, w := range e.auto.watchers {
		if err := w.scanner.Scan(&w.result); err != nil {
			e.log.Limited("scan").Warn(err.Error())
			continue
		}
		for _, n := range w.own {
			w.exclude(n)
		}
		for _, n := range w.lanes {
			for _, p := range n.autoAddrs {
				if again {
					p.refused = portscan.Ports{}
				}
			}
			changed = e.sync(n, w.want(n, &e.auto)) || changed
		}
	}
	return e.auto.policy.Next(time.Duration(now), uint64(e.group.LastActive()), changed)
}

// exclude removes from the result the ports that lane n, one of ours, has bound.
func (w *watcher) exclude(n *lane) {
	f := &w.result.TCP
	if n.proto == wire.ProtoUDP {
		f = &w.result.UDP
	}
	for _, all := range []*portscan.Ports{&f.V4, &f.V6} {
		all.RemoveAll(&n.boundPorts)
		for _, p := range n.autoAddrs {
			all.RemoveAll(&p.bound)
		}
	}
}

// want returns the ports that lane n is to bind for "auto".
func (w *watcher) want(n *lane, a *auto) *portscan.Ports {
	f := &w.result.TCP
	if n.proto == wire.ProtoUDP {
		f = &w.result.UDP
	}
	var want portscan.Ports
	for _, p := range []*portscan.Ports{&f.V4, &f.V6} {
		for port := range p.All() {
			if n.proto != wire.ProtoUDP || port < a.ephemeralFirst || port > a.ephemeralLast {
				want.Add(port)
			}
		}
	}
	return &want
}

// sync binds the ports in want, closes the listeners of others, and reports whether
// anything changed.
func (e *engine) sync(n *lane, want *portscan.Ports) (changed bool) {
	changed = n.dropAuto(want, e.group.Unlisten)
	want.RemoveAll(&n.namedPorts)
	if !slices.ContainsFunc(n.autoAddrs, func(p *autoAddr) bool { return p.missesAny(want) }) {
		return changed // without waking the thread in the namespace
	}
	err := n.run(func() error {
		for _, p := range n.autoAddrs {
			for port := range p.missing(want) {
				changed = n.bindAuto(p, port) || changed
			}
		}
		return nil
	})
	if err == nil {
		n.serve(e.group)
	}
	return changed
}

// bindAuto binds one port on p.
func (n *lane) bindAuto(p *autoAddr, port uint16) bool {
	r := conf.PortRule{Addr: p.addr, Iface: p.spec.Iface, First: port, Last: port, ToFirst: port, ToAddr: p.target()}
	if n.bindOne(r, port, p) != nil {
		p.refused.Add(port)
		return false
	}
	p.bound.Add(port)
	return true
}

// dropAuto closes the listeners of "auto" for ports that are not in want, or whose
// autoAddr is gone, and reports whether there were any.
func (n *lane) dropAuto(want *portscan.Ports, unlisten func([]int)) bool {
	var slots []int
	var gone []boundSocket
	n.sockets = slices.DeleteFunc(n.sockets, func(b boundSocket) bool {
		if b.auto == nil || want.Has(b.port) && slices.Contains(n.autoAddrs, b.auto) {
			return false
		}
		slots, gone = append(slots, b.slot), append(gone, b)
		return true
	})
	if len(gone) == 0 {
		return false
	}
	unlisten(slots)
	for _, b := range gone {
		sys.Close(b.l.FD)
		b.auto.bound.Remove(b.port)
	}
	return true
}
