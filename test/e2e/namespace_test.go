package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"penne/test/bed"
)

// ipAddr is what is read of `ip -j addr`.
type ipAddr struct {
	Ifname   string
	Mtu      int
	Txqlen   int
	Flags    []string
	AddrInfo []struct {
		Family    string
		Local     string
		Prefixlen int
		Scope     string
	} `json:"addr_info"`
}

func addresses(t *testing.T, s *bed.Session) map[string]ipAddr {
	t.Helper()
	var links []ipAddr
	if err := json.Unmarshal([]byte(run(t, s, "ip", "-j", "addr")), &links); err != nil {
		t.Fatal(err)
	}
	byName := map[string]ipAddr{}
	for _, l := range links {
		byName[l.Ifname] = l
	}
	return byName
}

// globals are a link's addresses as "ip/len", without link-local ones.
func (a ipAddr) globals() string {
	var all []string
	for _, i := range a.AddrInfo {
		if i.Scope == "global" {
			all = append(all, fmt.Sprintf("%s/%d", i.Local, i.Prefixlen))
		}
	}
	return strings.Join(all, " ")
}

func TestAddressesAndRoutesAreCopied(t *testing.T) {
	_, s := connect(t)
	links := addresses(t, s)
	up := links[bed.Link]
	if want := bed.HostIP4 + "/24 " + bed.HostIP6 + "/64"; up.globals() != want {
		t.Errorf("addresses on %s: %s, want %s", bed.Link, up.globals(), want)
	}
	if up.Mtu != 65520 {
		t.Errorf("MTU %d, want 65520", up.Mtu)
	}
	// The kernel's 1000 frames are less than one window at MTU 1500.
	if up.Txqlen != 10000 {
		t.Errorf("room for %d frames, want 10000", up.Txqlen)
	}
	if lo := fmt.Sprint(links["lo"].Flags); !strings.Contains(lo, "LOWER_UP") {
		t.Errorf("loopback is not up: %s", lo)
	}
	for flag, want := range map[string]string{
		"-4": "default via " + bed.GatewayIP4 + " dev " + bed.Link,
		"-6": "default via " + bed.GatewayIP6 + " dev " + bed.Link,
	} {
		if out := run(t, s, "ip", flag, "route", "show", "default"); !strings.HasPrefix(out, want) {
			t.Errorf("ip %s route: %q, want %q", flag, out, want)
		}
	}
}

func TestOptionsShapeTheNamespace(t *testing.T) {
	b := newBed(t)
	for _, c := range []struct {
		options []string
		link    string
		globals string
		mtu     int
		gateway string // of IPv4
	}{
		{[]string{"-m", "1500"}, bed.Link, bed.HostIP4 + "/24 " + bed.HostIP6 + "/64", 1500, bed.GatewayIP4},
		{[]string{"-I", "rigatoni"}, "rigatoni", bed.HostIP4 + "/24 " + bed.HostIP6 + "/64", 65520, bed.GatewayIP4},
		{[]string{"-4"}, bed.Link, bed.HostIP4 + "/24", 65520, bed.GatewayIP4},
		{[]string{"-6"}, bed.Link, bed.HostIP6 + "/64", 65520, ""},
		{
			[]string{"-4", "-a", "192.0.2.7", "-n", "255.255.255.128", "-g", "192.0.2.1"},
			bed.Link, "192.0.2.7/25", 65520, "192.0.2.1",
		},
	} {
		t.Run(strings.Join(c.options, " "), func(t *testing.T) {
			s := attach(t, b, c.options...)
			link, ok := addresses(t, s)[c.link]
			if !ok || link.globals() != c.globals || link.Mtu != c.mtu {
				t.Errorf("%s: %+v", c.link, link)
			}
			route, want := run(t, s, "ip", "-4", "route", "show", "default"), ""
			if c.gateway != "" {
				want = "default via " + c.gateway + " dev " + c.link
			}
			if !strings.HasPrefix(route, want) || (want == "") != (route == "") {
				t.Errorf("default route %q, want %q", route, want)
			}
		})
	}
}

func TestCommandIsRootInItsNamespace(t *testing.T) {
	_, s := connect(t)
	if out := run(t, s, "id", "-u"); out != "0\n" {
		t.Errorf("user id inside: %q", out)
	}
}
