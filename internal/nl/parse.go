package nl

import (
	"net/netip"

	"penne/internal/sys"
)

// ip reads an address from an attribute's value; invalid if its length is not an
// address's.
func ip(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// parseLink reads an RTM_NEWLINK message (struct ifinfomsg: family, pad, type
// u16, index s32, flags u32, change u32).
func parseLink(m []byte) (l Link, ok bool) {
	if len(m) < sys.SizeofIfInfomsg {
		return l, false
	}
	ether := ne.Uint16(m[2:]) == sys.ArphrdEther
	l.Index = int32(ne.Uint32(m[4:]))
	l.Flags = ne.Uint32(m[8:])
	for typ, val := range attrs(m[sys.SizeofIfInfomsg:]) {
		switch typ {
		case sys.IflaIfname:
			l.Name = cString(val)
		case sys.IflaMTU:
			l.MTU = u32(val)
		case sys.IflaAddress:
			if ether && len(val) == 6 {
				l.MAC = [6]byte(val)
			}
		}
	}
	return l, true
}

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// parseAddr reads an RTM_NEWADDR message (struct ifaddrmsg: family, prefixlen,
// flags, scope, index u32). IPv4 always has IFA_LOCAL, and the peer or the same
// address as IFA_ADDRESS; IPv6 has IFA_LOCAL only if there is a peer.
func parseAddr(m []byte) (a Addr, ok bool) {
	if len(m) < sys.SizeofIfAddrmsg {
		return a, false
	}
	bits := int(m[1])
	a = Addr{Index: int32(ne.Uint32(m[4:])), Scope: m[3], Flags: uint32(m[2])}
	var local, address netip.Addr
	for typ, val := range attrs(m[sys.SizeofIfAddrmsg:]) {
		switch typ {
		case sys.IfaLocal:
			local = ip(val)
		case sys.IfaAddress:
			address = ip(val)
		case sys.IfaFlags:
			a.Flags = u32(val)
		}
	}
	if !local.IsValid() {
		local = address
	}
	if local != address {
		a.Peer = address
	}
	a.Prefix = netip.PrefixFrom(local, bits)
	return a, a.Prefix.IsValid()
}

// parseRoute reads an RTM_NEWROUTE message (struct rtmsg: family, dst_len,
// src_len, tos, table, protocol, scope, type, flags u32). ok is false for routes of
// other tables and families, and cloned ones.
func parseRoute(m []byte) (r Route, ok bool) {
	if len(m) < sys.SizeofRtMsg || m[4] != sys.RtTableMain || ne.Uint32(m[8:])&sys.RtmFCloned != 0 {
		return r, false
	}
	dst := netip.IPv4Unspecified()
	switch m[0] {
	case sys.AF_INET:
	case sys.AF_INET6:
		dst = netip.IPv6Unspecified()
	default:
		return r, false
	}
	r = Route{bySource: m[2] != 0, TOS: m[3], Protocol: m[5], Scope: m[6], Type: m[7], Flags: m[8]}
	for typ, val := range attrs(m[sys.SizeofRtMsg:]) {
		if typ == sys.RtaDst {
			dst = ip(val)
		} else {
			r.attr(typ, val)
		}
	}
	r.Dst = netip.PrefixFrom(dst, int(m[1])).Masked()
	return r, r.Dst.IsValid()
}

func (r *Route) attr(typ uint16, val []byte) {
	switch typ {
	case sys.RtaGateway:
		r.Gateway = ip(val)
	case sys.RtaVia:
		r.Gateway = via(val)
	case sys.RtaOif:
		r.Index = int32(u32(val))
	case sys.RtaPriority:
		r.Metric = u32(val)
	case sys.RtaPrefsrc:
		r.Src = ip(val)
	case sys.RtaMetrics:
		r.Metrics = string(val)
	case sys.RtaMultipath:
		r.Nexthops = parseNexthops(val)
	case sys.RtaEncap:
		r.Encap = true
	case sys.RtaNhID:
		r.nhID = u32(val)
	case sys.RtaPref:
		if len(val) > 0 {
			r.Pref = val[0]
		}
	}
}

// via reads struct rtvia: family u16, address.
func via(b []byte) netip.Addr {
	if len(b) < 2 {
		return netip.Addr{}
	}
	return ip(b[2:])
}

// parseNexthops reads RTA_MULTIPATH: an array of struct rtnexthop (len u16, flags,
// hops, ifindex s32), each with attributes.
func parseNexthops(b []byte) (nhs []Nexthop) {
	for len(b) >= sys.SizeofRtNexthop {
		n := int(ne.Uint16(b))
		if n < sys.SizeofRtNexthop || n > len(b) {
			break
		}
		nh := Nexthop{Flags: b[2], Weight: b[3], Index: int32(ne.Uint32(b[4:]))}
		for typ, val := range attrs(b[sys.SizeofRtNexthop:n]) {
			switch typ {
			case sys.RtaGateway:
				nh.Gateway = ip(val)
			case sys.RtaVia:
				nh.Gateway = via(val)
			}
		}
		nhs = append(nhs, nh)
		b = b[min((n+3)&^3, len(b)):]
	}
	return nhs
}

// nexthopObject is an object of ip-nexthop(8): a nexthop, or a group of them.
type nexthopObject struct {
	id      uint32
	nexthop Nexthop
	members []Nexthop // of a group; Index is the member's id
}

// parseNexthopObject reads an RTM_NEWNEXTHOP message (struct nhmsg: family,
// scope, protocol, reserved, flags u32). NHA_GROUP is an array of struct
// nexthop_grp: id u32, weight minus one u8, three more bytes.
func parseNexthopObject(m []byte) (o nexthopObject, ok bool) {
	if len(m) < sys.SizeofNhmsg {
		return o, false
	}
	o.nexthop.Flags = m[4]
	for typ, val := range attrs(m[sys.SizeofNhmsg:]) {
		switch typ {
		case sys.NhaID:
			o.id = u32(val)
		case sys.NhaOif:
			o.nexthop.Index = int32(u32(val))
		case sys.NhaGateway:
			o.nexthop.Gateway = ip(val)
		case sys.NhaGroup:
			for ; len(val) >= 8; val = val[8:] {
				o.members = append(o.members, Nexthop{Index: int32(ne.Uint32(val)), Weight: val[4]})
			}
		}
	}
	return o, o.id != 0
}
