package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// NetlinkRoute is the netlink family of links, addresses and routes (rtnetlink(7)).
const NetlinkRoute = unix.NETLINK_ROUTE

// Message types of rtnetlink.
const (
	RtmNewLink    = unix.RTM_NEWLINK
	RtmGetLink    = unix.RTM_GETLINK
	RtmNewAddr    = unix.RTM_NEWADDR
	RtmDelAddr    = unix.RTM_DELADDR
	RtmGetAddr    = unix.RTM_GETADDR
	RtmNewRoute   = unix.RTM_NEWROUTE
	RtmDelRoute   = unix.RTM_DELROUTE
	RtmGetRoute   = unix.RTM_GETROUTE
	RtmNewNexthop = unix.RTM_NEWNEXTHOP // Linux 5.3
	RtmGetNexthop = unix.RTM_GETNEXTHOP
	RtmNewQdisc   = unix.RTM_NEWQDISC
)

// Request flags of netlink (netlink(7)).
const (
	NlmAck    = unix.NLM_F_ACK
	NlmDump   = unix.NLM_F_DUMP
	NlmCreate = unix.NLM_F_CREATE
	NlmExcl   = unix.NLM_F_EXCL
	// NlmReplace changes an object that exists.
	NlmReplace = unix.NLM_F_REPLACE
)

// Sizes of the fixed headers that follow struct nlmsghdr, in bytes.
const (
	SizeofIfInfomsg = unix.SizeofIfInfomsg
	SizeofIfAddrmsg = unix.SizeofIfAddrmsg
	SizeofRtMsg     = unix.SizeofRtMsg
	SizeofRtNexthop = unix.SizeofRtNexthop
	SizeofNhmsg     = 8 // struct nhmsg, linux/nexthop.h
	SizeofRtAttr    = unix.SizeofRtAttr
	SizeofNlMsghdr  = unix.SizeofNlMsghdr
)

// Attributes of links.
const (
	IflaAddress = unix.IFLA_ADDRESS
	IflaIfname  = unix.IFLA_IFNAME
	IflaMTU     = unix.IFLA_MTU
	IflaTxqlen  = unix.IFLA_TXQLEN
	IflaAFSpec  = unix.IFLA_AF_SPEC
	IflaExtMask = unix.IFLA_EXT_MASK
	// IflaInet6AddrGenMode is nested in IFLA_AF_SPEC, AF_INET6 (linux/if_link.h); Linux 3.17.
	IflaInet6AddrGenMode = 8
	// RtextFilterSkipStats leaves counters out of link dumps (linux/rtnetlink.h); Linux 4.6.
	RtextFilterSkipStats = 1 << 3
)

// Values of IflaInet6AddrGenMode: how the kernel makes the link-local address.
const (
	AddrGenModeEUI64 = 0
	AddrGenModeNone  = 1
)

// Flags of links.
const (
	IffUp       = unix.IFF_UP
	IffLoopback = unix.IFF_LOOPBACK
)

// TcHRoot is the parent of an interface's root queueing discipline, TcaKind the
// attribute with its name (linux/pkt_sched.h, linux/rtnetlink.h).
const (
	TcHRoot = 0xFFFFFFFF
	TcaKind = 1
)

// ArphrdEther is the hardware type of links whose address is an Ethernet one.
const ArphrdEther = unix.ARPHRD_ETHER

// Attributes and flags of addresses.
const (
	IfaAddress   = unix.IFA_ADDRESS
	IfaLocal     = unix.IFA_LOCAL
	IfaBroadcast = unix.IFA_BROADCAST
	IfaFlags     = unix.IFA_FLAGS
	IfaCacheinfo = unix.IFA_CACHEINFO

	IfaFNoDAD         = unix.IFA_F_NODAD
	IfaFDADFailed     = unix.IFA_F_DADFAILED
	IfaFDeprecated    = unix.IFA_F_DEPRECATED
	IfaFNoPrefixRoute = unix.IFA_F_NOPREFIXROUTE
)

// Attributes, types, scopes, flags and protocols of routes.
const (
	RtaDst       = unix.RTA_DST
	RtaOif       = unix.RTA_OIF
	RtaGateway   = unix.RTA_GATEWAY
	RtaPriority  = unix.RTA_PRIORITY
	RtaPrefsrc   = unix.RTA_PREFSRC
	RtaMetrics   = unix.RTA_METRICS
	RtaMultipath = unix.RTA_MULTIPATH
	RtaVia       = unix.RTA_VIA
	RtaPref      = unix.RTA_PREF
	RtaEncap     = unix.RTA_ENCAP
	RtaNhID      = 30 // RTA_NH_ID (linux/rtnetlink.h), Linux 5.3
	NhaID        = unix.NHA_ID
	NhaGroup     = unix.NHA_GROUP
	NhaOif       = unix.NHA_OIF
	NhaGateway   = unix.NHA_GATEWAY
	RtTableMain  = unix.RT_TABLE_MAIN
	RtmFCloned   = unix.RTM_F_CLONED
	RtnhFDead    = unix.RTNH_F_DEAD
	RtnhFOnlink  = unix.RTNH_F_ONLINK
	RtnhFDown    = unix.RTNH_F_LINKDOWN
	RtnUnicast   = unix.RTN_UNICAST
	RtnLocal     = unix.RTN_LOCAL
	RtprotBoot   = unix.RTPROT_BOOT

	RtScopeUniverse = unix.RT_SCOPE_UNIVERSE
	RtScopeLink     = unix.RT_SCOPE_LINK
)

// HasIPv6 tells whether the kernel has IPv6: with the module missing, or
// ipv6.disable=1, it makes no socket of the family (EAFNOSUPPORT).
func HasIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// RouteEvents opens a netlink socket that receives changes of links, addresses,
// routes and nexthop objects in the calling thread's network namespace. It is
// non-blocking, for os.NewFile. ENOBUFS from read(2) means that some were lost.
func RouteEvents() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	groups := uint32(0)
	for _, g := range []int{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_NEXTHOP} {
		groups |= 1 << (g - 1)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, nil
}
