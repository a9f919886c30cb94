package nl

import (
	"net/netip"
	"time"

	"penne/internal/sys"
)

// usableLimit bounds the wait for addresses, in case a kernel does it otherwise: what the wait is for
// costs a second too, see awaitUsable.
const usableLimit = time.Second

// awaitUsable waits until the guest's kernel takes what is sent to the IPv6 addresses that were added. The request
// for an address is acknowledged before: its entry in the routing table local is made by a worker (addrconf_dad_work
// of net/ipv6/addrconf.c), duplicate address detection or not. Mostly that takes microseconds, but the worker serves
// all network namespaces of the machine, one address after another, and tens of milliseconds were seen. Until then
// the kernel drops the answer to its own neighbour solicitation, and repeats that a second later (RFC 4861 section 10).
func (c *Conn) awaitUsable(rep *Report) {
	end := time.Now().Add(usableLimit)
	for _, ip := range rep.added {
		for !c.isLocal(rep.Index, ip) && time.Now().Before(end) {
			time.Sleep(time.Millisecond)
		}
	}
}

// isLocal reports whether the kernel takes frames to an IPv6 address of an interface for its own.
func (c *Conn) isLocal(index int32, ip netip.Addr) bool {
	const typ = 7 // of struct rtmsg
	b := make([]byte, sys.SizeofRtMsg, 64)
	b[0], b[1] = sys.AF_INET6, 128
	b = attr32(attr(b, sys.RtaDst, ip.AsSlice()), sys.RtaOif, uint32(index))
	m, err := c.get(sys.RtmGetRoute, b)
	return err == nil && len(m) > typ && m[typ] == sys.RtnLocal
}
