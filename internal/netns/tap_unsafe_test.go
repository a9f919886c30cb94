package netns

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"penne/internal/sys"
)

// makeTap makes a tap with two queues, a virtio-net header and offloads inside
// ns: all that the engine needs its capabilities there for.
func makeTap(ns *os.File) error {
	return Do(ns, func() error {
		for queue := range 2 {
			fd, err := syscall.Open(sys.TunPath, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open queue %d: %w", queue, err)
			}
			// struct ifreq: IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE.
			ifr := struct {
				name  [16]byte
				flags uint16
				_     [22]byte
			}{flags: 0x0002 | 0x1000 | 0x4000 | 0x0100}
			copy(ifr.name[:], "tap0")
			if err := ioctl(fd, syscall.TUNSETIFF, uintptr(unsafe.Pointer(&ifr))); err != nil {
				return fmt.Errorf("make queue %d: %w", queue, err)
			}
			// TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6.
			if err := ioctl(fd, syscall.TUNSETOFFLOAD, 1|2|4); err != nil {
				return fmt.Errorf("set offloads: %w", err)
			}
		}
		return nil
	})
}

func ioctl(fd int, req, arg uintptr) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), req, arg); errno != 0 {
		return errno
	}
	return nil
}
