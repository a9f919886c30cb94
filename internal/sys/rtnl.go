package sys

import "golang.org/x/sys/unix"

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
)

// Request flags of netlink (netlink(7)).
const (
	NlmAck    = unix.NLM_F_ACK
	NlmDump   = unix.NLM_F_DUMP
	NlmCreate = unix.NLM_F_CREATE
	NlmExcl   = unix.NLM_F_EXCL
)

// NlmReplace changes an object that exists.
const NlmReplace = unix.NLM_F_REPLACE

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
	IffNoARP    = unix.IFF_NOARP
	IffRunning  = unix.IFF_RUNNING
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
	IfaFTemporary     = unix.IFA_F_TEMPORARY
	IfaFDADFailed     = unix.IFA_F_DADFAILED
	IfaFDeprecated    = unix.IFA_F_DEPRECATED
	IfaFTentative     = unix.IFA_F_TENTATIVE
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
	RtaTable     = unix.RTA_TABLE
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
	RtprotBoot   = unix.RTPROT_BOOT
	RtprotStatic = unix.RTPROT_STATIC
	RtprotKernel = unix.RTPROT_KERNEL

	RtScopeUniverse = unix.RT_SCOPE_UNIVERSE
	RtScopeSite     = unix.RT_SCOPE_SITE
	RtScopeLink     = unix.RT_SCOPE_LINK
	RtScopeHost     = unix.RT_SCOPE_HOST
)

// Multicast groups of rtnetlink, as numbers (not bits).
const (
	RtnlgrpLink       = unix.RTNLGRP_LINK
	RtnlgrpIPv4Ifaddr = unix.RTNLGRP_IPV4_IFADDR
	RtnlgrpIPv4Route  = unix.RTNLGRP_IPV4_ROUTE
	RtnlgrpIPv6Ifaddr = unix.RTNLGRP_IPV6_IFADDR
	RtnlgrpIPv6Route  = unix.RTNLGRP_IPV6_ROUTE
	RtnlgrpNexthop    = unix.RTNLGRP_NEXTHOP
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
