// Package needs is for tests that drive programs which may be missing.
package needs

import (
	"os"
	"os/exec"
	"testing"
)

// Program skips a test whose program is missing. Where tests have all that they may ask for, root and taps, that is
// no excuse: what `make test` and `make check` install lacks a package then.
func Program(tb testing.TB, name string) {
	tb.Helper()
	if _, err := exec.LookPath(name); err == nil {
		return
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil || os.Geteuid() != 0 {
		tb.Skipf("%s is not installed; .ci/install test installs it", name)
	}
	tb.Fatalf("%s is not installed: the list in .ci/install lacks its package, or was not installed", name)
}
