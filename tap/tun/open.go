package tun

import (
	"errors"
	"fmt"

	"penne/internal/sys"
	"penne/tap/vnet"
)

// MaxQueues is the most queues of one interface (MAX_TAP_QUEUES of
// drivers/net/tun.c).
const MaxQueues = 256

// DefaultTxQueueLen is in frames. The kernel's default, 1000, is less than one window
// of a fast flow whose packets are not superpackets.
const DefaultTxQueueLen = 10000

// Options of Open and Adopt.
type Options struct {
	// Name of the interface; empty lets the kernel choose tapN.
	Name string
	// Queues wanted, 1 to MaxQueues; 0 means 1.
	Queues int
	// TxQueueLen, in frames, of each queue towards us; 0 means
	// DefaultTxQueueLen.
	TxQueueLen int
}

// Caps are the offloads that the kernel granted, in both directions. A Queue does
// the others in software.
type Caps struct {
	Vnet       bool // a virtio-net header before each frame
	Csum       bool // partial checksums
	TSO        bool // TCP superpackets, both families
	USO        bool // UDP superpackets, both families (Linux 6.2)
	MultiQueue bool // the interface can have several queues
}

// Device is a tap interface and our queues of it.
type Device struct {
	name   string
	caps   Caps
	queues []*Queue
	txqErr error
}

// kernel is the system calls of Open and Adopt. Tests replace them, to have one
// refused at a time.
type kernel struct {
	open       func() (int, error)
	setIff     func(fd int, name string, flags uint16) (string, error)
	getIff     func(fd int) (string, uint16, error)
	setOffload func(fd int, bits uint) error
	setVnet    func(fd, size int) error
	setTxQueue func(name string, frames int) error
	nonblock   func(fd int) error
	close      func(fd int) sys.Errno
}

func realKernel() *kernel {
	return &kernel{
		open: sys.OpenTun, setIff: sys.TunSetIff, getIff: sys.TunGetIff,
		setOffload: sys.TunSetOffload, setVnet: sys.TunSetVnetHeader,
		setTxQueue: sys.SetTxQueueLen, nonblock: sys.SetNonblock, close: sys.Close,
	}
}

// Open makes a tap interface with o.Queues queues. The calling thread must be
// in the network namespace that gets the interface, with CAP_NET_ADMIN over it;
// the Device works from any thread afterwards.
//
// Fewer queues or offloads than wanted are no error: see Queues and Caps. If a
// persistent tap of that name exists and is free, Open takes it over, with one queue.
// It changes neither addresses nor the link's state.
func Open(o Options) (*Device, error) { return open(o, realKernel()) }

func open(o Options, k *kernel) (*Device, error) {
	if o.Queues == 0 {
		o.Queues = 1
	}
	if o.Queues < 1 || o.Queues > MaxQueues {
		return nil, fmt.Errorf("open tap: %d queues asked for, 1 to %d are possible", o.Queues, MaxQueues)
	}
	d := &Device{}
	if err := d.first(&o, k); err != nil {
		return nil, err
	}
	for len(d.queues) < o.Queues && d.caps.MultiQueue {
		if d.more(k) != nil {
			break
		}
	}
	d.finish(&o, k)
	return d, nil
}

// Adopt makes a Device with one queue of fd, an open tap descriptor. The calling
// thread should be in the network namespace of the interface, else the length of its
// queue cannot be set. On an error fd is still the caller's.
func Adopt(fd int, o Options) (*Device, error) { return adopt(fd, o, realKernel()) }

func adopt(fd int, o Options, k *kernel) (*Device, error) {
	name, flags, err := k.getIff(fd)
	if err != nil {
		return nil, fmt.Errorf("adopt file descriptor %d: not an attached tap: %w", fd, err)
	}
	if flags&sys.IFF_TAP == 0 || flags&sys.IFF_NO_PI == 0 {
		return nil, fmt.Errorf("adopt file descriptor %d: %s must be a tap opened with IFF_TAP and IFF_NO_PI", fd, name)
	}
	if err := k.nonblock(fd); err != nil {
		return nil, fmt.Errorf("adopt file descriptor %d: set non-blocking: %w", fd, err)
	}
	d := &Device{name: name}
	d.caps.Vnet = flags&sys.IFF_VNET_HDR != 0
	if d.caps.Vnet {
		if err := k.setVnet(fd, vnet.HdrLen); err != nil {
			return nil, fmt.Errorf("adopt file descriptor %d: %w", fd, err)
		}
	}
	d.queues = []*Queue{newQueue(fd)}
	d.finish(&o, k)
	return d, nil
}

// baseFlags are those of every queue (Linux 2.6.27). IFF_NAPI (4.15) stays off: it
// defers what write would do at once, for the sake of GRO, which superpackets do not
// need. One TCP stream of them into the guest, medians of 9
// runs at MSS 1460: without 48.8 Gbit/s and 0.254 CPU-s/GB, with 43.3 and 0.298;
// at 65000: 50.6 and 0.255, 46.3 and 0.257 (Linux 6.18, 2 busy cores).
const baseFlags = sys.IFF_TAP | sys.IFF_NO_PI | sys.IFF_VNET_HDR

