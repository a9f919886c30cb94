package engine

import (
	"testing"

	"penne/tap/tun"
)

func TestDescribeTap(t *testing.T) {
	all := tun.Caps{Vnet: true, Csum: true, TSO: true, USO: true, MultiQueue: true}
	noUSO, none := all, tun.Caps{}
	noUSO.USO = false
	for _, c := range []struct {
		queues, wanted int
		caps           tun.Caps
		want           string
	}{
		{1, 1, all, "tap a with 1 queue"},
		{1, 0, all, "tap a with 1 queue"},
		{4, 4, all, "tap a with 4 queues"},
		{1, 8, all, "tap a with 1 queue (8 wanted)"},
		{4, 8, noUSO, "tap a with 4 queues (8 wanted), without USO"},
		{1, 1, none, "tap a with 1 queue, without checksum offload, TSO, USO"},
	} {
		if got := describeTap("a", c.queues, c.wanted, c.caps); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
