package wire

import "testing"

func TestAddrKinds(t *testing.T) {
	for _, c := range []struct {
		s                                       string
		is4, loop, multi, link, none, broadcast bool
	}{
		{s: "127.3.4.5", is4: true, loop: true},
		{s: "::1", loop: true},
		{s: "224.0.0.251", is4: true, multi: true},
		{s: "ff02::1", multi: true},
		{s: "169.254.1.1", is4: true, link: true},
		{s: "fe80::1", link: true},
		{s: "febf::1", link: true},
		{s: "fec0::1"},
		{s: "0.0.0.0", is4: true, none: true},
		{s: "::", none: true},
		{s: "255.255.255.255", is4: true, broadcast: true},
		{s: "192.0.2.1", is4: true},
		{s: "2001:db8::1"},
	} {
		a := addrOf(c.s)
		if a.Is4() != c.is4 || a.IsLoopback() != c.loop || a.IsMulticast() != c.multi || a.IsLinkLocal() != c.link ||
			a.IsUnspecified() != c.none || a.IsBroadcast4() != c.broadcast {
			t.Errorf("%s is taken for something else", c.s)
		}
		if a.String() != c.s {
			t.Errorf("%s prints as %s", c.s, a)
		}
	}
}
