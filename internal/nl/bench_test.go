package nl

import (
	"runtime"
	"testing"

	"github.com/vishvananda/netns"
)

// BenchmarkTemplate reads the template of a usual host, socket included.
func BenchmarkTemplate(b *testing.B) {
	for b.Loop() {
		if _, err := readTemplate(Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConfigure sets up an interface as --config-net does.
func BenchmarkConfigure(b *testing.B) {
	tpl, err := readTemplate(Options{})
	if err != nil {
		b.Fatal(err)
	}
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		b.Skipf("making network namespaces takes root: %v", err)
	}
	defer ns.Close()
	c, err := Dial()
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for b.Loop() {
		if err := c.LoopbackUp(); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Configure(Config{Name: "lo", Up: true, Template: &tpl}); err != nil {
			b.Fatal(err)
		}
	}
}
