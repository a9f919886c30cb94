package nl

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestConfigureReceivesAtOnce looks whether the kernel takes frames to the IPv6 addresses at once after Configure
// returns. There are many, since it makes them so one after another.
func TestConfigureReceivesAtOnce(t *testing.T) {
	setup := slices.Clone(host)
	for i := range 200 {
		setup = append(setup, fmt.Sprintf("-6 addr add 2001:db8:1::1:%x/64 dev up0 nodad", i))
	}
	tpl := mustTemplate(t, Options{}, setup...)
	guest(t, config(&tpl), func(_ *Conn, rep Report) {
		routes, err := os.ReadFile("/proc/thread-self/net/ipv6_route")
		if err != nil {
			t.Error(err)
			return
		}
		noProblems(t, rep)
		addrs := []netip.Addr{rep.LinkLocal}
		for i := range tpl.V6.Addrs {
			addrs = append(addrs, tpl.V6.Addrs[i].Prefix.Addr())
		}
		missing := 0
		for _, ip := range addrs {
			if !strings.Contains(string(routes), hex.EncodeToString(ip.AsSlice())+" 80 ") {
				missing++
			}
		}
		if missing > 0 || len(addrs) != 202 {
			t.Errorf("of %d addresses, %d are not in the table local", len(addrs), missing)
		}
	})
}
