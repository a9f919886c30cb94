package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"penne/internal/conf"
	"penne/internal/sys"
)

// A copy of the test program named pasta is a program whose engine does what
// the tests of this package need; the shipped one is tested in test/lifecycle.
func TestMain(m *testing.M) {
	switch {
	case IsEngine(os.Args):
		os.Exit(RunEngine(os.Args, testEngine))
	case filepath.Base(os.Args[0]) == "pasta" || filepath.Base(os.Args[0]) == "passt":
		os.Exit(launchTest(os.Args))
	}
	os.Exit(m.Run())
}

func launchTest(argv []string) int {
	c, err := conf.Parse(argv)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	l := &Launcher{Config: c, Argv: argv, BindPrivileged: bindTestPorts, Stderr: os.Stderr}
	return l.Run()
}

// bindTestPorts binds more ports than fit one hand-over message.
func bindTestPorts(*conf.Config) ([]PrivilegedPort, error) {
	if os.Getenv("PENNE_TEST_ENGINE") != "ports" {
		return nil, nil
	}
	var ports []PrivilegedPort
	for range portsPerMessage + 10 {
		fd, errno := sys.Socket(sys.AF_INET, sys.SOCK_STREAM, 0)
		if errno != 0 {
			return nil, errno
		}
		var sa sys.Sockaddr
		loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1}).As16()
		sa.SetInet(&loopback, true, 0, 0)
		if errno := sys.Bind(fd, &sa); errno != 0 {
			return nil, errno
		}
		if errno := sys.Sockname(fd, &sa); errno != 0 {
			return nil, errno
		}
		_, port, _, _ := sa.Inet()
		ports = append(ports, PrivilegedPort{FD: fd, TCP: true,
			Addr: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Port: port})
	}
	return ports, nil
}

// testEngine fails or serves as the environment says.
func testEngine(ctx context.Context, c *conf.Config, h *Handles) error {
	what := os.Getenv("PENNE_TEST_ENGINE")
	switch what {
	case "fail":
		return errors.New("the engine's own words")
	case "return":
		return nil
	case "panic":
		panic("for the test")
	case "tap":
		if err := makeTap(h.NetNS); err != nil {
			return err
		}
	case "caps":
		if err := checkCaps(); err != nil {
			return err
		}
	case "ports":
		if err := checkPorts(h.PrivilegedPorts); err != nil {
			return err
		}
	}
	if err := h.Ready(); err != nil {
		return err
	}
	switch what {
	case "fail later":
		return errors.New("the engine's later words")
	case "user":
		_ = syscall.Kill(syscall.Getpid(), syscall.SIGUSR1)
		if sig := <-h.User; sig != syscall.SIGUSR1 {
			return fmt.Errorf("got %v", sig)
		}
		return errors.New("got USR1")
	case "hang":
		select {}
	}
	<-ctx.Done()
	return nil
}

// checkPorts wants every port to be the socket it is said to be, and usable.
func checkPorts(ports []PrivilegedPort) error {
	if len(ports) != portsPerMessage+10 {
		return fmt.Errorf("%d ports", len(ports))
	}
	for _, p := range ports {
		var sa sys.Sockaddr
		if errno := sys.Sockname(p.FD, &sa); errno != 0 {
			return fmt.Errorf("socket %d: %w", p.FD, errno)
		}
		if _, port, _, _ := sa.Inet(); port != p.Port || !p.TCP {
			return fmt.Errorf("socket %d is bound to %d, not to %v", p.FD, port, p.Addr)
		}
		if errno := sys.Listen(p.FD, 1); errno != 0 {
			return fmt.Errorf("listen: %w", errno)
		}
	}
	return nil
}

// checkCaps wants the engine to be in its own mount, PID, IPC and UTS
// namespaces, with all capabilities over its user namespace.
func checkCaps() error {
	if pid := os.Getpid(); pid != 1 {
		return fmt.Errorf("pid is %d", pid)
	}
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	var bound, eff string
	for _, line := range strings.Split(string(b), "\n") {
		bound += after(line, "CapBnd:")
		eff += after(line, "CapEff:")
	}
	if bound != eff || eff == "" {
		return fmt.Errorf("capabilities are %s of %s", eff, bound)
	}
	return nil
}

func after(line, prefix string) string {
	if rest, ok := strings.CutPrefix(line, prefix); ok {
		return rest
	}
	return ""
}
