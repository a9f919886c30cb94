// Package links is what tests of networks share: a namespace to be inside, and the wait for links, which the kernel's
// own workers bring up after the system call that asked for it has returned.
package links

import (
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// patience bounds what takes milliseconds unless something is wrong.
const patience = time.Minute

// AwaitUp waits until the kernel has seen that the other end of a link of the namespace is up: until then, and that is
// after LinkSetUp has returned, it drops what is sent.
func AwaitUp(ns netns.NsHandle, name string) error {
	updates, done := make(chan netlink.LinkUpdate, 16), make(chan struct{})
	defer close(done)
	opt := netlink.LinkSubscribeOptions{Namespace: &ns, ListExisting: true}
	if err := netlink.LinkSubscribeWithOptions(updates, done, opt); err != nil {
		return fmt.Errorf("watch %s: %w", name, err)
	}
	for late := time.After(patience); ; {
		select {
		case u, ok := <-updates:
			if !ok {
				return fmt.Errorf("watch %s: ended", name)
			}
			if a := u.Link.Attrs(); a.Name == name && a.OperState == netlink.OperUp {
				return nil
			}
		case <-late:
			return fmt.Errorf("watch %s: not up after %v", name, patience)
		}
	}
}
