package engine

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"penne/internal/conf"
	"penne/internal/fwd"
	"penne/internal/nl"
	"penne/internal/sys"
	"penne/internal/wire"
)

const (
	// addrLinger is how long an address that the host no longer has stays
	// inside, for its connections.
	addrLinger = time.Hour
	// advertiseInterval keeps the guest's default route alive: a third of
	// ndp.RouterLifetime, so that one advertisement may be lost.
	advertiseInterval = 6 * time.Hour
)

// readHost reads the host's network and resolver configuration, and starts to follow
// both.
func (e *engine) readHost() error {
	e.resolv, e.dns = openResolv(e.handles.Inotify, resolvPath, usualDirs...)
	n := &e.conf.Net
	var err error
	e.monitor, e.template, err = nl.NewMonitor(nl.Options{
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
	e.checkOutbound(n)
	if !e.rules.V4.On && !e.rules.V6.On {
		return fmt.Errorf("neither IPv4 nor IPv6 can be served: check options -4 and -6, and the host's kernel")
	}
	return nil
}

// checkOutbound warns of what outbound sockets cannot be bound to yet.
func (e *engine) checkOutbound(n *conf.Net) {
	for _, a := range []netip.Addr{n.Outbound4, n.Outbound6} {
		if !bindable(a) {
			e.log.Warn("outbound address " + a.String() + " is none of this host's: nothing gets out until it is")
		}
	}
	for _, name := range slices.Compact([]string{n.OutboundIf4, n.OutboundIf6}) {
		if _, err := net.InterfaceByName(name); name != "" && err != nil {
			e.log.Warn("outbound interface " + name + " does not exist: nothing gets out until it does")
		}
	}
}

// bindable reports whether sockets can be bound to a, as far as can be found out: for
// a link-local address that depends on the link.
func bindable(a netip.Addr) bool {
	if !a.IsValid() || a.IsLinkLocalUnicast() {
		return true
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	if err != nil {
		return !errors.Is(err, sys.EADDRNOTAVAIL)
	}
	c.Close()
	return true
}

// followHost returns channels that deliver changes of the host's network and
// resolver configuration.
func (e *engine) followHost() (<-chan nl.Template, <-chan resolvConf) {
	templates, resolvers := make(chan nl.Template), make(chan resolvConf)
	go func() {
		for {
			t, err := e.monitor.Next()
			if errors.Is(err, os.ErrClosed) {
				return
			}
			if err != nil {
				e.log.Limited("follow").Warn("changes of the host's network arrive later: " + err.Error())
				continue
			}
			templates <- t
		}
	}()
	go e.followResolver(e.dns, resolvers)
	return templates, resolvers
}

func (e *engine) followResolver(last resolvConf, to chan<- resolvConf) {
	for {
		r, err := e.resolv.next(last)
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case errors.Is(err, errOutOfReach):
			e.log.Warn(err.Error())
		case err != nil:
			e.log.Warn(err.Error())
			return
		default:
			last = r
			to <- r
		}
	}
}

// hostChanged applies a change of the host's network.
func (e *engine) hostChanged(next *nl.Template) {
	old := e.template
	e.template = *next
	if e.nsConn != nil {
		e.reconfigure(&old)
	}
	e.setRules()
	e.log.Info("the host's network has changed")
	e.describeNetwork()
}

// reconfigure applies the new template to the namespace.
func (e *engine) reconfigure(old *nl.Template) {
	var report nl.Report
	err := e.nsWorker.Do(func() error {
		report = e.nsConn.Apply(e.nsIndex, old, &e.template, addrLinger)
		return nil
	})
	if err != nil {
		return // we are about to end
	}
	for _, p := range report.Problems {
		e.log.Limited("inside").Warn("left out: " + p.String())
	}
}

// setRules makes new rules, passes them to the shards, and advertises them.
func (e *engine) setRules() {
	next := rules(e.conf, &e.template, &e.dns)
	if e.nsConn != nil {
		moveGuest(&e.guest, e.rules, next)
	}
	e.rules = next
	e.group.SetRules(next)
	e.group.SetServices(e.services())
	e.group.Advertise()
}

// moveGuest notes the guest's new addresses, which we gave it, before it has used
// them; not if it has chosen its own.
func moveGuest(g *fwd.Guest, old, next *fwd.Rules) {
	for _, f := range [...]struct{ old, next *wire.Addr }{
		{&old.V4.Guest, &next.V4.Guest}, {&old.V6.Guest, &next.V6.Guest},
	} {
		if *f.old != *f.next && !f.next.IsZero() && !f.old.IsZero() && g.Addr(f.old, old) == *f.old {
			g.SawAddr(f.next)
		}
	}
}

// mayReconfigure decides whether the namespace can be configured later on, which
// takes CAP_NET_ADMIN over it. If that were over the host's network as well (root of
// the host, or of a container with the host's network), the capability is given up:
// the namespace keeps its configuration, and only the rules follow the host's.
func (e *engine) mayReconfigure() bool {
	if !e.conf.Pasta.ConfigNet {
		return false
	}
	host, err := sys.ThreadNetNS()
	if err != nil {
		return false
	}
	defer sys.Close(host)
	reach, err := sys.CapsReach(host)
	if err != nil || reach {
		e.log.Debug("addresses and routes inside are not going to follow the host's: the capability would hold over those too")
		return false
	}
	return true
}