// first makes the interface with its first queue.
func (d *Device) first(o *Options, k *kernel) error {
	fd, err := k.open()
	if err != nil {
		return openError(err)
	}
	err = d.attach(fd, o, k)
	if err == nil {
		err = k.setVnet(fd, vnet.HdrLen)
	}
	if err != nil {
		k.close(fd)
		return nameError(o.Name, err)
	}
	d.caps.Vnet = true
	d.queues = append(d.queues, newQueue(fd))
	return nil
}

// attach tries the ways to get the interface, best first. IFF_TUN_EXCL (3.10) keeps
// us from becoming one more queue of another program's multi-queue tap of that name.
// Without it, and without IFF_MULTI_QUEUE, TUNSETIFF succeeds only for a tap that no
// program has open.
func (d *Device) attach(fd int, o *Options, k *kernel) (err error) {
	tries := [...]uint16{
		baseFlags | sys.IFF_TUN_EXCL | sys.IFF_MULTI_QUEUE,
		baseFlags | sys.IFF_TUN_EXCL,
		baseFlags,
	}
	start, taken := 0, false
	if o.Queues == 1 {
		start = 1
	}
	for _, flags := range tries[start:] {
		d.name, err = k.setIff(fd, o.Name, flags)
		if err == nil {
			d.caps.MultiQueue = flags&sys.IFF_MULTI_QUEUE != 0
			return nil
		}
		if errors.Is(err, sys.EPERM) {
			return err
		}
		taken = taken || errors.Is(err, sys.EBUSY)
	}
	if taken {
		return sys.EBUSY // the last way, not being meant for a tap like that, says EINVAL
	}
	return err
}

// more adds a queue to a multi-queue interface.
func (d *Device) more(k *kernel) error {
	fd, err := k.open()
	if err != nil {
		return openError(err)
	}
	if _, err = k.setIff(fd, d.name, baseFlags|sys.IFF_MULTI_QUEUE); err == nil {
		err = k.setVnet(fd, vnet.HdrLen)
	}
	if err != nil {
		k.close(fd)
		return err
	}
	d.queues = append(d.queues, newQueue(fd))
	return nil
}

// finish sets the interface's offloads and queue length, and tells the queues.
func (d *Device) finish(o *Options, k *kernel) {
	d.offload(k)
	frames := o.TxQueueLen
	if frames == 0 {
		frames = DefaultTxQueueLen
	}
	if err := k.setTxQueue(d.name, frames); err != nil {
		d.txqErr = fmt.Errorf("set queue length of %s to %d frames: %w", d.name, frames, err)
	}
	for _, q := range d.queues {
		q.setCaps(d.caps)
	}
}

const (
	tso = sys.TUN_F_TSO4 | sys.TUN_F_TSO6
	uso = sys.TUN_F_USO4 | sys.TUN_F_USO6
)

// offload asks for less and less until the kernel agrees: it refuses all if it does
// not know one of the bits.
func (d *Device) offload(k *kernel) {
	fd := d.queues[0].fd
	if !d.caps.Vnet {
		// Superpackets without a header would be unreadable; whoever
		// opened the descriptor may have asked for them.
		_ = k.setOffload(fd, 0)
		return
	}
	for _, bits := range [...]uint{
		sys.TUN_F_CSUM | tso | uso,
		sys.TUN_F_CSUM | tso,
		sys.TUN_F_CSUM,
		0,
	} {
		if k.setOffload(fd, bits) == nil {
			d.caps.Csum, d.caps.TSO, d.caps.USO = bits&sys.TUN_F_CSUM != 0, bits&tso != 0, bits&uso != 0
			return
		}
	}
}

// openError says that /dev/net/tun cannot be opened; netns.TunError adds what to do.
func openError(err error) error { return fmt.Errorf("open %s: %w", sys.TunPath, err) }

// nameError says why the interface cannot be created, and what to do.
func nameError(name string, err error) error {
	switch {
	case errors.Is(err, sys.EPERM):
		return fmt.Errorf("create tap interface %q: %w: CAP_NET_ADMIN over the network namespace is needed", name, err)
	case errors.Is(err, sys.EBUSY):
		return fmt.Errorf("create tap interface %q: %w: the name is taken, choose another one", name, err)
	case errors.Is(err, sys.EINVAL):
		return fmt.Errorf("create tap interface %q: %w: the name is not possible, choose another one", name, err)
	}
	return fmt.Errorf("create tap interface %q: %w", name, err)
}

// Name is the interface's actual name.
func (d *Device) Name() string { return d.name }

// Caps are the offloads obtained; the same for all queues.
func (d *Device) Caps() Caps { return d.caps }

// Queues is the number of queues obtained.
func (d *Device) Queues() int { return len(d.queues) }

// Queue is the i-th queue, from 0, the Port of one shard.
func (d *Device) Queue(i int) *Queue { return d.queues[i] }

// TxQueueError says why the queue length could not be set, or is nil. The tap works
// nevertheless, but the kernel may drop from a burst of small packets of the guest.
// The ioctl needs CAP_NET_ADMIN in the initial user namespace (dev_ioctl); with that
// over the network namespace only, rtnetlink (IFLA_TXQLEN) works instead.
func (d *Device) TxQueueError() error { return d.txqErr }

// Close closes all queues; the interface goes with the last one unless it is
// persistent. A Queue that was closed by its owner is skipped.
func (d *Device) Close() error {
	var errs []error
	for _, q := range d.queues {
		errs = append(errs, q.Close())
	}
	return errors.Join(errs...)
}
