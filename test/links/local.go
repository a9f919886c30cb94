package links

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// AwaitLocal waits until the kernel has put IPv6 addresses of the namespace into its routing table local: until then,
// and that is after AddrAdd has returned, even without duplicate address detection, it answers no neighbour
// solicitation for them.
func AwaitLocal(ns netns.NsHandle, addrs ...string) error {
	updates, done := make(chan netlink.RouteUpdate, 16), make(chan struct{})
	opt := netlink.RouteSubscribeOptions{
		Namespace: &ns, ListExisting: true,
		ReceiveBufferSize: 1 << 20, ReceiveBufferForceSize: true, // for hundreds of routes
	}
	if err := netlink.RouteSubscribeWithOptions(updates, done, opt); err != nil {
		return fmt.Errorf("watch routes: %w", err)
	}
	defer func() {
		close(done)
		go func() {
			for range updates { // else the sender would wait for ever
			}
		}()
	}()
	missing := make(map[string]bool)
	for _, a := range addrs {
		missing[net.ParseIP(a).String()] = true
	}
	for late := time.After(patience); len(missing) > 0; {
		select {
		case u, ok := <-updates:
			if !ok {
				return errors.New("watch routes: ended")
			}
			if u.Type == syscall.RTM_NEWROUTE && u.Route.Type == syscall.RTN_LOCAL && u.Dst != nil {
				delete(missing, u.Dst.IP.String())
			}
		case <-late:
			return fmt.Errorf("watch routes: not local after %v: %v", patience, missing)
		}
	}
	return nil
}
