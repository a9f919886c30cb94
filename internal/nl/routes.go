package nl

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"penne/internal/sys"
)

// addRoutes adds routes in dependency order, since a gateway must be reachable by
// an existing route: those that fail are tried again, until a round adds none.
// What is left then gets "onlink", which says that the gateway is on this link
// whatever the table says: that is true here, since we answer for every address.
// The last try is without metrics, which may refer to what the namespace lacks.
// What the kernel still refuses is left out.
func (c *Conn) addRoutes(rep *Report, routes []Route, addrs []Addr) {
	todo := make([]pendingRoute, 0, len(routes))
	for _, r := range routes {
		r.dropForeignSource(addrs)
		todo = append(todo, pendingRoute{route: r})
	}
	slices.SortStableFunc(todo, func(a, b pendingRoute) int { return a.route.order() - b.route.order() })
	for n := len(todo) + 1; len(todo) < n; {
		n = len(todo)
		todo = c.tryRoutes(rep, todo)
	}
	for _, soften := range []func(*Route){(*Route).forceOnlink, (*Route).dropMetrics} {
		for i := range todo {
			soften(&todo[i].route)
		}
		todo = c.tryRoutes(rep, todo)
	}
	for _, r := range todo {
		rep.addProblem(r.route.describe(), r.err)
	}
}

// pendingRoute is a route to be added, and the error of the last try.
type pendingRoute struct {
	route Route
	err   error
}

// tryRoutes tries each route once, and returns those that failed.
func (c *Conn) tryRoutes(rep *Report, routes []pendingRoute) (failed []pendingRoute) {
	for _, r := range routes {
		r.err = c.addRoute(rep.Index, &r.route)
		if errors.Is(r.err, syscall.EEXIST) {
			if !rep.fresh || !r.route.Is4() {
				continue
			}
			r.err = errTaken
		}
		if r.err != nil {
			failed = append(failed, r)
		}
	}
	return failed
}

// order puts on-link routes first, default routes last.
func (r *Route) order() int {
	switch {
	case r.OnLink() && !r.Default():
		return 0
	case !r.Default():
		return 1
	}
	return 2
}

// dropForeignSource removes a preferred source that is not an address of the
// guest's, which the kernel would refuse.
func (r *Route) dropForeignSource(addrs []Addr) {
	if !slices.ContainsFunc(addrs, func(a Addr) bool { return a.Prefix.Addr() == r.Src }) {
		r.Src = netip.Addr{}
	}
}

// forceOnlink marks all gateways as onlink.
func (r *Route) forceOnlink() {
	if r.Gateway.IsValid() {
		r.Flags |= sys.RtnhFOnlink
	}
	r.Nexthops = slices.Clone(r.Nexthops)
	for i := range r.Nexthops {
		if r.Nexthops[i].Gateway.IsValid() {
			r.Nexthops[i].Flags |= sys.RtnhFOnlink
		}
	}
}

func (r *Route) dropMetrics() { r.Metrics = "" }

func (r *Route) describe() string {
	if r.Is4() {
		return "IPv4 route " + r.String()
	}
	return "IPv6 route " + r.String()
}

// Reasons why routes are not copied.
var (
	errEncap    = errors.New("routes that encapsulate are not copied")
	errBySource = errors.New("routes for some sources only are not copied")
	errTaken    = errors.New("the namespace has another one")
	errTooMany  = fmt.Errorf("no more than %d are copied", maxRoutes)
)

// addRoute adds one route on the interface. It fails with EEXIST if there is one
// already. Not so for IPv6: there, a default route of the same metric that the guest
// got by a router advertisement would count, but is a different one.
func (c *Conn) addRoute(index int32, r *Route) error {
	if r.Encap {
		return errEncap
	}
	flags := sys.NlmCreate
	if r.Is4() {
		flags |= sys.NlmExcl
	}
	return c.change(sys.RtmNewRoute, flags, r.body(index))
}

// delRoute deletes one route of the interface.
func (c *Conn) delRoute(index int32, r *Route) error {
	return c.change(sys.RtmDelRoute, 0, r.body(index))
}

// body is a struct rtmsg with attributes, for the main table.
func (r *Route) body(index int32) []byte {
	b := append(make([]byte, 0, 128), byte(sys.Family(r.Is4())), byte(r.Dst.Bits()), 0, r.TOS, sys.RtTableMain, r.Protocol, r.Scope, r.Type)
	b = ne.AppendUint32(b, uint32(r.Flags))
	if !r.Default() {
		b = attr(b, sys.RtaDst, r.Dst.Addr().AsSlice())
	}
	if r.Metric != 0 {
		b = attr32(b, sys.RtaPriority, r.Metric)
	}
	if r.Src.IsValid() {
		b = attr(b, sys.RtaPrefsrc, r.Src.AsSlice())
	}
	if r.Pref != 0 {
		b = attr(b, sys.RtaPref, []byte{r.Pref})
	}
	if r.Metrics != "" {
		b = attr(b, sys.RtaMetrics, []byte(r.Metrics))
	}
	if len(r.Nexthops) > 0 {
		return attr(b, sys.RtaMultipath, r.nexthops(index))
	}
	b = gateway(b, r.Is4(), r.Gateway)
	return attr32(b, sys.RtaOif, uint32(index))
}

// nexthops is an array of struct rtnexthop.
func (r *Route) nexthops(index int32) (b []byte) {
	for _, n := range r.Nexthops {
		at := len(b)
		b = append(b, 0, 0, n.Flags, n.Weight)
		b = ne.AppendUint32(b, uint32(index))
		b = gateway(b, r.Is4(), n.Gateway)
		ne.PutUint16(b[at:], uint16(len(b)-at))
	}
	return b
}

// gateway appends a gateway: RTA_VIA (struct rtvia) if the families differ.
func gateway(b []byte, v4 bool, gw netip.Addr) []byte {
	if !gw.IsValid() {
		return b
	}
	if v4 && gw.Is6() {
		return attr(b, sys.RtaVia, append(ne.AppendUint16(nil, sys.AF_INET6), gw.AsSlice()...))
	}
	return attr(b, sys.RtaGateway, gw.AsSlice())
}
