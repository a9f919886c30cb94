package conf

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// Setters return what is wrong with a value; the parser adds the option's name.

// path stores a file name.
func (p *parser) path(dst *string) func(string) error {
	return func(v string) error {
		if v == "" {
			return fmt.Errorf("give a path")
		}
		*dst = v
		return nil
	}
}

// socketPath stores the path of a UNIX domain socket.
func (p *parser) socketPath(dst *string) func(string) error {
	return func(v string) error {
		if v == "" || len(v) > socketPathMax {
			return fmt.Errorf("a socket's path has 1 to %d bytes", socketPathMax)
		}
		*dst = v
		return nil
	}
}

// ifname stores the name of a host interface.
func (p *parser) ifname(dst *string) func(string) error {
	return func(v string) error {
		if !validIfname(v) {
			return fmt.Errorf("give the name of an interface, as ip-link(8) shows it")
		}
		*dst = v
		return nil
	}
}

// tapName stores the tap's name; '%' would make the kernel number it.
func (p *parser) tapName(v string) error {
	if !validIfname(v) || strings.Contains(v, "%") {
		return fmt.Errorf("give a name of 1 to 15 characters, without blanks, '/', ':' and '%%'")
	}
	p.c.Pasta.Ifname = v
	return nil
}

// domain stores a host or domain name.
func (p *parser) domain(dst *string) func(string) error {
	return func(v string) error {
		if !validDomain(v) {
			return fmt.Errorf("give letters, digits, '-' and '_', in parts of up to %d with dots between", maxLabel)
		}
		*dst = v
		return nil
	}
}

// isSource reports whether a can be the source of outbound traffic.
func isSource(a netip.Addr) bool { return !a.IsUnspecified() && isUnicast(a) }

// isDNS reports whether a can be a resolver's; loopback is the host's own.
func isDNS(a netip.Addr) bool { return isSource(a) }

// addrPair stores an address of either family; the last one of each counts.
func (p *parser) addrPair(valid func(netip.Addr) bool, v4, v6 *netip.Addr) func(string) error {
	return func(v string) error {
		a, ok := parseIP(v)
		switch {
		case !ok:
			return fmt.Errorf("give an address such as 192.0.2.1 or 2001:db8::1")
		case !valid(a):
			return fmt.Errorf("this address cannot serve here, give one such as 192.0.2.1 or 2001:db8::1")
		case a.Is4():
			*v4 = a
		default:
			*v6 = a
		}
		return nil
	}
}

func (p *parser) stats(v string) error {
	d, ok := parseSeconds(v)
	if !ok {
		return fmt.Errorf("give seconds between 1 and 86400")
	}
	p.c.Logging.Stats = d
	return nil
}

func (p *parser) logSize(v string) error {
	const limit = 1 << 40
	n, ok := parseInt(v, MinLogSize, limit)
	if !ok {
		return fmt.Errorf("give bytes between %d and %d", MinLogSize, limit)
	}
	p.c.Logging.Size = int64(n)
	return nil
}

func (p *parser) runAs(v string) error {
	r, ok := parseRunAs(v)
	if !ok {
		return fmt.Errorf("give UID, UID:GID, LOGIN or LOGIN:GROUP")
	}
	p.c.Process.RunAs = r
	return nil
}

func (p *parser) queues(v string) error {
	n, ok := parseInt(v, 0, MaxQueues)
	if !ok {
		return fmt.Errorf("give a number between 0 (one per CPU) and %d", MaxQueues)
	}
	p.c.Process.Queues = n
	return nil
}

func (p *parser) mtu(v string) error {
	n, ok := parseInt(v, 0, MaxMTU)
	if !ok || n != 0 && n < MinMTU {
		return fmt.Errorf("give 0, or bytes between %d and %d", MinMTU, MaxMTU)
	}
	p.c.Net.MTU = n
	return nil
}

// address reads ADDR or ADDR/LEN.
func (p *parser) address(v string) error {
	text, length, cidr := strings.Cut(v, "/")
	a, ok := parseIP(text)
	if !ok || !isHost(a) {
		return fmt.Errorf("give a host's address such as 192.0.2.2, 192.0.2.2/24 or 2001:db8::2")
	}
	bits := 0
	if cidr {
		if bits, ok = parseInt(length, 1, a.BitLen()); !ok {
			return fmt.Errorf("prefix length is not between 1 and %d", a.BitLen())
		}
	}
	n := &p.c.Net
	if a.Is4() {
		n.Addr4, p.cidr4 = a, bits
	} else {
		n.Addr6, n.Bits6 = a, bits
	}
	return nil
}

