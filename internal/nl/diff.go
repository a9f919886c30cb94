package nl

import (
	"net/netip"
	"slices"
)

// Change is the difference between two Templates, as far as a namespace and
// the address mapping see it.
type Change struct {
	V4, V6 FamilyChange
	// Outer is set where something differs that the namespace does not see:
	// the template interface's name, MTU or Ethernet address, say.
	Outer bool
}

// FamilyChange is one family's part of a Change.
type FamilyChange struct {
	DelAddrs, AddAddrs   []Addr
	DelRoutes, AddRoutes []Route
	// Gateway is set where the router is another one.
	Gateway bool
}

// Empty tells whether both Templates are the same.
func (c *Change) Empty() bool { return !c.Outer && c.V4.empty() && c.V6.empty() }

func (c *FamilyChange) empty() bool {
	return len(c.DelAddrs)+len(c.AddAddrs)+len(c.DelRoutes)+len(c.AddRoutes) == 0 && !c.Gateway
}

// Diff tells what leads from t to next. The order of addresses and routes does
// not count, but for the first address.
func (t *Template) Diff(next *Template) Change {
	c := Change{V4: t.V4.diff(&next.V4), V6: t.V6.diff(&next.V6)}
	c.Outer = t.Ifname != next.Ifname || t.MAC != next.MAC || t.V4.outer() != next.V4.outer() || t.V6.outer() != next.V6.outer()
	return c
}

// outer is what of a Family does not go into a namespace.
type outer struct {
	on, local bool
	index     int32
	name      string
	mtu       uint32
	mac       [6]byte
	linkLocal netip.Addr
	first     netip.Addr
}

func (f *Family) outer() outer {
	return outer{f.On, f.Local, f.Index, f.Name, f.MTU, f.MAC, f.HostLinkLocal, f.Addr()}
}

func (f *Family) diff(next *Family) FamilyChange {
	return FamilyChange{
		DelAddrs:  missing(f.Addrs, next.Addrs, (*Addr).key, (*Addr).equal),
		AddAddrs:  missing(next.Addrs, f.Addrs, (*Addr).key, (*Addr).equal),
		DelRoutes: missing(f.Routes, next.Routes, (*Route).key, (*Route).Equal),
		AddRoutes: missing(next.Routes, f.Routes, (*Route).key, (*Route).Equal),
		Gateway:   f.Gateway != next.Gateway,
	}
}

func (a *Addr) key() netip.Prefix  { return a.Prefix }
func (a *Addr) equal(o *Addr) bool { return *a == *o }
func (r *Route) key() netip.Prefix { return r.Dst }

// missing lists the elements of a that b lacks; equal ones have equal keys.
func missing[T any](a, b []T, key func(*T) netip.Prefix, equal func(*T, *T) bool) (out []T) {
	have := make(map[netip.Prefix][]*T, len(b))
	for i := range b {
		k := key(&b[i])
		have[k] = append(have[k], &b[i])
	}
	for i := range a {
		if !slices.ContainsFunc(have[key(&a[i])], func(o *T) bool { return equal(&a[i], o) }) {
			out = append(out, a[i])
		}
	}
	return out
}
