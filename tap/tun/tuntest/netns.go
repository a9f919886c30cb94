// Package tuntest gives tests a network namespace of their own, with the
// kernel's own network stack as the guest on the other side of a tap.
package tuntest

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// Patience bounds waits for what the kernel does by itself.
const Patience = time.Minute

// Enter moves the calling test's thread into a new network namespace, which
// goes with the thread when the test ends. Sockets and taps that the test opens
// from its own goroutine belong to it. The test is skipped without the right to
// make a namespace or to open taps.
func Enter(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // for good: the runtime ends the thread with the goroutine
	switch err := syscall.Unshare(syscall.CLONE_NEWNET); {
	case errors.Is(err, fs.ErrPermission):
		runtime.UnlockOSThread()
		t.Skip("making a network namespace needs CAP_SYS_ADMIN")
	case err != nil:
		t.Fatal(err)
	}
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("taps cannot be opened here: %v", err)
	}
	f.Close()
}

// Sysctl writes value to a sysctl of the namespace; name is its path below
// /proc/sys.
func Sysctl(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// ifaNoDAD is IFA_F_NODAD of linux/if_addr.h.
const ifaNoDAD = 2

// SetUp gives the interface name the Ethernet address mac and the addresses
// addrs, and sets it up. IPv6 addresses can be used at once: no other host is
// asked whether they are its own.
func SetUp(t *testing.T, name string, mac [6]byte, addrs ...netip.Prefix) netlink.Link {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	must(t, netlink.LinkSetHardwareAddr(link, mac[:]))
	for _, a := range addrs {
		ip := &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}
		must(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: ip, Flags: ifaNoDAD}))
	}
	must(t, netlink.LinkSetUp(link))
	return link
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
