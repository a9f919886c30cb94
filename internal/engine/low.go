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

// BindLow binds, in the launcher, the ports of the host that only a capability
// of the caller's opens: joining a user namespace loses it over the host's
// network. A port that cannot be bound, unless it is in use, is left to the
// engine, which tries again and says so. "auto" does not reach such ports.
func BindLow(c *conf.Config) ([]netns.LowPort, error) {
	first := unprivilegedStart()
	if first < 2 {
		return nil, nil
	}
	b := lowBinder{conf: c, last: uint16(first - 1), room: roomForAll(&c.Forward)}
	for _, side := range []struct {
		tcp   bool
		off   bool
		specs []conf.PortSpec
	}{{true, c.Protocols.NoTCP, c.Forward.TCPIn}, {false, c.Protocols.NoUDP, c.Forward.UDPIn}} {
		if side.off {
			continue
		}
		b.tcp, b.named = side.tcp, portscan.Ports{}
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
	return b.out, nil
}

// lowBinder gathers what has been bound.
type lowBinder struct {
	conf  *conf.Config
	last  uint16 // of the privileged ports
	tcp   bool
	named portscan.Ports // of the protocol, in rules: "all" leaves them alone
	room  int            // sockets that an "all" may have
	out   []netns.LowPort
	patience
}

// bindRules binds the ports that a specification names.
func (b *lowBinder) bindRules(s *conf.PortSpec) error {
	for _, r := range s.Rules {
		for port := int(r.First); port <= int(min(r.Last, b.last)); port++ {
			p := uint16(port)
			b.named.Add(p)
			if s.Inherited {
				_ = b.bind(&r, p)
				continue
			}
			err := b.outlive(func() error { return b.bind(&r, p) })
			if errors.Is(err, syscall.EADDRINUSE) {
				return bindFailure(err, p, s)
			}
		}
	}
	return nil
}

// bindAll binds what is free of the rest, as far as the engine would, unless
// the caller may not.
func (b *lowBinder) bindAll(s *conf.PortSpec) {
	r := conf.PortRule{Addr: s.Addr, Iface: s.Iface}
	end := len(b.out) + b.room
	for p := uint16(1); p <= b.last && len(b.out) < end; p++ {
		if s.Excluded(p) || b.named.Has(p) {
			continue
		}
		if err := b.bind(&r, p); errors.Is(err, fs.ErrPermission) {
			return
		}
	}
}

func (b *lowBinder) bind(r *conf.PortRule, port uint16) error {
	o := listenOptions(r, port, !b.conf.Net.IPv6Only, !b.conf.Net.IPv4Only && sys.HasIPv6())
	o.Datagram, o.Freebind = !b.tcp, b.conf.Forward.Freebind
	fd, err := sys.Listener(o)
	if err == nil {
		b.out = append(b.out, netns.LowPort{FD: fd, TCP: b.tcp, Addr: r.Addr, Port: port, Iface: r.Iface})
	}
	return err
}

// dying is how long a port may be held by a process that is about to end, such
// as our own predecessor.
const dying = 250 * time.Millisecond

// patience waits for holders of ports that are about to end, for a moment in
// all: one that does not end costs the same for one port and for thousands.
type patience struct{ until time.Time }

// outlive binds a port, again and again while it is in use and patience lasts.
func (p *patience) outlive(bind func() error) error {
	err := bind()
	if errors.Is(err, syscall.EADDRINUSE) && p.until.IsZero() {
		p.until = time.Now().Add(dying)
	}
	for errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(p.until) {
		time.Sleep(10 * time.Millisecond)
		err = bind()
	}
	return err
}

// unprivilegedStart is the first port that everybody may bind.
func unprivilegedStart() int {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	n, err2 := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || err2 != nil {
		return 1024 // before Linux 4.11
	}
	return n
}
