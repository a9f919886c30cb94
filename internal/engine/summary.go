package engine

import (
	"fmt"
	"strings"

	"penne/internal/fwd"
	"penne/internal/nl"
	"penne/internal/wire"
	"penne/tap/tun"
)

// summary logs the configuration.
func (e *engine) summary() {
	e.log.Info(e.describeLink())
	e.describeNetwork()
}

// describeLink describes the guest's interface.
func (e *engine) describeLink() string {
	if e.device == nil {
		return "no tap: loopback is forwarded, nothing else"
	}
	wanted := e.shardCount()
	if e.conf.Pasta.FD > 0 { // one queue, unless --queues says otherwise
		wanted = e.conf.Process.Queues
	}
	return describeTap(e.device.Name(), e.device.Queues(), wanted, e.device.Caps())
}

// describeTap describes the tap, and what the kernel does not support.
func describeTap(name string, queues, wanted int, c tun.Caps) string {
	s := fmt.Sprintf("tap %s with %d queue", name, queues)
	if queues > 1 {
		s += "s"
	}
	if queues < wanted {
		s += fmt.Sprintf(" (%d wanted)", wanted)
	}
	var without []string
	for _, x := range [...]struct {
		has  bool
		what string
	}{{c.Csum, "checksum offload"}, {c.TSO, "TSO"}, {c.USO, "USO"}} {
		if !x.has {
			without = append(without, x.what)
		}
	}
	if len(without) > 0 {
		s += ", without " + strings.Join(without, ", ")
	}
	return s
}

// describeNetwork logs the addresses of both families, and the resolvers.
func (e *engine) describeNetwork() {
	if e.device == nil {
		return
	}
	if s := describeFamily("IPv4", &e.template.V4, &e.rules.V4); s != "" {
		e.log.Info(s)
	}
	if s := describeFamily("IPv6", &e.template.V6, &e.rules.V6); s != "" {
		e.log.Info(s)
	}
	n := announced(&e.conf.DNS, e.rules, &e.dns)
	if s := describeNames(e.rules, &n); s != "" {
		e.log.Info(s)
	}
}

func describeFamily(name string, t *nl.Family, r *fwd.Family) string {
	if !r.On {
		return ""
	}
	var b strings.Builder
	b.WriteString(name)
	switch {
	case t.Local:
		b.WriteString(": the host has no network")
	case t.Name != "":
		b.WriteString(" after " + t.Name)
	}
	var addrs []string
	for i := range t.Addrs {
		addrs = append(addrs, t.Addrs[i].Prefix.String())
	}
	if len(addrs) > 0 {
		b.WriteString(": " + strings.Join(addrs, ", "))
	}
	for _, x := range [...]struct {
		what string
		addr *wire.Addr
	}{{"router", &r.Gateway}, {"host's loopback at", &r.HostLoopback}, {"host itself at", &r.GuestMap}} {
		if !x.addr.IsZero() {
			fmt.Fprintf(&b, "; %s %v", x.what, *x.addr)
		}
	}
	return b.String()
}

// describeNames describes the resolvers; empty if there are none.
func describeNames(r *fwd.Rules, n *announcement) string {
	var parts []string
	for _, f := range [...]*fwd.Family{&r.V4, &r.V6} {
		switch {
		case !f.On || f.DNSForward.IsZero():
		case f.DNSHost.IsZero():
			parts = append(parts, f.DNSForward.String()+" leads to no resolver, there is none of its family")
		default:
			parts = append(parts, fmt.Sprintf("%v leads to %v", f.DNSForward, f.DNSHost))
		}
	}
	if len(n.servers) > 0 {
		servers := make([]string, len(n.servers))
		for i, a := range n.servers {
			servers[i] = a.String()
		}
		parts = append(parts, "announced "+strings.Join(servers, " "))
	}
	if len(n.search) > 0 {
		parts = append(parts, "search "+strings.Join(n.search, " "))
	}
	if len(parts) == 0 {
		return ""
	}
	return "names: " + strings.Join(parts, "; ")
}
