package engine

import (
	"os"
	"strconv"
	"strings"

	"penne/internal/conf"
	"penne/internal/netns"
	"penne/internal/sys"
)

// BindLow binds, in the launcher, the named ports that only a capability of
// the caller's opens: joining a user namespace loses it over the host's
// network. A port that cannot be bound is left to the engine, which tries again
// and says why not. "auto" and "all" do not reach such ports.
func BindLow(c *conf.Config) ([]netns.LowPort, error) {
	first := unprivilegedStart()
	if first < 2 {
		return nil, nil
	}
	var out []netns.LowPort
	for _, side := range []struct {
		tcp   bool
		off   bool
		specs []conf.PortSpec
	}{{true, c.Protocols.NoTCP, c.Forward.TCPIn}, {false, c.Protocols.NoUDP, c.Forward.UDPIn}} {
		if side.off {
			continue
		}
		for _, s := range side.specs {
			for _, r := range s.Rules {
				r.Last = min(r.Last, uint16(first-1))
				out = append(out, bindLow(c, r, side.tcp)...)
			}
		}
	}
	return out, nil
}

// bindLow binds what it can of a rule's ports.
func bindLow(c *conf.Config, r conf.PortRule, tcp bool) (out []netns.LowPort) {
	for port := int(r.First); port <= int(r.Last); port++ {
		o := listenOptions(&r, uint16(port), !c.Net.IPv6Only, !c.Net.IPv4Only)
		o.Datagram, o.Freebind = !tcp, c.Forward.Freebind
		if fd, err := sys.Listener(o); err == nil {
			out = append(out, netns.LowPort{FD: fd, TCP: tcp, Addr: r.Addr, Port: uint16(port), Iface: r.Iface})
		}
	}
	return out
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
