package nl

import (
	"net/netip"
	"slices"
)

// Change is the difference between two Templates.
type Change struct {
	V4, V6 FamilyChange
	// HostOnly is set if something differs that is not configured in the
	// namespace, such as the template interface's name, MTU or MAC address.
	HostOnly bool
}

// FamilyChange is one family's part of a Change.
type FamilyChange struct {
	DelAddrs, AddAddrs   []Addr
	DelRoutes, AddRoutes []Route
	// Gateway is set if the router has changed.
	Gateway bool
}

// Empty reports whether there is no difference.
func (c *Change) Empty() bool { return !c.HostOnly && c.V4.empty() && c.V6.empty() }

func (c *FamilyChange) empty() bool {
	return len(c.DelAddrs)+len(c.AddAddrs)+len(c.DelRoutes)+len(c.AddRoutes) == 0 && !c.Gateway
}

// Diff returns the change from t to next. The order of addresses and routes is
// ignored, except for the first address.
func (t *Template) Diff(next *Template) Change {
	c := Change{V4: t.V4.diff(&next.V4), V6: t.V6.diff(&next.V6)}
	c.HostOnly = t.Ifname != next.Ifname || t.MAC != next.MAC || t.V4.hostOnly() != next.V4.hostOnly() || t.V6.hostOnly() != next.V6.hostOnly()
	return c
}

// hostOnly is the part of a Family that is not configured in a namespace.
type hostOnly struct {
	on, local bool
	index     int32
	name      string
	mtu       uint32
	mac       [6]byte
	linkLocal netip.Addr
	first     netip.Addr
}

func (f *Family) hostOnly() hostOnly {
	return hostOnly{f.On, f.Local, f.Index, f.Name, f.MTU, f.MAC, f.HostLinkLocal, f.Addr()}
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

// missing returns the elements of a that are not in b; equal ones have equal keys.
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
