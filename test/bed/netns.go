package bed

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/vishvananda/netns"
)

// NS is a network namespace without a name. One locked thread lives in it for as long as the bed: processes
// are forked from that thread, so that their parent-death signal means the bed's end.
type NS struct {
	Name string

	bed   *Bed
	fd    netns.NsHandle
	spawn chan func()
}

func newNS(name string) (*NS, error) {
	n := &NS{Name: name, spawn: make(chan func())}
	made := make(chan error)
	go n.live(made)
	if err := <-made; err != nil {
		return nil, fmt.Errorf("make namespace %s: %w", name, err)
	}
	return n, nil
}

// live is the thread that lives in the namespace. It never unlocks: the thread ends with the goroutine.
func (n *NS) live(made chan<- error) {
	runtime.LockOSThread()
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		made <- err
		return
	}
	var err error
	if n.fd, err = netns.Get(); err != nil {
		made <- err
		return
	}
	if err := openSysctls(); err != nil {
		made <- err
		return
	}
	close(made)
	for f := range n.spawn {
		f()
	}
}

// openSysctls is per namespace: ping sockets are closed to everybody in a new one.
func openSysctls() error {
	for _, s := range []struct{ name, value string }{
		{"net/ipv4/ping_group_range", "0 2147483647"},
		{"net/ipv4/tcp_congestion_control", "cubic"},
	} {
		// Through thread-self: the net directory is that of the thread which opens it.
		if err := os.WriteFile("/proc/sys/"+s.name, []byte(s.value), 0); err != nil {
			return fmt.Errorf("set %s: %w", s.name, err)
		}
	}
	return nil
}

// Do runs f on a thread inside the namespace. Sockets that f makes stay in it.
func (n *NS) Do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := netns.Set(n.fd); err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", n.Name, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Listen is net.Listen inside the namespace.
func (n *NS) Listen(network, addr string) (l net.Listener, err error) {
	err = n.Do(func() error {
		l, err = net.Listen(network, addr)
		return err
	})
	return l, err
}

// ListenPacket is net.ListenPacket inside the namespace.
func (n *NS) ListenPacket(network, addr string) (c net.PacketConn, err error) {
	err = n.Do(func() error {
		c, err = net.ListenPacket(network, addr)
		return err
	})
	return c, err
}

// Dial is net.Dial inside the namespace; addr must be numeric, since a resolver would use other threads.
func (n *NS) Dial(network, addr string) (c net.Conn, err error) {
	err = n.Do(func() error {
		c, err = net.Dial(network, addr)
		return err
	})
	return c, err
}

// start forks cmd from the thread that lives in the namespace.
func (n *NS) start(cmd *exec.Cmd) error {
	done := make(chan error)
	n.spawn <- func() { done <- cmd.Start() }
	return <-done
}

func (n *NS) close() {
	close(n.spawn)
	n.fd.Close()
}
