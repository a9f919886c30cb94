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
		c.linger(rep, d.DelAddrs, next, linger)
	}
}

// lingering is a as it lingers: without a subnet, and deprecated.
func lingering(a *Addr) Addr {
	ip := a.Prefix.Addr()
	return Addr{Prefix: netip.PrefixFrom(ip, ip.BitLen()), Scope: a.Scope, Flags: sys.IfaFDeprecated}
}

// linger adds the removed addresses again, with a limited lifetime. IPv4 has no
// deprecated addresses, but prefers the first one: these come last.
func (c *Conn) linger(rep *Report, gone []Addr, next *Family, d time.Duration) {
	for i := range gone {
		a := lingering(&gone[i])
		if slices.ContainsFunc(next.Addrs, func(n Addr) bool { return n.Prefix.Addr() == a.Prefix.Addr() }) {
			continue
		}
		err := c.putAddr(rep.Index, &a, sys.IfaFNoPrefixRoute, uint32(d/time.Second))
		if err != nil && !errors.Is(err, syscall.EEXIST) {
			rep.addProblem("keep address "+a.Prefix.Addr().String(), err)
		}
	}
}

// delAddr deletes an address.
func (c *Conn) delAddr(index int32, a *Addr) error {
	return c.change(sys.RtmDelAddr, 0, addrBody(index, a))
}
