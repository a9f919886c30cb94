package engine

import (
	"net/netip"
	"slices"

	"penne/internal/conf"
	"penne/internal/dhcp"
	"penne/internal/dhcp6"
	"penne/internal/fwd"
	"penne/internal/ndp"
	"penne/internal/wire"
	"penne/shard"
)

// resolverOf is the host's resolver of a family: the first given by -D, else the
// first of resolv.conf. With -D none there is none.
func resolverOf(c *conf.DNS, dns *resolvConf, v4 bool) netip.Addr {
	if c.None {
		return netip.Addr{}
	}
	given := resolvConf{Servers: c.Servers}
	if a := given.first(v4); a.IsValid() {
		return a
	}
	return dns.first(v4)
}

// announcement is the resolver configuration that the guest is told.
type announcement struct {
	servers []wire.Addr
	search  []string
	// unreachable are the host's resolvers that the guest cannot reach.
	unreachable []netip.Addr
}

// announced returns what to announce. Resolvers given by -D are announced unchanged,
// those of resolv.conf by the addresses at which the guest reaches them.
func announced(c *conf.DNS, r *fwd.Rules, dns *resolvConf) (n announcement) {
	if c.AnnounceSearch && !c.SearchNone {
		if n.search = c.Search; len(n.search) == 0 {
			n.search = dns.Search
		}
	}
	switch {
	case !c.Announce, c.None:
		return n
	case len(c.Servers) > 0:
		for _, a := range c.Servers {
			n.servers = append(n.servers, wire.AddrFrom(a))
		}
		return n
	}
	for _, a := range dns.Servers {
		inside := reachable(wire.AddrFrom(a), r)
		switch {
		case inside.IsZero():
			n.unreachable = append(n.unreachable, a)
		case !slices.Contains(n.servers, inside):
			n.servers = append(n.servers, inside)
		}
	}
	return n
}

// reachable is the address at which the guest reaches a resolver of the host, zero if
// there is none: the guest has its own loopback, and takes an address that both have
// to be its own.
func reachable(a wire.Addr, r *fwd.Rules) wire.Addr {
	f := r.Of(&a)
	switch {
	case !a.IsLoopback() && a != f.Guest && !slices.Contains(f.Others, a):
		return a
	case a == f.Guest && !f.GuestMap.IsZero():
		return f.GuestMap
	case a == fwd.Loopback(&a) && f.DNSHost != a && !f.HostLoopback.IsZero():
		return f.HostLoopback
	}
	return f.DNSForward
}

// services is the configuration of NDP, DHCP and DHCPv6.
func (e *engine) services() *shard.Services {
	n := announced(&e.conf.DNS, e.rules, &e.dns)
	p, net, configured := &e.conf.Protocols, &e.conf.Net, e.conf.Pasta.ConfigNet
	v := &shard.Services{
		NDP: ndp.Config{
			Off: p.NoNDP, NoRA: p.NoRA, Configured: configured, MTU: net.MTU, DNS: n.servers, Search: n.search,
			Managed: !p.NoDHCPv6 && !configured, Other: !p.NoDHCPv6,
		},
		DHCP: dhcp.Config{
			Off: p.NoDHCP, MTU: net.MTU, DNS: n.servers, Search: n.search, Hostname: net.Hostname, FQDN: net.FQDN,
		},
		DHCP6: dhcp6.Config{Off: p.NoDHCPv6, DNS: n.servers, Search: n.search, FQDN: net.FQDN},
	}
	e.warnLeftOut(n.unreachable, ndp.New(v.NDP).LeftOut())
	return v
}

// warnLeftOut warns of what cannot be announced, except if it did so the last time:
// it is called at every change of the host's network.
func (e *engine) warnLeftOut(resolvers []netip.Addr, domains []string) {
	var lines []string
	for _, a := range resolvers {
		lines = append(lines, "resolver "+a.String()+" is not announced: the guest cannot reach it, see --dns-forward")
	}
	for _, d := range domains {
		lines = append(lines, "search domain '"+d+"' cannot be announced in router advertisements")
	}
	for _, line := range lines {
		if !slices.Contains(e.warned, line) {
			e.log.Warn(line)
		}
	}
	e.warned = lines
}
