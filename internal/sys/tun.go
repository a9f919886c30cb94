package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// TunPath is the clone device of tun and tap interfaces.
const TunPath = "/dev/net/tun"

// Flags of TUNSETIFF (linux/if_tun.h).
const (
	IFF_TUN         = unix.IFF_TUN
	IFF_TAP         = unix.IFF_TAP
	IFF_NO_PI       = unix.IFF_NO_PI
	IFF_VNET_HDR    = unix.IFF_VNET_HDR
	IFF_MULTI_QUEUE = unix.IFF_MULTI_QUEUE // 3.8
	IFF_TUN_EXCL    = unix.IFF_TUN_EXCL
)

// Bits of TUNSETOFFLOAD: what the reader of the tap accepts. USO4 and USO6 are
// accepted together only, and TSO and USO with CSUM only.
const (
	TUN_F_CSUM = unix.TUN_F_CSUM
	TUN_F_TSO4 = unix.TUN_F_TSO4
	TUN_F_TSO6 = unix.TUN_F_TSO6
	TUN_F_USO4 = unix.TUN_F_USO4 // 6.2
	TUN_F_USO6 = unix.TUN_F_USO6 // 6.2
)

// OpenTun opens TunPath non-blocking. The descriptor belongs to the network
// namespace of the calling thread, whatever thread uses it later.
func OpenTun() (int, error) {
	return unix.Open(TunPath, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

// TunSetIff attaches fd to the interface name, which is made if it does not
// exist (an empty name lets the kernel choose), and returns its actual name.
func TunSetIff(fd int, name string, flags uint16) (string, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return "", err
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return "", err
	}
	return ifr.Name(), nil
}

// TunGetIff returns the name and flags of the interface that fd is attached to;
// EBADFD (or ENOTTY for what is no tap) says that there is none.
func TunGetIff(fd int) (name string, flags uint16, err error) {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return "", 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		return "", 0, err
	}
	return ifr.Name(), ifr.Uint16(), nil
}

// TunSetOffload tells what the reader of fd's interface accepts (TUN_F bits).
// It holds for all queues of the interface.
func TunSetOffload(fd int, bits uint) error {
	return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, int(bits))
}

// TunSetVnetHeader sets the length of the virtio-net header, in octets, and
// makes its fields little-endian.
func TunSetVnetHeader(fd, size int) error {
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, size); err != nil {
		return fmt.Errorf("set header size: %w", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETLE, 1); err != nil {
		return fmt.Errorf("set byte order: %w", err)
	}
	return nil
}

// SetTxQueueLen sets the length, in frames, of the queue in front of the
// interface name in the network namespace of the calling thread; for a tap,
// that of each queue.
func SetTxQueueLen(name string, frames int) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint32(uint32(frames))
	// Any socket of the namespace will do; this family always exists.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.IoctlIfreq(fd, unix.SIOCSIFTXQLEN, ifr)
}

// SetNonblock makes fd, opened by somebody else, non-blocking and close-on-exec.
func SetNonblock(fd int) error {
	unix.CloseOnExec(fd)
	return unix.SetNonblock(fd, true)
}

// Error numbers of opening and attaching a tap.
const (
	EBUSY  = unix.EBUSY
	ENODEV = unix.ENODEV
	ENXIO  = unix.ENXIO
	EBADFD = unix.EBADFD
)
