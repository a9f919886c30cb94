package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"penne/test/bed"
	"penne/test/needs"
)

func TestMain(m *testing.M) {
	if !bed.RunAgent() {
		m.Run()
	}
}

// Options of sessions: forwarding whose forwarding the test gives itself, noForward without any, quiet where it is not
// what the test is about.
var (
	forwarding = []string{"--config-net", "-f", "-q"}
	noForward  = []string{"-t", "none", "-u", "none", "-T", "none", "-U", "none"}
	quiet      = slices.Concat(forwarding, noForward)
)

// pastaBinary is the program under test.
func pastaBinary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("PENNE_PASTA")
	if path == "" {
		path = filepath.Join("..", "..", "bin", "pasta")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make build first, or name a binary in PENNE_PASTA", err)
	}
	return path
}

func newBed(t *testing.T, opts ...bed.Option) *bed.Bed {
	t.Helper()
	bed.Need(t)
	b, err := bed.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// attach starts pasta in a bed, with options beside the quiet ones.
func attach(t *testing.T, b *bed.Bed, options ...string) *bed.Session {
	t.Helper()
	argv := append([]string{pastaBinary(t)}, quiet...)
	s, err := b.Pasta(append(argv, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if status := s.Close(); status != 0 {
			t.Errorf("pasta ended with status %d: %s", status, s.Proc.Stderr)
		}
	})
	return s
}

// connect makes a bed and a session in it.
func connect(t *testing.T, options ...string) (*bed.Bed, *bed.Session) {
	t.Helper()
	b := newBed(t)
	return b, attach(t, b, options...)
}

// run runs a command inside and fails the test unless it succeeds.
func run(t *testing.T, s *bed.Session, argv ...string) string {
	t.Helper()
	res, err := s.Run(argv...)
	if err != nil {
		t.Fatal(err)
	}
	if res.Status != 0 {
		t.Fatalf("%v: status %d\n%s%s", argv, res.Status, res.Stdout, res.Stderr)
	}
	return res.Stdout
}

// need is for tests whose client may be missing.
func need(t *testing.T, program string) {
	t.Helper()
	needs.Program(t, program)
}

// family is an address family with its addresses in the bed.
type family struct {
	name, flag            string
	remote, host, gateway string
}

var families = []family{
	{"v4", "-4", bed.RemoteIP4, bed.HostIP4, bed.GatewayIP4},
	{"v6", "-6", bed.RemoteIP6, bed.HostIP6, bed.GatewayIP6},
}

// eachFamily runs a subtest for IPv4 and one for IPv6.
func eachFamily(t *testing.T, f func(t *testing.T, f family)) {
	for _, fam := range families {
		t.Run(fam.name, func(t *testing.T) { f(t, fam) })
	}
}
