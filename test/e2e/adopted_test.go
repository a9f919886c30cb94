package e2e

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"penne/internal/netns"
	"penne/internal/sys"
	"penne/test/bed"
)

// TestAdoptedTap passes on a tap that was made in the namespace before: one with offloads, and one without, over
// which everything goes in frames of the MTU, with whole checksums.
func TestAdoptedTap(t *testing.T) {
	b := newBed(t)
	for _, c := range []struct {
		name, without string
		flags         uint16
	}{{"offload", "(, without USO)?", sys.IFF_VNET_HDR}, {"plain", ", without checksum offload, TSO, USO", 0}} {
		t.Run(c.name, func(t *testing.T) {
			holder, err := b.Host.Start(bed.Spec{Argv: []string{"unshare", "-Urn", "sh", "-c", stay}, Ready: "^up$"})
			if err != nil {
				t.Fatal(err)
			}
			defer holder.Kill()
			pid := strconv.Itoa(holder.PID())
			tap := tapIn(t, "/proc/"+pid+"/ns/net", "ravioli", c.flags)
			defer tap.Close()
			program, err := b.Stage(pastaBinary(t))
			if err != nil {
				t.Fatal(err)
			}
			argv := append([]string{program, "--config-net", "-m", "1500", "-f", "--fd", "3"}, noForward...)
			p, err := b.Host.Start(bed.Spec{Argv: append(argv, pid), Files: []*os.File{tap}, Ready: "^tap ravioli with 1 queue" + c.without + "$"})
			if err != nil {
				t.Fatal(err)
			}
			eachFamily(t, func(t *testing.T, f family) { echoFrom(t, b, pid, f) })
			p.Signal(syscall.SIGTERM)
			if status := p.Wait(); status != 0 {
				t.Errorf("status %d: %s", status, p.Stderr)
			}
		})
	}
}

// echoFrom pings the remote host from the namespace of a process, and has it echo some megabytes.
func echoFrom(t *testing.T, b *bed.Bed, pid string, f family) {
	t.Helper()
	need(t, "socat")
	enter := []string{"nsenter", "-t", pid, "-n"}
	res, err := b.Host.Run(bed.Spec{Argv: append(enter, "ping", "-c1", f.remote), Root: true})
	if err != nil || res.Status != 0 {
		t.Errorf("ping: %v, %+v", err, res)
	}
	srv := serve(t, b.Remote, f.remote, bed.EchoTCP)
	to := "TCP" + f.flag[1:] + ":" + bracketed(f.remote) + ":" + strconv.Itoa(srv.Port())
	text := strings.Repeat("al dente ", 400000)
	res, err = b.Host.Run(bed.Spec{Argv: append(enter, "socat", "-t60", "-", to), Stdin: strings.NewReader(text), Root: true})
	if err != nil || res.Stdout != text {
		t.Errorf("socat got %d bytes of %d: %v %s", len(res.Stdout), len(text), err, res.Stderr)
	}
}

// tapIn makes a tap in the network namespace at path, with flags beside the usual ones.
func tapIn(t *testing.T, path, name string, flags uint16) *os.File {
	t.Helper()
	ns, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	fd := -1
	err = netns.Do(ns, func() (err error) {
		if fd, err = sys.OpenTun(); err == nil {
			_, err = sys.TunSetIff(fd, name, sys.IFF_TAP|sys.IFF_NO_PI|flags)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "tap")
}
