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

// forwarder owns the sockets of -t, -u, -T and -U. Each of the four is a lane.
type forwarder struct {
	lanes []*lane
	group *shard.Group
}

// lane is one direction of one protocol.
type lane struct {
	proto    uint8
	inside   bool // bound in the namespace, forwarded to the host
	specs    []conf.PortSpec
	v4, v6   bool
	freebind bool
	// run runs a function on a thread in the namespace where the sockets
	// are to be bound.
	run        func(func() error) error
	privileged []netns.PrivilegedPort // sockets that the launcher bound, not yet taken
	sockets    []boundSocket
	// boundPorts are the ports of rules and of "all", which stay bound;
	// namedPorts those of rules only.
	boundPorts, namedPorts portscan.Ports
	autoAddrs              []*autoAddr // where "auto" binds
	// heldByFlow reports whether a flow from the other side's port uses the
	// port of the same number here: its owner may have sent before a scan
	// found the port bound. Nil if that cannot be.
	heldByFlow func(port uint16) bool
	maxAll     int // sockets that each "all" may have
	retry      retry
	log        *log.Log
}

// boundSocket is a socket, and the shards' listener for it.
type boundSocket struct {
	l    *shard.Listener
	port uint16
	slot int
	auto *autoAddr // nil if bound for good
}

