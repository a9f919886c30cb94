package nl

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"penne/internal/sys"
)

// Apply brings the difference between two Templates into the namespace, on the
// interface index that had been configured after the first one. Like
// Configure, it does what can be done and reports the rest.
//
// Addresses that are gone stay for a while, if linger is not zero, so that
// connections from them go on as long as the host's do: deprecated, without a
// network, and the kernel drops them when the time is up.
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
			rep.problem("delete "+d.DelRoutes[i].describe(), err)
		}
	}
	for i := range d.DelAddrs {
		if err := c.delAddr(rep.Index, &d.DelAddrs[i]); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			rep.problem("delete address "+d.DelAddrs[i].String(), err)
		}
	}
	for i := range d.AddAddrs {
		// One that comes back may be lingering, and IPv6 has each address once.
		gone := lingering(&d.AddAddrs[i])
		_ = c.delAddr(rep.Index, &gone)
	}
	if !d.empty() {
		// All of it: with the first address of an IPv4 network its others
		// go, and with an address the routes that prefer it. What is there
		// already stays.
		c.addFamily(rep, next)
	}
	if linger > 0 {
		c.linger(rep, d.DelAddrs, next, linger)
	}
}

// lingering is the form in which an address stays behind: alone, behind all
// others, never preferred.
func lingering(a *Addr) Addr {
	ip := a.Prefix.Addr()
	return Addr{Prefix: netip.PrefixFrom(ip, ip.BitLen()), Scope: a.Scope, Flags: sys.IfaFDeprecated}
}

// linger adds what is gone again, to be dropped later. IPv4 knows no preference
// among addresses, but takes the first one: these come last.
func (c *Conn) linger(rep *Report, gone []Addr, next *Family, d time.Duration) {
	for i := range gone {
		a := lingering(&gone[i])
		if slices.ContainsFunc(next.Addrs, func(n Addr) bool { return n.Prefix.Addr() == a.Prefix.Addr() }) {
			continue
		}
		err := c.putAddr(rep.Index, &a, sys.IfaFNoPrefixRoute, uint32(d/time.Second))
		if err != nil && !errors.Is(err, syscall.EEXIST) {
			rep.problem("keep address "+a.Prefix.Addr().String(), err)
		}
	}
}

// delAddr deletes an address.
func (c *Conn) delAddr(index int32, a *Addr) error {
	return c.change(sys.RtmDelAddr, 0, addrBody(index, a))
}
