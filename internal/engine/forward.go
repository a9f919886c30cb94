package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"penne/internal/conf"
	"penne/internal/log"
	"penne/internal/netns"
	"penne/internal/portscan"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard"
)

// forwarder binds the ports of -t, -u, -T and -U. Each of the four is a lane.
type forwarder struct {
	lanes []*lane
	group *shard.Group
}

// lane is one direction of one protocol.
type lane struct {
	proto    uint8
	inside   bool // bound in the namespace, leading to the host
	specs    []conf.PortSpec
	v4, v6   bool
	freebind bool
	// run runs a function on a thread in the namespace where the sockets
	// are to be.
	run   func(func() error) error
	low   []netns.LowPort // sockets that the launcher bound, not yet taken
	bound []bound
	// taken are the ports of rules and of "all", which stay bound; named are
	// those of rules alone.
	taken, named portscan.Ports
	spots        []*spot // where "auto" binds
	// holds tells whether flows of the guest's port hold the host's port of
	// the same number: it may have sent before it was found to be bound. Nil
	// where that cannot be.
	holds func(port uint16) bool
	room  int // sockets that each "all" may have
	patience
	log *log.Log
}

// bound is a socket, and the listener that the shards know it by.
type bound struct {
	l    *shard.Listener
	port uint16
	slot int
	auto *spot // nil: bound for good
}

