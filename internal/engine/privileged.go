package engine

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"penne/internal/conf"
	"penne/internal/netns"
	"penne/internal/portscan"
	"penne/internal/sys"
)

// BindPrivileged binds, in the launcher, the host's ports that take a capability of
// the caller's: it is lost by joining a user namespace. It fails if an explicit
// port is in use; any other error is left to the engine, which tries again and
// reports it. Ports of "auto" are not bound here.
func BindPrivileged(c *conf.Config) ([]netns.PrivilegedPort, error) {
	first := unprivilegedStart()
	if first < 2 {
		return nil, nil
	}
	b := privilegedBinder{conf: c, last: uint16(first - 1), maxAll: maxSocketsOfAll(&c.Forward)}
	for _, side := range []struct {
		tcp   bool
		off   bool
		specs []conf.PortSpec
	}{{true, c.Protocols.NoTCP, c.Forward.TCPIn}, {false, c.Protocols.NoUDP, c.Forward.UDPIn}} {
		if side.off {
			continue
		}
		b.tcp, b.namedPorts = side.tcp, portscan.Ports{}
		for i := range side.specs {
			if err := b.bindRules(&side.specs[i]); err != nil {
				return nil, err
			}
		}
		for i := range side.specs {
			if side.specs[i].All {
				b.bindAll(&side.specs[i])
			}
		}
	}
	return b.sockets, nil
}

// privilegedBinder is the state of BindPrivileged.
type privilegedBinder struct {
	conf       *conf.Config
	last       uint16 // of the privileged ports
	tcp        bool
	namedPorts portscan.Ports // of the protocol, in rules: "all" leaves them alone
	maxAll     int            // sockets that an "all" may have
	sockets    []netns.PrivilegedPort
	retry      retry
}

// bindRules binds the explicit ports of a specification.
func (b *privilegedBinder) bindRules(s *conf.PortSpec) error {
	for _, r := range s.Rules {
		for port := int(r.First); port <= int(min(r.Last, b.last)); port++ {
			p := uint16(port)
			b.namedPorts.Add(p)
			if s.Inherited {
				_ = b.bind(&r, p)
				continue
			}
			err := b.retry.whileInUse(func() error { return b.bind(&r, p) })
			if errors.Is(err, syscall.EADDRINUSE) {
				return bindError(err, p, s)
			}
		}
	}
	return nil
}

// bindAll binds the other ports, as the engine would, and stops if that is not
// permitted.
func (b *privilegedBinder) bindAll(s *conf.PortSpec) {
	r := conf.PortRule{Addr: s.Addr, Iface: s.Iface}
	end := len(b.sockets) + b.maxAll
	for p := uint16(1); p <= b.last && len(b.sockets) < end; p++ {
		if s.Excluded(p) || b.namedPorts.Has(p) {
			continue
		}
		if err := b.bind(&r, p); errors.Is(err, fs.ErrPermission) {
			return
		}
	}
}

func (b *privilegedBinder) bind(r *conf.PortRule, port uint16) error {
	o := listenOptions(r, port, !b.conf.Net.IPv6Only, !b.conf.Net.IPv4Only && sys.HasIPv6())
	o.Datagram, o.Freebind = !b.tcp, b.conf.Forward.Freebind
	fd, err := sys.Listener(o)
	if err == nil {
		b.sockets = append(b.sockets, netns.PrivilegedPort{FD: fd, TCP: b.tcp, Addr: r.Addr, Port: port, Iface: r.Iface})
	}
	return err
}

// holderGrace is how long a process that is about to end, such as our predecessor,
// may hold a port, or the name of the tap.
const holderGrace = 250 * time.Millisecond

// retry retries to get what is in use, for holderGrace in all, however many ports
// there are. The time starts with the first one.
type retry struct{ until time.Time }

// whileInUse calls take until it succeeds, fails otherwise, or time is up.
func (r *retry) whileInUse(take func() error) error {
	err := take()
	if inUse(err) && r.until.IsZero() {
		r.until = time.Now().Add(holderGrace)
	}
	for inUse(err) && time.Now().Before(r.until) {
		time.Sleep(10 * time.Millisecond)
		err = take()
	}
	return err
}

// inUse tells whether somebody else has the port, or the name.
func inUse(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EBUSY)
}

// unprivilegedStart is the first port that everyone may bind.
func unprivilegedStart() int {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	n, err2 := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || err2 != nil {
		return 1024 // before Linux 4.11
	}
	return n
}
