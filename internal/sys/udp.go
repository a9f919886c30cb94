package sys

import "golang.org/x/sys/unix"

// MaxSegments is the most datagrams of one UDP_SEGMENT send: UDP_MAX_SEGMENTS,
// 64 up to kernel 6.8, 128 from 6.9 on.
const MaxSegments = 64

// MaxSegmented is the most payload of one UDP_SEGMENT send, in octets: the kernel
// first builds a single packet of it, whose length must fit the IPv6 header, the
// longer one.
const MaxSegmented = 65535 - 40 - 8

// setByFamily sets the option of the socket's own family.
func setByFamily(fd int, v6 bool, opt4, opt6, value int) Errno {
	if v6 {
		return SetInt(fd, unix.SOL_IPV6, opt6, value)
	}
	return SetInt(fd, unix.SOL_IP, opt4, value)
}

// EnableUDPGRO lets the kernel deliver several datagrams of one peer in one
// buffer (UDP_GRO, kernel 5.0).
func EnableUDPGRO(fd int) Errno { return SetInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) }

// HasUDPSegment tells whether the kernel knows UDP_SEGMENT (4.18); whether
// the path to a destination takes it shows only when it is used.
func HasUDPSegment(fd int) bool {
	_, errno := GetInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT)
	return errno == 0
}

// QueueErrors makes the kernel queue ICMP errors, for ErrorQueue (IP_RECVERR).
func QueueErrors(fd int, v6 bool) Errno {
	return setByFamily(fd, v6, unix.IP_RECVERR, unix.IPV6_RECVERR, 1)
}

// EnablePacketInfo makes the kernel report the local address of every datagram. On a
// dual-stack socket it covers IPv4 as well.
func EnablePacketInfo(fd int, v6 bool) Errno {
	return setByFamily(fd, v6, unix.IP_PKTINFO, unix.IPV6_RECVPKTINFO, 1)
}

// SetTTL sets the TTL or hop limit of what fd sends, 1 to 255.
func SetTTL(fd int, v6 bool, ttl uint8) Errno {
	return setByFamily(fd, v6, unix.IP_TTL, unix.IPV6_UNICAST_HOPS, int(ttl))
}

// PathMTU is the path MTU of the connected socket fd, in octets with the IP
// header.
func PathMTU(fd int, v6 bool) (int, Errno) {
	if v6 {
		return GetInt(fd, unix.SOL_IPV6, unix.IPV6_MTU)
	}
	return GetInt(fd, unix.SOL_IP, unix.IP_MTU)
}

// ReuseAddress sets SO_REUSEADDR: datagram sockets that all have it may be bound
// to one address and port. The kernel looks at the others' flags at each bind, so
// that one who sets it after his own bind shares the port with later sockets only.
func ReuseAddress(fd int, on bool) Errno {
	return SetInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, btoi(on))
}

// SetSendBuffer and SetReceiveBuffer ask for buffers of n octets, which the
// kernel caps at net.core.wmem_max and rmem_max.
func SetSendBuffer(fd, n int) Errno { return SetInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, n) }

// SetReceiveBuffer is SetSendBuffer for the other direction.
func SetReceiveBuffer(fd, n int) Errno { return SetInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, n) }

// SocketFamily is the address family of fd (SO_DOMAIN).
func SocketFamily(fd int) (int, Errno) { return GetInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN) }

// V6Only keeps an IPv6 socket out of IPv4's ports; it must come before bind.
func V6Only(fd int) Errno { return SetInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1) }

// IsV6Only tells whether the IPv6 socket fd keeps out of IPv4.
func IsV6Only(fd int) bool {
	v, errno := GetInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY)
	return errno == 0 && v != 0
}
