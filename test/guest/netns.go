package guest

import (
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

// Namespace moves the running test into a network namespace of its own, where
// loopback is up and everybody may ping, or skips it for want of privilege. The
// test's thread is locked, and ends with the test; sockets that other
// goroutines make stay outside.
func Namespace(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a network namespace")
	}
	runtime.LockOSThread() // for good: the thread ends with the test's goroutine
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	Sysctl(t, "net/ipv4/ping_group_range", "0 2147483647")
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatalf("find loopback: %v", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatalf("bring loopback up: %v", err)
	}
}

// Sysctl sets a variable of the thread's network namespace.
func Sysctl(t testing.TB, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
		t.Fatalf("set %s: %v", name, err)
	}
}

// LoopbackMTU sets the MTU of the thread's loopback.
func LoopbackMTU(t testing.TB, mtu int) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatalf("find loopback: %v", err)
	}
	if err := netlink.LinkSetMTU(lo, mtu); err != nil {
		t.Fatalf("set MTU of loopback: %v", err)
	}
}
