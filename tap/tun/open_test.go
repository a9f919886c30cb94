package tun

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"penne/internal/sys"
)

// fakeKernel grants everything but what a test refuses, and notes what it saw.
type fakeKernel struct {
	refuseIff     func(name string, flags uint16) error
	refuseOffload func(bits uint) error
	refuseVnet    error
	refuseOpen    error
	refuseTxQueue error
	iff           uint16 // of an adopted descriptor

	next    int
	open    []int
	offload uint
	offered []uint
	txq     int
}

func (f *fakeKernel) kernel() *kernel {
	return &kernel{
		open: func() (int, error) {
			if f.refuseOpen != nil {
				return -1, f.refuseOpen
			}
			f.next++
			f.open = append(f.open, 1000+f.next)
			return 1000 + f.next, nil
		},
		setIff: func(fd int, name string, flags uint16) (string, error) {
			if f.refuseIff != nil {
				if err := f.refuseIff(name, flags); err != nil {
					return "", err
				}
			}
			if name == "" {
				name = "tap7"
			}
			return name, nil
		},
		getIff: func(fd int) (string, uint16, error) {
			if f.iff == 0 {
				return "", 0, sys.EBADFD
			}
			return "tap3", f.iff, nil
		},
		setOffload: func(fd int, bits uint) error {
			f.offered = append(f.offered, bits)
			if f.refuseOffload != nil {
				if err := f.refuseOffload(bits); err != nil {
					return err
				}
			}
			f.offload = bits
			return nil
		},
		setVnet:    func(fd, size int) error { return f.refuseVnet },
		setTxQueue: func(name string, frames int) error { f.txq = frames; return f.refuseTxQueue },
		nonblock:   func(fd int) error { return nil },
		close: func(fd int) sys.Errno {
			f.open = slices.DeleteFunc(f.open, func(o int) bool { return o == fd })
			return 0
		},
	}
}

func TestOpenGetsAll(t *testing.T) {
	f := &fakeKernel{}
	d, err := open(Options{Queues: 3}, f.kernel())
	if err != nil {
		t.Fatal(err)
	}
	want := Caps{Vnet: true, Csum: true, TSO: true, USO: true, MultiQueue: true}
	if d.Caps() != want || d.Queues() != 3 || d.Name() != "tap7" || f.txq != DefaultTxQueueLen || d.TxQueueError() != nil {
		t.Errorf("got %+v, %d queues, name %q, queue length %d (%v)", d.Caps(), d.Queues(), d.Name(), f.txq, d.TxQueueError())
	}
	for i := range 3 {
		if q := d.Queue(i); q.caps != want || q.hdrLen != 10 || !q.split.Partial || q.FD() != 1001+i {
			t.Errorf("queue %d: %+v", i, q)
		}
	}
}

// TestOffloadLadder refuses one kind of offload after the other.
func TestOffloadLadder(t *testing.T) {
	for _, c := range []struct {
		name    string
		unknown uint
		want    Caps
	}{
		{"no USO", uso, Caps{Vnet: true, Csum: true, TSO: true}},
		{"no TSO", uso | tso, Caps{Vnet: true, Csum: true}},
		{"no checksum", uso | tso | sys.TUN_F_CSUM, Caps{Vnet: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fakeKernel{refuseOffload: func(bits uint) error {
				if bits&c.unknown != 0 {
					return sys.EINVAL
				}
				return nil
			}}
			d, err := open(Options{}, f.kernel())
			if err != nil {
				t.Fatal(err)
			}
			if d.Caps() != c.want {
				t.Errorf("got %+v, want %+v", d.Caps(), c.want)
			}
			if f.offload&c.unknown != 0 {
				t.Errorf("last offload %#x", f.offload)
			}
			if d.Queue(0).split.Partial != c.want.Csum {
				t.Error("segments must leave checksums partial exactly if the kernel completes them")
			}
		})
	}
}