func (p *parser) netmask(v string) error {
	bits, ok := parseNetmask(v)
	if !ok {
		return fmt.Errorf("give a contiguous mask such as 255.255.255.0, or bits between 1 and 32")
	}
	p.mask4 = bits
	return nil
}

func (p *parser) mac(v string) error {
	mac, ok := parseMAC(v)
	if !ok {
		return fmt.Errorf("give a unicast address such as 9a:55:9a:55:9a:55")
	}
	p.c.Net.MAC = mac
	return nil
}

func (p *parser) nsMAC(v string) error {
	mac, ok := parseMAC(v)
	if !ok {
		return fmt.Errorf("give a unicast address such as 9a:55:9a:55:9a:55")
	}
	p.c.Pasta.NSMAC = mac
	return nil
}

// mapLoopback reads an address, or 'none', which is for both families unless an
// address follows.
func (p *parser) mapLoopback(v string) error {
	n := &p.c.Net
	if v == NoAddress {
		n.HostLoopback4, n.HostLoopback6 = Mapping{Off: true}, Mapping{Off: true}
		return nil
	}
	var a4, a6 netip.Addr
	if err := p.addrPair(isHost, &a4, &a6)(v); err != nil {
		return err
	}
	if a4.IsValid() {
		n.HostLoopback4 = Mapping{Addr: a4}
	} else {
		n.HostLoopback6 = Mapping{Addr: a6}
	}
	return nil
}

// mapGuest reads an address or 'none'.
func (p *parser) mapGuest(v string) error {
	n := &p.c.Net
	if v == NoAddress {
		n.GuestAddr4, n.GuestAddr6 = netip.Addr{}, netip.Addr{}
		return nil
	}
	return p.addrPair(isHost, &n.GuestAddr4, &n.GuestAddr6)(v)
}

// dns reads an address, or 'none'; the last one decides which it is.
func (p *parser) dns(v string) error {
	d := &p.c.DNS
	if v == NoAddress {
		d.Servers, d.None = nil, true
		return nil
	}
	var a4, a6 netip.Addr
	if err := p.addrPair(isDNS, &a4, &a6)(v); err != nil {
		return err
	}
	a := a4
	if !a.IsValid() {
		a = a6
	}
	d.None = false
	same := 0
	for _, s := range d.Servers {
		if s.Is4() == a.Is4() {
			same++
		}
	}
	if same == MaxDNS {
		p.warnf("resolver %s ignored: at most %d can be given per family", a, MaxDNS)
		return nil
	}
	d.Servers = append(d.Servers, a)
	return nil
}

// search reads domains separated by spaces, or 'none'.
func (p *parser) search(v string) error {
	d := &p.c.DNS
	if v == NoAddress {
		d.Search, d.SearchNone = nil, true
		return nil
	}
	list := strings.Fields(v)
	if len(list) == 0 {
		return fmt.Errorf("give domains apart by spaces, or 'none'")
	}
	for _, s := range list {
		if !validDomain(s) {
			return fmt.Errorf("'%s' is no domain name", s)
		}
	}
	if len(d.Search)+len(list) > MaxSearch {
		return fmt.Errorf("at most %d search domains can be given", MaxSearch)
	}
	d.Search, d.SearchNone = slices.Concat(d.Search, list), false
	return nil
}

// ports adds an occurrence of a forwarding option. Its errors are complete
// lines.
func (p *parser) ports(option string, dst *portList) func(string) error {
	return func(v string) error {
		if err := dst.add(option, v); err != nil {
			return &Error{Text: fmt.Sprintf("%s: %v", p.c.Program, err)}
		}
		return nil
	}
}

// netns reads a path, or a name as ip-netns(8) knows it.
func (p *parser) netns(v string) error {
	switch {
	case v == "" || v == "." || v == "..":
		return fmt.Errorf("give the path or the name of a network namespace")
	case strings.Contains(v, "/"):
		p.c.Pasta.Netns = v
	default:
		p.c.Pasta.Netns = path.Join(NetnsDir, v)
	}
	return nil
}

// fd reads a descriptor other than the standard ones.
func (p *parser) fd(v string) error {
	n, ok := parseInt(v, 3, 1<<20)
	if !ok {
		return fmt.Errorf("give the number of an open descriptor, 3 or above")
	}
	p.descriptor = n
	return nil
}

func (p *parser) repairPath(v string) error {
	s := &p.c.Passt
	if v == NoAddress {
		s.RepairPath, s.NoRepair = "", true
		return nil
	}
	s.NoRepair = false
	return p.socketPath(&s.RepairPath)(v)
}
