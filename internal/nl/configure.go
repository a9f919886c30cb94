package nl

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"penne/internal/sys"
)

// Config is the configuration of the guest's interface.
type Config struct {
	// Name is that of the interface, which exists.
	Name string
	// MAC is its Ethernet address; zero keeps the kernel's.
	MAC [6]byte
	// TxQueueLen is the length of each queue, in frames; zero keeps the
	// kernel's.
	TxQueueLen int
	// MTU is in bytes; zero keeps the kernel's. Without Up it is not set.
	MTU int
	// Up brings the interface up, with the addresses and routes of
	// Template (--config-net).
	Up       bool
	Template *Template
}

// Problem is something that could not be configured, and was left out.
type Problem struct {
	What string // as "IPv4 route 10.0.0.0/8 via 192.0.2.1"
	Err  error
}

func (p Problem) String() string { return p.What + ": " + p.Err.Error() }

// Report is the result of a configuration.
type Report struct {
	Index int32
	// MAC is the interface's Ethernet address.
	MAC [6]byte
	// LinkLocal is its IPv6 link-local address, ready for use; invalid
	// without Config.Up, or if the namespace has no IPv6.
	LinkLocal netip.Addr
	// Problems lists what was left out.
	Problems []Problem
	// fresh says that nothing has been set up before: routes that are there
	// are not ours.
	fresh bool
	// added are the new IPv6 addresses, link-local ones included.
	added []netip.Addr
}

func (r *Report) addProblem(what string, err error) {
	r.Problems = append(r.Problems, Problem{what, err})
}

// LoopbackUp brings up lo; otherwise nothing can be bound to 127.0.0.1.
func (c *Conn) LoopbackUp() error {
	err := c.change(sys.RtmNewLink, 0, attr(linkBody(0, sys.IffUp, sys.IffUp), sys.IflaIfname, []byte("lo\x00")))
	if err != nil {
		return fmt.Errorf("bring up lo in the namespace: %w", err)
	}
	return nil
}

// linkBody is a struct ifinfomsg.
func linkBody(index int32, flags, change uint32) []byte {
	b := make([]byte, 4, 64)
	b = ne.AppendUint32(b, uint32(index))
	b = ne.AppendUint32(b, flags)
	return ne.AppendUint32(b, change)
}

// lookup finds an interface by name.
func (c *Conn) lookup(name string) (Link, error) {
	m, err := c.get(sys.RtmGetLink, attr(linkBody(0, 0, 0), sys.IflaIfname, append([]byte(name), 0)))
	if err != nil {
		return Link{}, fmt.Errorf("find interface %s in the namespace: %w", name, err)
	}
	l, ok := parseLink(m)
	if !ok {
		return l, fmt.Errorf("find interface %s in the namespace: short answer from the kernel", name)
	}
	return l, nil
}

// Configure configures the guest's interface. Everything is usable when it returns:
// IPv6 addresses skip duplicate address detection, since there is nobody else on
// the link. It fails only if the interface itself cannot be configured; addresses
// and routes that the kernel refuses are listed in the Report.
func (c *Conn) Configure(cfg Config) (Report, error) {
	l, err := c.lookup(cfg.Name)
	if err != nil {
		return Report{}, err
	}
	rep := Report{Index: l.Index, MAC: l.MAC, fresh: true}
	if cfg.MAC != [6]byte{} {
		rep.MAC = cfg.MAC
	}
	v6, err := c.linkUp(&cfg, l.Index)
	if err != nil {
		return rep, fmt.Errorf("set up interface %s: %w", cfg.Name, err)
	}
	if !cfg.Up {
		return rep, nil
	}
	if v6 {
		c.addLinkLocal(&rep)
	}
	if cfg.Template != nil {
		c.addFamily(&rep, &cfg.Template.V4)
		if cfg.Template.V6.On && !v6 {
			rep.addProblem("IPv6 on "+cfg.Name, errors.New("not available in the namespace"))
		} else {
			c.addFamily(&rep, &cfg.Template.V6)
		}
		if n := max(cfg.Template.V4.Omitted, cfg.Template.V6.Omitted); n > 0 {
			rep.addProblem(fmt.Sprintf("%d routes", n), errTooMany)
		}
	}
	c.awaitUsable(&rep)
	return rep, nil
}

// linkUp sets the link's attributes and brings it up. The kernel would then add a
// link-local address that is tentative for a second, but Podman reads addresses
// at once: so that is switched off until addLinkLocal has added the same address
// without detection. v6 is false if the kernel has no IPv6 for this link.
func (c *Conn) linkUp(cfg *Config, index int32) (v6 bool, err error) {
	// If the kernel refuses, it allocates queues that are never used.
	_ = c.setNoQueue(index)
	if b := properties(linkBody(index, 0, 0), cfg); len(b) > sys.SizeofIfInfomsg {
		if err := c.change(sys.RtmNewLink, 0, b); err != nil {
			return false, err
		}
	}
	if !cfg.Up {
		return false, nil
	}
	v6 = c.setAddrGenMode(index, sys.AddrGenModeNone) == nil
	return v6, c.change(sys.RtmNewLink, 0, linkBody(index, sys.IffUp, sys.IffUp))
}

