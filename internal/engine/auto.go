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

// watcher follows the ports that are bound on one side, for the lanes with
// "auto" that lead there.
type watcher struct {
	scanner *portscan.Scanner
	lanes   []*lane // to be kept in step: bound on the other side
	own     []*lane // bound on this side: not to be led back
	result  portscan.Result
}

// auto keeps "auto" lanes in step with what is bound.
type auto struct {
	watchers []*watcher
	policy   portscan.Policy
	// lowest and highest ephemeral ports, which a UDP client is bound to as
	// a server would be.
	low, high uint16
	// retry is when ports that were refused are tried again, on sys.Now's
	// clock: nothing tells when their holder lets go.
	retry int64
}

// retryRefused is how long a port that "auto" could not bind is left alone.
const retryRefused = int64(time.Second)

// openAuto opens the scanners that "auto" needs, if any, and binds what they
// find: who waits for our readiness may count on ports that were bound before.
func (e *engine) openAuto() error {
	e.auto.low, e.auto.high = ephemeral()
	here := func(fn func() error) error { return fn() }
	for _, n := range e.ports.lanes {
		n.openSpots()
		if n.proto == wire.ProtoUDP && !n.inside {
			n.holds = e.group.HoldsUDP
		}
	}
	e.followStubs()
	for _, inside := range []bool{false, true} {
		w := &watcher{}
		var o portscan.Options
		for _, n := range e.ports.lanes {
			switch {
			case n.inside == inside:
				w.own = append(w.own, n)
			case len(n.spots) > 0:
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
			run = e.inside.Do
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

// scan brings all lanes in step and returns when to do so again.
func (e *engine) scan() time.Duration {
	changed, now := false, sys.Now()
	again := now >= e.auto.retry
	if again {
		e.auto.retry = now + retryRefused
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
			for _, p := range n.spots {
				if again {
					p.refused = portscan.Ports{}
				}
			}
			changed = e.follow(n, w.want(n, &e.auto)) || changed
		}
	}
	return e.auto.policy.Next(time.Duration(now), uint64(e.group.LastActive()), changed)
}

// exclude takes out of the result what a lane of ours has bound on this side.
func (w *watcher) exclude(n *lane) {
	f := &w.result.TCP
	if n.proto == wire.ProtoUDP {
		f = &w.result.UDP
	}
	for _, all := range []*portscan.Ports{&f.V4, &f.V6} {
		all.RemoveAll(&n.taken)
		for _, p := range n.spots {
			all.RemoveAll(&p.bound)
		}
	}
}

// want is the ports that lane n shall have bound by "auto".
func (w *watcher) want(n *lane, a *auto) *portscan.Ports {
	f := &w.result.TCP
	if n.proto == wire.ProtoUDP {
		f = &w.result.UDP
	}
	var want portscan.Ports
	for _, p := range []*portscan.Ports{&f.V4, &f.V6} {
		for port := range p.All() {
			if n.proto != wire.ProtoUDP || port < a.low || port > a.high {
				want.Add(port)
			}
		}
	}
	return &want
}

// follow binds what is wanted and not there, and lets go of what is no longer
// wanted. It tells whether anything changed.
func (e *engine) follow(n *lane, want *portscan.Ports) (changed bool) {
	changed = n.dropAuto(want, e.group.Unlisten)
	want.RemoveAll(&n.named)
	if !slices.ContainsFunc(n.spots, func(p *spot) bool { return p.misses(want) }) {
		return changed // and the thread in the namespace sleeps on
	}
	err := n.run(func() error {
		for _, p := range n.spots {
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

// bindAuto binds one port in one spot.
func (n *lane) bindAuto(p *spot, port uint16) bool {
	r := conf.PortRule{Addr: p.addr, Iface: p.spec.Iface, First: port, Last: port, ToFirst: port, ToAddr: p.target()}
	if n.addOne(r, port, p) != nil {
		p.refused.Add(port)
		return false
	}
	p.bound.Add(port)
	return true
}

// dropAuto closes listeners of "auto" for ports that are not in want, or whose
// spot is no longer there.
func (n *lane) dropAuto(want *portscan.Ports, unlisten func([]int)) bool {
	var slots []int
	var gone []bound
	n.bound = slices.DeleteFunc(n.bound, func(b bound) bool {
		if b.auto == nil || want.Has(b.port) && slices.Contains(n.spots, b.auto) {
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
