package links

import (
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"
)

// Inside runs f on a thread of its own in a new network namespace, which ends with it; the test's other goroutines
// stay outside. It skips the test without root, and ends it if f has failed.
func Inside(t testing.TB, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making network namespaces takes root")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine, and the namespace with it
		ns, err := netns.New()
		if err != nil {
			t.Errorf("new network namespace: %v", err)
			return
		}
		defer ns.Close()
		f()
	}()
	<-done
	if t.Failed() {
		t.FailNow()
	}
}