// setNoQueue sets the queueing discipline noqueue. A tap accepts or drops each
// frame at once, so a queue would always be empty; but a multi-queue tap has 256 of
// them, and the default discipline of each allocates three times txqueuelen
// pointers when the link comes up: 60 MB and 17 ms in all.
func (c *Conn) setNoQueue(index int32) error {
	b := make([]byte, 4, 40)
	b = ne.AppendUint32(b, uint32(index))
	b = ne.AppendUint32(b, 0) // handle
	b = ne.AppendUint32(b, sys.TcHRoot)
	b = ne.AppendUint32(b, 0) // info
	return c.change(sys.RtmNewQdisc, sys.NlmCreate|sys.NlmReplace, attr(b, sys.TcaKind, []byte("noqueue\x00")))
}

func properties(b []byte, cfg *Config) []byte {
	if cfg.MAC != [6]byte{} {
		b = attr(b, sys.IflaAddress, cfg.MAC[:])
	}
	if cfg.TxQueueLen > 0 {
		b = attr32(b, sys.IflaTxqlen, uint32(cfg.TxQueueLen))
	}
	if cfg.Up && cfg.MTU > 0 {
		b = attr32(b, sys.IflaMTU, uint32(cfg.MTU))
	}
	return b
}

// setAddrGenMode sets IFLA_AF_SPEC { AF_INET6 { IFLA_INET6_ADDR_GEN_MODE } }: how the
// kernel makes the link-local address, the next time the link comes up.
func (c *Conn) setAddrGenMode(index int32, mode uint8) error {
	v6 := attr(nil, sys.AF_INET6, attr(nil, sys.IflaInet6AddrGenMode, []byte{mode}))
	return c.change(sys.RtmNewLink, 0, attr(linkBody(index, 0, 0), sys.IflaAFSpec, v6))
}

// addLinkLocal adds the interface's EUI-64 link-local address (RFC 4291 appendix A),
// and lets the kernel make the same one when the guest sets its link down and up.
func (c *Conn) addLinkLocal(rep *Report) {
	m := rep.MAC
	ip := netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
	err := c.addAddr(rep.Index, &Addr{Prefix: netip.PrefixFrom(ip, 64), Scope: sys.RtScopeLink}, 0)
	if err != nil && !errors.Is(err, syscall.EEXIST) {
		rep.addProblem("IPv6 link-local address "+ip.String(), err)
		return
	}
	if err == nil {
		rep.added = append(rep.added, ip)
	}
	rep.LinkLocal = ip
	_ = c.setAddrGenMode(rep.Index, sys.AddrGenModeEUI64)
}

// addFamily adds a family's addresses, then its routes.
func (c *Conn) addFamily(rep *Report, f *Family) {
	if !f.On {
		return
	}
	for i := range f.Addrs {
		a := &f.Addrs[i]
		if a.Prefix.Addr().Is6() { // the kernel puts a new one first
			a = &f.Addrs[len(f.Addrs)-1-i]
		}
		var flags uint32
		if f.hasSubnetRoute(a.Network()) {
			flags = sys.IfaFNoPrefixRoute
		}
		err := c.addAddr(rep.Index, a, flags)
		if err == nil && a.Prefix.Addr().Is6() {
			rep.added = append(rep.added, a.Prefix.Addr())
		} else if err != nil && !errors.Is(err, syscall.EEXIST) {
			rep.addProblem("address "+a.String(), err)
		}
	}
	c.addRoutes(rep, f.Routes, f.Addrs)
	for i := range f.BySource {
		rep.addProblem(f.BySource[i].describe(), errBySource)
	}
}

// hasSubnetRoute reports whether there is a route to the subnet of an address: it
// may have another metric than the one that the kernel would add.
func (f *Family) hasSubnetRoute(network netip.Prefix) bool {
	return slices.ContainsFunc(f.Routes, func(r Route) bool { return r.Dst == network && r.OnLink() })
}

// lifetime is struct ifa_cacheinfo: preferred and valid, in seconds.
func lifetime(preferred, valid uint32) []byte {
	b := ne.AppendUint32(nil, preferred)
	return append(ne.AppendUint32(b, valid), make([]byte, 8)...)
}

const forever = 0xffffffff

// addAddr adds an address permanently.
func (c *Conn) addAddr(index int32, a *Addr, flags uint32) error {
	return c.putAddr(index, a, flags, forever)
}

// putAddr adds an address; valid is its lifetime in seconds if it is deprecated on
// the host, and so here.
func (c *Conn) putAddr(index int32, a *Addr, flags, valid uint32) error {
	b := addrBody(index, a)
	if a.Prefix.Addr().Is6() {
		flags |= sys.IfaFNoDAD
	} else if a.Prefix.Bits() < 31 && !a.Peer.IsValid() {
		b = attr(b, sys.IfaBroadcast, broadcast(a.Prefix))
	}
	if flags != 0 {
		b = attr32(b, sys.IfaFlags, flags)
	}
	if a.Flags&sys.IfaFDeprecated != 0 {
		b = attr(b, sys.IfaCacheinfo, lifetime(0, valid))
	}
	return c.change(sys.RtmNewAddr, sys.NlmCreate|sys.NlmExcl, b)
}

// addrBody is a struct ifaddrmsg with the address, and its peer if any.
func addrBody(index int32, a *Addr) []byte {
	ip := a.Prefix.Addr()
	b := append(make([]byte, 0, 96), byte(sys.Family(ip.Is4())), byte(a.Prefix.Bits()), 0, a.Scope)
	b = ne.AppendUint32(b, uint32(index))
	b = attr(b, sys.IfaLocal, ip.AsSlice())
	peer := a.Peer
	if !peer.IsValid() {
		peer = ip
	}
	return attr(b, sys.IfaAddress, peer.AsSlice())
}

// broadcast is the all-ones address of an IPv4 prefix.
func broadcast(p netip.Prefix) []byte {
	a := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return a[:]
}
