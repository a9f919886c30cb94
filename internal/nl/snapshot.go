package nl

import (
	"fmt"

	"penne/internal/sys"
)

// maxRoutes is the most routes that a Snapshot keeps, not counting further default
// routes. A router may have a million, and a default route serves the guest as
// well.
const maxRoutes = 10000

// Snapshot is the state of a network namespace, read by several dumps in a row.
type Snapshot struct {
	Links  []Link
	Addrs  []Addr
	Routes []Route // of the main table
	// BySource are the routes for certain sources only (ip-route(8), from),
	// which are not copied: the guest's sources are others.
	BySource []Route
	// Omitted counts routes beyond the limit.
	Omitted int
}

// Snapshot reads links, addresses and routes: three dumps, four where routes
// refer to nexthop objects.
func (c *Conn) Snapshot() (*Snapshot, error) {
	s := &Snapshot{}
	if err := c.readLinks(s); err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	err := c.dump(sys.RtmGetAddr, sys.RtmNewAddr, make([]byte, sys.SizeofIfAddrmsg), func() { s.Addrs = nil }, func(m []byte) {
		if a, ok := parseAddr(m); ok {
			s.Addrs = append(s.Addrs, a)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	if err := c.readRoutes(s); err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return s, nil
}

func (c *Conn) readLinks(s *Snapshot) error {
	body := attr32(make([]byte, sys.SizeofIfInfomsg), sys.IflaExtMask, sys.RtextFilterSkipStats)
	return c.dump(sys.RtmGetLink, sys.RtmNewLink, body, func() { s.Links = nil }, func(m []byte) {
		if l, ok := parseLink(m); ok {
			s.Links = append(s.Links, l)
		}
	})
}

func (c *Conn) readRoutes(s *Snapshot) error {
	unresolved := false
	reset := func() { s.Routes, s.BySource, s.Omitted, unresolved = nil, nil, 0, false }
	err := c.dump(sys.RtmGetRoute, sys.RtmNewRoute, make([]byte, sys.SizeofRtMsg), reset, func(m []byte) {
		r, ok := parseRoute(m)
		if !ok {
			return
		}
		if r.bySource {
			s.BySource = append(s.BySource, r)
			return
		}
		if len(s.Routes) >= maxRoutes && !r.Default() {
			s.Omitted++
			return
		}
		// nexthop_compat_mode=0 leaves the nexthop out of the route.
		unresolved = unresolved || r.nhID != 0 && r.Index == 0 && r.Nexthops == nil
		s.Routes = append(s.Routes, r)
	})
	if err != nil || !unresolved {
		return err
	}
	return c.resolveNexthops(s)
}

// resolveNexthops fills in the nexthops of routes that only name a nexthop object.
func (c *Conn) resolveNexthops(s *Snapshot) error {
	objects := map[uint32]nexthopObject{}
	err := c.dump(sys.RtmGetNexthop, sys.RtmNewNexthop, make([]byte, sys.SizeofNhmsg), func() { clear(objects) }, func(m []byte) {
		if o, ok := parseNexthopObject(m); ok {
			objects[o.id] = o
		}
	})
	if err != nil {
		return err
	}
	for i := range s.Routes {
		if r := &s.Routes[i]; r.nhID != 0 && r.Index == 0 && r.Nexthops == nil {
			r.resolve(objects)
		}
	}
	return nil
}

func (r *Route) resolve(objects map[uint32]nexthopObject) {
	o := objects[r.nhID]
	if o.members == nil {
		r.Index, r.Gateway, r.Flags = o.nexthop.Index, o.nexthop.Gateway, r.Flags|o.nexthop.Flags
		return
	}
	for _, m := range o.members {
		nh := objects[uint32(m.Index)].nexthop
		nh.Weight = m.Weight
		r.Nexthops = append(r.Nexthops, nh)
	}
}

// link finds a link by index; nil if there is none.
func (s *Snapshot) link(index int32) *Link {
	for i := range s.Links {
		if s.Links[i].Index == index {
			return &s.Links[i]
		}
	}
	return nil
}

// linkByName finds a link by name; nil if there is none.
func (s *Snapshot) linkByName(name string) *Link {
	for i := range s.Links {
		if s.Links[i].Name == name {
			return &s.Links[i]
		}
	}
	return nil
}
