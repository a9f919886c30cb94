package sys

import "golang.org/x/sys/unix"

// ListenOptions say how Listener makes a socket.
type ListenOptions struct {
	Addr     [16]byte // v4-mapped for IPv4; all zero: any address
	V4, V6   bool     // families that an unspecified Addr serves
	Iface    string   // SO_BINDTODEVICE, if set
	Port     uint16
	Datagram bool
	Freebind bool // IP_FREEBIND: the address need not exist yet
	Share    bool // SO_REUSEADDR on a datagram socket: sockets that have it may hold the port
}

// listenBacklog is capped by the kernel at net.core.somaxconn.
const listenBacklog = 4096

// Listener makes a bound socket, listening if it is a stream. Any address of
// both families is one dual-stack socket.
func Listener(o ListenOptions) (int, error) {
	any4 := o.Addr == [16]byte{} && !o.V6
	v4 := any4 || isMapped(&o.Addr)
	if any4 {
		o.Addr = [16]byte{10: 0xff, 11: 0xff}
	}
	typ := SOCK_STREAM
	if o.Datagram {
		typ = SOCK_DGRAM
	}
	fd, errno := Socket(Family(v4), typ, 0)
	if errno != 0 {
		return -1, errno
	}
	if err := o.bind(fd, v4); err != nil {
		Close(fd)
		return -1, err
	}
	return fd, nil
}

func (o *ListenOptions) bind(fd int, v4 bool) error {
	for _, opt := range [...]struct {
		want               bool
		level, name, value int
	}{
		// A restart may bind while old connections are in TIME-WAIT.
		{!o.Datagram || o.Share, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{!v4, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, btoi(o.Addr != [16]byte{} || !o.V4)},
		{o.Freebind, unix.IPPROTO_IP, unix.IP_FREEBIND, 1},
	} {
		if opt.want {
			if errno := SetInt(fd, opt.level, opt.name, opt.value); errno != 0 {
				return errno
			}
		}
	}
	if o.Iface != "" {
		if err := BindToDevice(fd, o.Iface); err != nil {
			return err
		}
	}
	var sa Sockaddr
	sa.SetInet(&o.Addr, v4, o.Port, 0)
	if errno := Bind(fd, &sa); errno != 0 {
		return errno
	}
	if o.Datagram {
		return nil
	}
	if errno := Listen(fd, listenBacklog); errno != 0 {
		return errno
	}
	return nil
}

func isMapped(a *[16]byte) bool { return [12]byte(a[:12]) == [12]byte{10: 0xff, 11: 0xff} }

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
