package shard

import (
	"penne/internal/dhcp"
	"penne/internal/dhcp6"
	"penne/internal/ndp"
	"penne/ring"
)

// Services is the configuration that the guest is told by NDP and DHCP, beside the
// addresses of the rules. Read-only once in use.
type Services struct {
	NDP   ndp.Config
	DHCP  dhcp.Config
	DHCP6 dhcp6.Config
}

// SetServices replaces what the guest is told when it asks. Advertise tells it
// unasked.
func (g *Group) SetServices(v *Services) {
	for _, s := range g.shards {
		s.post(func(s *Shard) { s.setServices(v) })
	}
}

// Advertise sends the guest one router advertisement.
func (g *Group) Advertise() {
	g.shards[0].post(func(s *Shard) { s.ndp.Advertise(&s.env) })
}

func (s *Shard) setServices(v *Services) {
	s.services = v
	s.ndp.Reconfigure(v.NDP)
}

// Ports of DHCP servers, of both versions.
const (
	portDHCP  = 67
	portDHCP6 = 547
)

// inputUDP gives a UDP frame to the DHCP servers or to udpx.
func (s *Shard) inputUDP(f *ring.Frame) {
	switch {
	case f.H.DstPort == portDHCP && dhcp.Handles(&f.H):
		dhcp.Input(&s.env, &s.services.DHCP, f)
	case f.H.DstPort == portDHCP6 && dhcp6.Handles(&f.H):
		dhcp6.Input(&s.env, &s.services.DHCP6, f)
	default:
		s.admit(&s.udpIn, f, s.env.Rules.NoUDP)
		return
	}
	s.env.Pool.Put(f)
}
