package sys

// PingSocket makes a ping socket (ICMP echo datagrams, kernel 2.6.30; for IPv6
// 3.0). net.ipv4.ping_group_range must admit one of the caller's groups, else
// EACCES.
func PingSocket(v6 bool) (int, Errno) {
	if v6 {
		return Socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6)
	}
	return Socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP)
}
