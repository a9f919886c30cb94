package nl

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"penne/internal/sys"
)

// Apply applies the difference between two Templates to the interface index in the
// namespace, which has been configured with the first one. Like Configure, it is
// best effort.
//
// If linger is not zero, removed addresses stay that long, so that connections from
// them can go on: deprecated, without a subnet, until the kernel removes them.
func (c *Conn) Apply(index int32, old, next *Template, linger time.Duration) Report {
	rep := Report{Index: index}
	d := old.Diff(next)
	c.applyFamily(&rep, &d.V4, &next.V4, linger)
	c.applyFamily(&rep, &d.V6, &next.V6, linger)
	return rep
}

func (c *Conn) applyFamily(rep *Report, d *FamilyChange, next *Family, linger time.Duration) {
	for i := range d.DelRoutes {
		if err := c.delRoute(rep.Index, &d.DelRoutes[i]); err != nil && !errors.Is(err, syscall.ESRCH) {
			rep.addProblem("delete "+d.DelRoutes[i].describe(), err)
		}
	}
	for i := range d.DelAddrs {
		if err := c.delAddr(rep.Index, &d.DelAddrs[i]); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			rep.addProblem("delete address "+d.DelAddrs[i].String(), err)
		}
	}
	for i := range d.AddAddrs {
		// It may be lingering, and IPv6 does not allow an address twice.
		gone := lingering(&d.AddAddrs[i])
		_ = c.delAddr(rep.Index, &gone)
	}
	if !d.empty() {
		// All of it: deleting the first address of an IPv4 subnet deletes
		// the others too, and deleting an address deletes the routes that
		// prefer it. What exists stays as it is.
		c.addFamily(rep, next)
	}
	if linger > 0 {
		c.linger(rep, d, next, linger)
	}
}

// lingering is a as it lingers: without a subnet, and deprecated.
func lingering(a *Addr) Addr {
	ip := a.Prefix.Addr()
	return Addr{Prefix: netip.PrefixFrom(ip, ip.BitLen()), Scope: a.Scope, Flags: sys.IfaFDeprecated}
}

// lingerer is an IPv4 address that lingers, and until when.
type lingerer struct {
	Addr
	until time.Time
}

// linger adds the removed addresses again, with a limited lifetime. IPv4 has no
// deprecated addresses, but prefers the first one: these come last, those that linger
// already behind what was added.
func (c *Conn) linger(rep *Report, d *FamilyChange, next *Family, lifetime time.Duration) {
	now := time.Now()
	c.lingerers = slices.DeleteFunc(c.lingerers, func(l lingerer) bool { return !now.Before(l.until) || next.has(l.Prefix.Addr()) })
	if changed := slices.Concat(d.AddAddrs, d.DelAddrs); len(changed) > 0 && changed[0].Prefix.Addr().Is4() {
		for i := range c.lingerers {
			l := &c.lingerers[i]
			_ = c.delAddr(rep.Index, &l.Addr)
			c.keepAddr(rep, &l.Addr, l.until.Sub(now))
		}
	}
	for i := range d.DelAddrs {
		a := lingering(&d.DelAddrs[i])
		if next.has(a.Prefix.Addr()) {
			continue
		}
		c.keepAddr(rep, &a, lifetime)
		if a.Prefix.Addr().Is4() {
			c.lingerers = append(c.lingerers, lingerer{a, now.Add(lifetime)})
		}
	}
}

// keepAddr has the kernel keep an address for a while.
func (c *Conn) keepAddr(rep *Report, a *Addr, d time.Duration) {
	seconds := max(1, uint32(d/time.Second)) // 0 is none at all
	err := c.putAddr(rep.Index, a, sys.IfaFNoPrefixRoute, seconds)
	if err != nil && !errors.Is(err, syscall.EEXIST) {
		rep.addProblem("keep address "+a.Prefix.Addr().String(), err)
	}
}

// has reports whether an address is the family's.
func (f *Family) has(ip netip.Addr) bool {
	return slices.ContainsFunc(f.Addrs, func(a Addr) bool { return a.Prefix.Addr() == ip })
}

// delAddr deletes an address.
func (c *Conn) delAddr(index int32, a *Addr) error {
	return c.change(sys.RtmDelAddr, 0, addrBody(index, a))
}
