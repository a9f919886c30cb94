package sys

import "golang.org/x/sys/unix"

// JoinReusePort makes another socket that is bound to where the datagram socket
// fd is bound, and to the same interface, device, if any. The two, and all that
// join later, are a SO_REUSEPORT group (UDP: kernel 4.5): all datagrams of one
// peer go to the same member, which a keyed hash of addresses and ports chooses.
//
// fd itself was bound without the option, so that the port was refused if anybody
// else had it. It alone gets broadcasts and multicasts, of which every socket
// of the group would get a copy.
func JoinReusePort(fd int, device string) (member int, errno Errno) {
	family, errno := SocketFamily(fd)
	if errno != 0 {
		return -1, errno
	}
	if errno = SetInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); errno != 0 {
		return -1, errno
	}
	if member, errno = Socket(family, SOCK_DGRAM, 0); errno != 0 {
		return -1, errno
	}
	if errno = bindLike(member, fd, family, device); errno != 0 {
		Close(member)
		return -1, errno
	}
	return member, 0
}

// LeaveReusePort ends what JoinReusePort made of fd, once the other members are
// closed.
func LeaveReusePort(fd int) Errno { return SetInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0) }

// bindLike binds member as fd is bound.
func bindLike(member, fd, family int, device string) Errno {
	options := [...][2]int{{unix.SOL_IP, unix.IP_FREEBIND}, {unix.SOL_IPV6, unix.IPV6_V6ONLY}}
	for _, opt := range options[:1+btoi(family == AF_INET6)] {
		v, errno := GetInt(fd, opt[0], opt[1])
		if errno == 0 {
			errno = SetInt(member, opt[0], opt[1], v)
		}
		if errno != 0 {
			return errno
		}
	}
	if device != "" && BindToDevice(member, device) != nil {
		return ENODEV
	}
	if errno := hostOnly(member); errno != 0 {
		return errno
	}
	var sa Sockaddr
	errno := Sockname(fd, &sa)
	if errno == 0 {
		errno = SetInt(member, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if errno == 0 {
		errno = Bind(member, &sa)
	}
	return errno
}

// hostOnly lets fd receive only what is for this machine alone: packets of the
// type PACKET_HOST (packet(7)).
func hostOnly(fd int) Errno {
	filter := [...]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: skfPktType},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.PACKET_HOST},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 20}, // all octets
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return err.(Errno)
	}
	return 0
}

// skfPktType is where classic BPF finds the packet's type: SKF_AD_OFF +
// SKF_AD_PKTTYPE of linux/filter.h.
const skfPktType = 0xfffff000 + 4