// add binds every explicit port of the lane, and then those of "all" that are
// left. It returns the first failure of a port that was named; ports of "all"
// are bound as far as they are free.
func (n *lane) add() error {
	defer n.closeLow()
	for i := range n.specs {
		if s := &n.specs[i]; !n.v6 && s.Names(true) {
			return failure{fmt.Sprintf("option '%s' names an IPv6 address, and this host has no IPv6", s.Text)}
		}
	}
	return n.run(func() error {
		for i := range n.specs {
			if err := n.addRules(&n.specs[i]); err != nil {
				return err
			}
		}
		n.named = n.taken
		for i := range n.specs {
			if !n.specs[i].All {
				continue
			}
			if err := n.addAll(&n.specs[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// failure is an error in upstream's very words, which other programs look for.
type failure struct{ text string }

func (f failure) Error() string { return f.text }

func bindFailure(err error, port uint16, s *conf.PortSpec) error {
	return failure{fmt.Sprintf("Failed to bind port %d (%s) for option '%s'%s", port, reason(err), s.Text, hint(err, port))}
}

// addRules binds the ports that a specification names: all of them, but of
// those that UDP has from TCP only what can be had.
func (n *lane) addRules(s *conf.PortSpec) error {
	var left leftOut
	for _, r := range s.Rules {
		for port := int(r.First); port <= int(r.Last); port++ {
			p := uint16(port)
			if s.Inherited {
				if err := n.addPort(r, p); err != nil {
					left.add(p, err)
				}
				continue
			}
			if err := n.outlive(func() error { return n.addPort(r, p) }); err != nil {
				return bindFailure(err, p, s)
			}
		}
	}
	n.tellLeftOut(slog.LevelWarn, s, &left)
	return nil
}

// leftOut are ports of one specification that could not be bound.
type leftOut struct {
	count       int
	first, last uint16
	err         error // of the last one
}

func (l *leftOut) add(port uint16, err error) {
	if l.count == 0 {
		l.first = port
	}
	l.count, l.last, l.err = l.count+1, port, err
}

// tellLeftOut logs, in one line, what could not be bound.
func (n *lane) tellLeftOut(level slog.Level, s *conf.PortSpec, l *leftOut) {
	name := "TCP"
	if n.proto == wire.ProtoUDP {
		name = "UDP"
	}
	what := fmt.Sprintf("%s port %d", name, l.first)
	if l.count > 1 {
		what = fmt.Sprintf("%d %s ports from %d to %d", l.count, name, l.first, l.last)
	}
	if l.count > 0 {
		n.log.Log(context.Background(), level, fmt.Sprintf("option '%s' leaves out %s (%s)", s.Text, what, reason(l.err)))
	}
}

// addAll binds every port that is free, not excluded, and not ephemeral.
func (n *lane) addAll(s *conf.PortSpec) error {
	low, high := ephemeral()
	rule := conf.PortRule{Addr: s.Addr, Iface: s.Iface, First: 1, Last: 65535, ToFirst: 1, ToAddr: s.AllToAddr}
	bound := len(n.bound)
	var used, denied leftOut
	for port := 1; port <= 65535; port++ {
		p := uint16(port)
		if s.Excluded(p) || n.named.Has(p) || (p >= low && p <= high) {
			continue
		}
		if len(n.bound)-bound >= n.room {
			n.log.Warn(fmt.Sprintf("option '%s' forwards ports below %d only: half of the open files that are allowed (ulimit -n) are taken by ports", s.Text, port))
			break
		}
		switch err := n.addPort(rule, p); {
		case errors.Is(err, fs.ErrPermission):
			denied.add(p, err)
		case err != nil:
			used.add(p, err)
		}
	}
	if err := errors.Join(denied.err, used.err); len(n.bound) == bound && err != nil {
		return failure{fmt.Sprintf("Failed to bind any port for option '%s' (%s)", s.Text, reason(err))}
	}
	n.tellLeftOut(slog.LevelInfo, s, &denied) // as most users have it
	n.tellLeftOut(slog.LevelWarn, s, &used)
	return nil
}

// addPort binds one port of a rule, for good.
func (n *lane) addPort(r conf.PortRule, port uint16) error {
	var err error
	if n.inside && !r.Addr.IsValid() && r.Iface == "" {
		err = n.addLoopback(r, port)
	} else {
		err = n.addOne(r, port, nil)
	}
	if err == nil {
		n.taken.Add(port)
	}
	return err
}

// addLoopback binds a port in the namespace to its loopback addresses: who
// comes in by the tap, from another machine, must not be led to the host's
// loopback. One family is enough where the other has no such address.
func (n *lane) addLoopback(r conf.PortRule, port uint16) error {
	before, err := len(n.bound), error(nil)
	for _, a := range n.loopbacks() {
		r.Addr = a
		if e := n.addOne(r, port, nil); err == nil || errors.Is(e, syscall.EADDRINUSE) {
			err = e
		}
	}
	if len(n.bound) > before && !errors.Is(err, syscall.EADDRINUSE) {
		return nil
	}
	for _, b := range n.bound[before:] {
		sys.Close(b.l.FD)
	}
	n.bound = n.bound[:before]
	return err
}

// loopbacks are the loopback addresses of the families that are served.
func (n *lane) loopbacks() (out []netip.Addr) {
	if n.v4 {
		out = append(out, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	if n.v6 {
		out = append(out, netip.IPv6Loopback())
	}
	return out
}

// addOne makes one socket.
func (n *lane) addOne(r conf.PortRule, port uint16, auto *spot) error {
	fd, err := n.socket(r, port)
	if err != nil {
		return err
	}
	n.bound = append(n.bound, bound{port: port, slot: -1, auto: auto, l: &shard.Listener{
		FD: fd, Proto: n.proto, Inside: n.inside, Device: r.Iface,
		Target: r.ToFirst + (port - r.First), ToAddr: wire.AddrFrom(r.ToAddr),
	}})
	return nil
}

func (n *lane) socket(r conf.PortRule, port uint16) (int, error) {
	if fd, ok := n.takeLow(r, port); ok {
		return fd, nil
	}
	o := listenOptions(&r, port, n.v4, n.v6)
	o.Datagram, o.Freebind = n.proto == wire.ProtoUDP, n.freebind
	fd, err := sys.Listener(o)
	if errors.Is(err, syscall.EADDRINUSE) && n.holds != nil && n.holds(port) {
		o.Share = true
		return sys.Listener(o)
	}
	return fd, err
}

// listenOptions says where to bind a port of a rule. No address means any of the
// families that are served, while "0.0.0.0" and "::" mean any of their own.
func listenOptions(r *conf.PortRule, port uint16, v4, v6 bool) sys.ListenOptions {
	if r.Addr.IsValid() {
		v4, v6 = v4 && r.Addr.Is4(), v6 && r.Addr.Is6()
	}
	return sys.ListenOptions{Addr: listenAddr(r.Addr), V4: v4, V6: v6, Iface: r.Iface, Port: port}
}

// takeLow finds a socket that the launcher has bound for this port.
func (n *lane) takeLow(r conf.PortRule, port uint16) (int, bool) {
	for i, p := range n.low {
		if p.Port != port || p.Iface != r.Iface || p.Addr != r.Addr {
			continue
		}
		n.low = append(n.low[:i], n.low[i+1:]...)
		return p.FD, true
	}
	return -1, false
}

// closeLow closes what the launcher has bound in vain: clients are refused there,
// rather than left waiting.
func (n *lane) closeLow() {
	for _, p := range n.low {
		sys.Close(p.FD)
	}
	n.low = nil
}

func listenAddr(a netip.Addr) [16]byte {
	if !a.IsValid() {
		return [16]byte{}
	}
	return a.As16()
}

// reason is the kernel's word for an error, as strerror(3) has it.
func reason(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		text := errno.Error()
		return strings.ToUpper(text[:1]) + text[1:]
	}
	return err.Error()
}

// hint says what to do about a port that only the privileged may bind.
func hint(err error, port uint16) string {
	if !errors.Is(err, fs.ErrPermission) {
		return ""
	}
	return fmt.Sprintf(": ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE, or 'sysctl -w net.ipv4.ip_unprivileged_port_start=%d'", port)
}

// ephemeral is the range of ports that the kernel gives to outbound sockets.
func ephemeral() (low, high uint16) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	words := strings.Fields(string(b))
	if err != nil || len(words) != 2 {
		return 32768, 60999 // the kernel's default
	}
	lo, err1 := strconv.ParseUint(words[0], 10, 16)
	hi, err2 := strconv.ParseUint(words[1], 10, 16)
	if err1 != nil || err2 != nil {
		return 32768, 60999
	}
	return uint16(lo), uint16(hi)
}

// serve lets the shards take over everything that is bound.
func (f *forwarder) serve(g *shard.Group) {
	f.group = g
	for _, n := range f.lanes {
		n.serve(g)
	}
}

// serve gives new sockets of the lane to the shards.
func (n *lane) serve(g *shard.Group) {
	var ls []*shard.Listener
	var at []int
	for i := range n.bound {
		if n.bound[i].slot < 0 {
			ls, at = append(ls, n.bound[i].l), append(at, i)
		}
	}
	if len(ls) == 0 {
		return
	}
	for i, slot := range g.Listen(ls) {
		n.bound[at[i]].slot = slot
	}
}

// release ends the service of all listeners: no shard uses them any more.
func (f *forwarder) release() {
	var slots []int
	for _, n := range f.lanes {
		for _, b := range n.bound {
			if b.slot >= 0 {
				slots = append(slots, b.slot)
			}
		}
	}
	if len(slots) > 0 {
		f.group.Unlisten(slots)
	}
}

// close closes every listener, after release.
func (f *forwarder) close() {
	for _, n := range f.lanes {
		for _, b := range n.bound {
			sys.Close(b.l.FD)
		}
		n.bound = nil
	}
}
