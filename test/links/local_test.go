package links

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// TestAwaitLocal looks for the last of many addresses, which the kernel makes local one after another.
func TestAwaitLocal(t *testing.T) {
	Inside(t, func() {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Error(err)
			return
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			t.Error(err)
			return
		}
		var addrs []string
		for i := range 200 {
			ip := net.ParseIP(fmt.Sprintf("2001:db8::%x", i+1))
			addrs = append(addrs, ip.String())
			const noDetection = 2 // IFA_F_NODAD of linux/if_addr.h
			a := netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(128, 128)}, Flags: noDetection}
			if err := netlink.AddrAdd(lo, &a); err != nil {
				t.Error(err)
				return
			}
		}
		ns, err := netns.Get()
		if err != nil {
			t.Error(err)
			return
		}
		defer ns.Close()
		if err := AwaitLocal(ns, addrs...); err != nil {
			t.Error(err)
		}
		routes, err := os.ReadFile("/proc/thread-self/net/ipv6_route")
		if err != nil {
			t.Error(err)
		}
		lines := slices.Collect(strings.Lines(string(routes)))
		n := 0
		for _, l := range lines {
			if strings.HasPrefix(l, "20010db8") && strings.Contains(l, " 8020") { // RTF_LOCAL | RTF_NONEXTHOP
				n++
			}
		}
		if n != len(addrs) {
			t.Errorf("%d addresses are local, want %d", n, len(addrs))
		}
	})
}