// bind binds every explicit port of the lane, and then the other ports of "all" that
// are free. It returns the first failure of an explicit port.
func (n *lane) bind() error {
	defer n.closePrivileged()
	for i := range n.specs {
		if s := &n.specs[i]; !n.v6 && s.NamesFamily(true) {
			return portError{fmt.Sprintf("option '%s' names an IPv6 address, and this host has no IPv6", s.Text)}
		}
	}
	return n.run(func() error {
		for i := range n.specs {
			if err := n.bindRules(&n.specs[i]); err != nil {
				return err
			}
		}
		n.namedPorts = n.boundPorts
		for i := range n.specs {
			if !n.specs[i].All {
				continue
			}
			if err := n.bindAll(&n.specs[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// portError is an error in upstream's exact words, which other programs look for.
type portError struct{ text string }

func (f portError) Error() string { return f.text }

func bindError(err error, port uint16, s *conf.PortSpec) error {
	return portError{fmt.Sprintf("Failed to bind port %d (%s) for option '%s'%s", port, strerror(err), s.Text, hint(err, port))}
}

// bindRules binds the explicit ports of a specification: all of them, or of those
// that UDP inherits from TCP as many as possible.
func (n *lane) bindRules(s *conf.PortSpec) error {
	var left unbound
	for _, r := range s.Rules {
		for port := int(r.First); port <= int(r.Last); port++ {
			p := uint16(port)
			if s.Inherited {
				if err := n.bindPort(r, p); err != nil {
					left.add(p, err)
				}
				continue
			}
			if err := n.retry.whileInUse(func() error { return n.bindPort(r, p) }); err != nil {
				return bindError(err, p, s)
			}
		}
	}
	n.logUnbound(slog.LevelWarn, s, &left)
	return nil
}

// unbound are the ports of one specification that could not be bound.
type unbound struct {
	count       int
	first, last uint16
	err         error // of the last one
}

func (l *unbound) add(port uint16, err error) {
	if l.count == 0 {
		l.first = port
	}
	l.count, l.last, l.err = l.count+1, port, err
}

// logUnbound logs, in one line, what could not be bound.
func (n *lane) logUnbound(level slog.Level, s *conf.PortSpec, l *unbound) {
	what := fmt.Sprintf("%s port %d", n.protocol(), l.first)
	if l.count > 1 {
		what = fmt.Sprintf("%d %s ports from %d to %d", l.count, n.protocol(), l.first, l.last)
	}
	if l.count > 0 {
		n.log.Log(context.Background(), level, fmt.Sprintf("option '%s' leaves out %s (%s)", s.Text, what, strerror(l.err)))
	}
}

// protocol is the name of the lane's protocol. A line of the log needs it, since UDP
// has the options of TCP unless it has its own.
func (n *lane) protocol() string {
	if n.proto == wire.ProtoUDP {
		return "UDP"
	}
	return "TCP"
}

// bindAll binds every port that is free, not excluded, and not ephemeral. It fails
// if none can be bound.
func (n *lane) bindAll(s *conf.PortSpec) error {
	low, high := ephemeral()
	rule := conf.PortRule{Addr: s.Addr, Iface: s.Iface, First: 1, Last: 65535, ToFirst: 1, ToAddr: s.AllToAddr}
	bound := len(n.sockets)
	var used, denied unbound
	for port := 1; port <= 65535; port++ {
		p := uint16(port)
		if s.Excluded(p) || n.namedPorts.Has(p) || (p >= low && p <= high) {
			continue
		}
		if len(n.sockets)-bound >= n.maxAll {
			n.log.Warn(fmt.Sprintf("option '%s' forwards %s ports below %d only: half of the open files that are allowed (ulimit -n) are taken by ports",
				s.Text, n.protocol(), port))
			break
		}
		switch err := n.bindPort(rule, p); {
		case errors.Is(err, fs.ErrPermission):
			denied.add(p, err)
		case err != nil:
			used.add(p, err)
		}
	}
	if err := errors.Join(denied.err, used.err); len(n.sockets) == bound && err != nil {
		return portError{fmt.Sprintf("Failed to bind any port for option '%s' (%s)", s.Text, strerror(err))}
	}
	n.logUnbound(slog.LevelInfo, s, &denied) // the usual case
	n.logUnbound(slog.LevelWarn, s, &used)
	return nil
}

// bindPort binds one port of a rule, for good.
func (n *lane) bindPort(r conf.PortRule, port uint16) error {
	var err error
	if n.inside && !r.Addr.IsValid() && r.Iface == "" {
		err = n.bindLoopback(r, port)
	} else {
		err = n.bindOne(r, port, nil)
	}
	if err == nil {
		n.boundPorts.Add(port)
	}
	return err
}

// bindLoopback binds a port in the namespace to its loopback addresses only: what
// comes in by the tap, from other machines, must not reach the host's loopback.
// One family is enough if the other has no such address.
func (n *lane) bindLoopback(r conf.PortRule, port uint16) error {
	before, err := len(n.sockets), error(nil)
	for _, a := range n.loopbacks() {
		r.Addr = a
		if e := n.bindOne(r, port, nil); err == nil || errors.Is(e, syscall.EADDRINUSE) {
			err = e
		}
	}
	if len(n.sockets) > before && !errors.Is(err, syscall.EADDRINUSE) {
		return nil
	}
	for _, b := range n.sockets[before:] {
		sys.Close(b.l.FD)
	}
	n.sockets = n.sockets[:before]
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

// bindOne binds one port with one socket.
func (n *lane) bindOne(r conf.PortRule, port uint16, auto *autoAddr) error {
	fd, err := n.socket(r, port)
	if err != nil {
		return err
	}
	n.sockets = append(n.sockets, boundSocket{port: port, slot: -1, auto: auto, l: &shard.Listener{
		FD: fd, Proto: n.proto, Inside: n.inside, Device: r.Iface,
		Target: r.ToFirst + (port - r.First), ToAddr: wire.AddrFrom(r.ToAddr),
	}})
	return nil
}

// socket returns a socket bound to a port of r: the launcher's, or a new one. The
// caller owns it. A UDP port that a flow of ours uses is shared with that flow.
func (n *lane) socket(r conf.PortRule, port uint16) (int, error) {
	if fd, ok := n.takePrivileged(r, port); ok {
		return fd, nil
	}
	o := listenOptions(&r, port, n.v4, n.v6)
	o.Datagram, o.Freebind = n.proto == wire.ProtoUDP, n.freebind
	fd, err := sys.Listener(o)
	if errors.Is(err, syscall.EADDRINUSE) && n.heldByFlow != nil && n.heldByFlow(port) {
		o.Share = true
		return sys.Listener(o)
	}
	return fd, err
}

// listenOptions says where to bind a port of a rule. No address means any of all
// enabled families, "0.0.0.0" and "::" any of their own.
func listenOptions(r *conf.PortRule, port uint16, v4, v6 bool) sys.ListenOptions {
	if r.Addr.IsValid() {
		v4, v6 = v4 && r.Addr.Is4(), v6 && r.Addr.Is6()
	}
	return sys.ListenOptions{Addr: listenAddr(r.Addr), V4: v4, V6: v6, Iface: r.Iface, Port: port}
}

// takePrivileged takes the socket that the launcher has bound for this port, if any.
func (n *lane) takePrivileged(r conf.PortRule, port uint16) (int, bool) {
	for i, p := range n.privileged {
		if p.Port != port || p.Iface != r.Iface || p.Addr != r.Addr {
			continue
		}
		n.privileged = append(n.privileged[:i], n.privileged[i+1:]...)
		return p.FD, true
	}
	return -1, false
}

// closePrivileged closes the launcher's sockets that were not taken, so that clients
// are refused.
func (n *lane) closePrivileged() {
	for _, p := range n.privileged {
		sys.Close(p.FD)
	}
	n.privileged = nil
}

func listenAddr(a netip.Addr) [16]byte {
	if !a.IsValid() {
		return [16]byte{}
	}
	return a.As16()
}

// strerror describes err as strerror(3) does, and as upstream prints it.
func strerror(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		text := errno.Error()
		return strings.ToUpper(text[:1]) + text[1:]
	}
	return err.Error()
}

// hint says what to do about a port that takes privilege, or one socket too many, to
// bind.
func hint(err error, port uint16) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf(": ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE, or 'sysctl -w net.ipv4.ip_unprivileged_port_start=%d'", port)
	case errors.Is(err, syscall.EMFILE):
		return ": " + raiseFileLimit
	}
	return ""
}

// ephemeral is the range from which the kernel assigns ports.
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

// serve passes all bound sockets to the shards.
func (f *forwarder) serve(g *shard.Group) {
	f.group = g
	for _, n := range f.lanes {
		n.serve(g)
	}
}

// serve passes the lane's new sockets to the shards.
func (n *lane) serve(g *shard.Group) {
	var ls []*shard.Listener
	var at []int
	for i := range n.sockets {
		if n.sockets[i].slot < 0 {
			ls, at = append(ls, n.sockets[i].l), append(at, i)
		}
	}
	if len(ls) == 0 {
		return
	}
	for i, slot := range g.Listen(ls) {
		n.sockets[at[i]].slot = slot
	}
}

// release takes all listeners away from the shards.
func (f *forwarder) release() {
	var slots []int
	for _, n := range f.lanes {
		for _, b := range n.sockets {
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
		for _, b := range n.sockets {
			sys.Close(b.l.FD)
		}
		n.sockets = nil
	}
}