func TestQueueLadder(t *testing.T) {
	const mq, excl = sys.IFF_MULTI_QUEUE, sys.IFF_TUN_EXCL
	tries := 0
	for _, c := range []struct {
		name   string
		refuse func(name string, flags uint16) error
		queues int
		mq     bool
		err    error
		says   string
	}{
		{"no multi-queue", func(_ string, fl uint16) error {
			if fl&mq != 0 {
				return sys.EINVAL
			}
			return nil
		}, 1, false, nil, ""},
		{"second queue refused", func(_ string, fl uint16) error {
			if fl&excl == 0 {
				return sys.EPERM
			}
			return nil
		}, 1, true, nil, ""},
		{"free persistent tap", func(_ string, fl uint16) error {
			switch {
			case fl&excl != 0:
				return sys.EBUSY
			case fl&mq != 0:
				return sys.EINVAL
			}
			return nil
		}, 1, false, nil, ""},
		{"name taken", func(_ string, fl uint16) error { return sys.EBUSY }, 0, false, sys.EBUSY, "choose another"},
		{"no right", func(_ string, fl uint16) error {
			tries++
			return sys.EPERM
		}, 0, false, sys.EPERM, "CAP_NET_ADMIN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fakeKernel{refuseIff: c.refuse}
			d, err := open(Options{Name: "eth0", Queues: 4}, f.kernel())
			if c.err != nil {
				if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "eth0") {
					t.Errorf("error %v", err)
				}
				if len(f.open) != 0 {
					t.Errorf("%d descriptors left open", len(f.open))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d.Queues() != c.queues || d.Caps().MultiQueue != c.mq || d.Name() != "eth0" {
				t.Errorf("%d queues, %+v, %q", d.Queues(), d.Caps(), d.Name())
			}
			if len(f.open) != c.queues {
				t.Errorf("%d descriptors open for %d queues", len(f.open), c.queues)
			}
		})
	}
	if tries != 1 {
		t.Errorf("%d tries where one EPERM settles it", tries)
	}
}

func TestOpenErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		f    fakeKernel
		o    Options
		says string
	}{
		{"not readable", fakeKernel{refuseOpen: sys.EACCES}, Options{}, "/dev/net/tun: permission denied"},
		{"no vnet header", fakeKernel{refuseVnet: sys.EINVAL}, Options{Name: "x"}, `"x"`},
		{"too many queues", fakeKernel{}, Options{Queues: MaxQueues + 1}, "257"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := open(c.o, c.f.kernel())
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want it to say %q", err, c.says)
			}
			if len(c.f.open) != 0 {
				t.Errorf("%d descriptors left open", len(c.f.open))
			}
		})
	}
}

func TestTxQueueRefusedIsNotFatal(t *testing.T) {
	f := &fakeKernel{refuseTxQueue: sys.EPERM}
	d, err := open(Options{TxQueueLen: 500}, f.kernel())
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(d.TxQueueError(), sys.EPERM) || f.txq != 500 {
		t.Errorf("queue length %d: %v", f.txq, d.TxQueueError())
	}
}

func TestAdoptDouble(t *testing.T) {
	const plain = sys.IFF_TAP | sys.IFF_NO_PI
	for _, c := range []struct {
		name string
		iff  uint16
		vnet error
		want Caps
		err  string
	}{
		{"with header", plain | sys.IFF_VNET_HDR, nil, Caps{Vnet: true, Csum: true, TSO: true, USO: true}, ""},
		{"without header", plain, nil, Caps{}, ""},
		{"not attached", 0, nil, Caps{}, "not an attached tap"},
		{"tun, not tap", sys.IFF_TUN | sys.IFF_NO_PI, nil, Caps{}, "IFF_TAP"},
		{"packet information", sys.IFF_TAP, nil, Caps{}, "IFF_NO_PI"},
		{"odd header", plain | sys.IFF_VNET_HDR, sys.EINVAL, Caps{}, "invalid argument"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fakeKernel{iff: c.iff, refuseVnet: c.vnet}
			d, err := adopt(5, Options{}, f.kernel())
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), "descriptor 5") {
					t.Errorf("got %v, want it to say %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d.Caps() != c.want || d.Queues() != 1 || d.Name() != "tap3" || d.Queue(0).FD() != 5 {
				t.Errorf("got %+v, %d queues, %q", d.Caps(), d.Queues(), d.Name())
			}
			if !c.want.Vnet && !slices.Equal(f.offered, []uint{0}) {
				t.Errorf("offloads %#x set on a tap without header", f.offered)
			}
		})
	}
}
