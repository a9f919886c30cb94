package engine

import (
	"net/netip"
	"slices"

	"penne/internal/conf"
	"penne/internal/fwd"
	"penne/internal/nl"
	"penne/internal/wire"
)

// rules makes the address rules from options, template and resolv.conf.
func rules(c *conf.Config, t *nl.Template, dns *resolvConf) *fwd.Rules {
	r := &fwd.Rules{OurMAC: c.Net.MAC, MTU: c.Net.MTU, ScopeID: uint32(t.V6.Index)}
	if r.MTU == 0 {
		r.MTU = conf.MaxMTU
	}
	r.NoTCP, r.NoUDP, r.NoICMP = c.Protocols.NoTCP, c.Protocols.NoUDP, c.Protocols.NoICMP
	// COMMAND reads the host's resolv.conf whatever -D says, and fails over.
	servers := slices.Concat(c.DNS.Servers, dns.Servers)
	r.V4 = familyRules(&t.V4, familyOptions{
		c.Net.Addr4, c.Net.Gateway4, c.Net.GuestAddr4, c.Net.Outbound4, c.Net.HostLoopback4,
		c.Net.OutboundIf4, c.DNS.Forward4, c.DNS.Host4, resolverOf(&c.DNS, dns, true), servers,
	})
	r.V6 = familyRules(&t.V6, familyOptions{
		c.Net.Addr6, c.Net.Gateway6, c.Net.GuestAddr6, c.Net.Outbound6, c.Net.HostLoopback6,
		c.Net.OutboundIf6, c.DNS.Forward6, c.DNS.Host6, resolverOf(&c.DNS, dns, false), servers,
	})
	r.LinkLocal6 = linkLocal(&r.V6, &t.V6)
	if r.V6.Ours.IsZero() {
		r.V6.Ours = r.LinkLocal6
	}
	return r
}

// familyOptions are the options of one family.
type familyOptions struct {
	addr, gateway, guestMap, bind netip.Addr
	hostLoopback                  conf.Mapping
	bindIf                        string
	dnsForward, dnsHost, resolver netip.Addr
	servers                       []netip.Addr // all resolvers that may be queried, of both families
}

func familyRules(t *nl.Family, o familyOptions) fwd.Family {
	gateway := firstValid(o.gateway, t.Gateway)
	f := fwd.Family{
		On:         t.On,
		Guest:      wire.AddrFrom(firstValid(o.addr, t.Addr())),
		Gateway:    wire.AddrFrom(gateway),
		Ours:       wire.AddrFrom(gateway),
		GuestMap:   wire.AddrFrom(o.guestMap),
		DNSForward: wire.AddrFrom(o.dnsForward),
		DNSHost:    wire.AddrFrom(firstValid(o.dnsHost, o.resolver)),
		Bind:       wire.AddrFrom(o.bind),
		BindIf:     o.bindIf,
	}
	for i, a := range t.Addrs {
		if i == 0 {
			f.Bits = uint8(a.Prefix.Bits())
			continue
		}
		f.Others = append(f.Others, wire.AddrFrom(a.Prefix.Addr()))
	}
	if !o.hostLoopback.Off {
		f.HostLoopback = wire.AddrFrom(firstValid(o.hostLoopback.Addr, gateway))
	}
	f.GatewayIsResolver = slices.Contains(o.servers, gateway)
	if f.DNSForward.IsZero() && !o.dnsHost.IsValid() && f.DNSHost.IsLoopback() {
		// The host's loopback is mapped to 127.0.0.1, but queries must go
		// to a stub resolver such as 127.0.0.53.
		f.DNSForward = f.HostLoopback
	}
	return f
}

// linkLocal is our own link-local address on the guest's link: the gateway's if
// it is one, else the template interface's, else upstream's fe80::1.
func linkLocal(f *fwd.Family, t *nl.Family) wire.Addr {
	if f.Gateway.IsLinkLocal() {
		return f.Gateway
	}
	return wire.AddrFrom(firstValid(t.HostLinkLocal, nl.LocalGateway6))
}

func firstValid(a ...netip.Addr) netip.Addr {
	for _, x := range a {
		if x.IsValid() {
			return x
		}
	}
	return netip.Addr{}
}
