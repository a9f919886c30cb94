package tun

import (
	"bytes"
	"encoding/binary"
	"syscall"
	"testing"

	"penne/csum"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/tap/vnet"
)

var allCaps = Caps{Vnet: true, Csum: true, TSO: true, USO: true}

// double is a Queue over a socket pair that keeps message borders, as a tap
// does; peer is where the kernel would be.
type double struct {
	*Queue
	peer  int
	count stats.Counters
	pool  *ring.Pool
}

func newDouble(t testing.TB, c Caps) *double {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := &double{Queue: newQueue(fds[0]), peer: fds[1], pool: newPool(t, 128)}
	d.setCaps(c)
	d.SetCounters(&d.count)
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		sys.Close(d.peer)
	})
	return d
}

func newPool(t testing.TB, frames int) *ring.Pool {
	t.Helper()
	a, err := ring.NewArena(frames, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return ring.NewPool(a)
}

// give lets the queue's next read return b.
func (d *double) give(t testing.TB, b []byte) {
	t.Helper()
	if _, errno := sys.Write(d.peer, b); errno != 0 {
		t.Fatal(errno)
	}
}

// took is what the queue's last write gave.
func (d *double) took(t testing.TB) []byte {
	t.Helper()
	b := make([]byte, ring.SlotSize)
	n, errno := sys.Read(d.peer, b)
	if errno != 0 {
		t.Fatal(errno)
	}
	return b[:n]
}

var (
	macA, macB = wire.MAC{2, 0, 0, 0, 0, 1}, wire.MAC{2, 0, 0, 0, 0, 2}
	ipA        = wire.Addr4([]byte{192, 0, 2, 1})
	ipB        = wire.Addr4([]byte{192, 0, 2, 2})
	ip6A       = wire.Addr{0x20, 1, 0xd, 0xb8, 15: 1}
	ip6B       = wire.Addr{0x20, 1, 0xd, 0xb8, 15: 2}
)

// buildUDP makes f a datagram of n octets with a partial checksum, to be cut
// into datagrams of size octets if that is not 0.
func buildUDP(f *ring.Frame, src, dst *wire.Addr, n, size int) {
	ipLen := src.IPLen()
	b := f.Build(wire.EthLen+ipLen+wire.UDPLen, n)
	wire.PutEth(b, &macB, &macA, src.EtherType())
	wire.PutIP(b[wire.EthLen:], wire.UDPLen+n, wire.ProtoUDP, src, dst)
	u := b[wire.EthLen+ipLen:]
	binary.BigEndian.PutUint16(u, 5000)
	binary.BigEndian.PutUint16(u[2:], 7)
	binary.BigEndian.PutUint16(u[4:], uint16(wire.UDPLen+n))
	binary.BigEndian.PutUint16(u[6:], csum.Fold(wire.PseudoSum(src, dst, wire.ProtoUDP, wire.UDPLen+n)))
	p := f.PayloadArea()[:n]
	for i := range p {
		p[i] = byte(i*7 + i>>8)
	}
	f.Offload = ring.Offload{NeedsCsum: true, CsumStart: uint16(wire.EthLen + ipLen), CsumOffset: 6}
	if size != 0 {
		f.Offload.GSOType, f.Offload.GSOSize = ring.GSOUDPL4, uint16(size)
	}
}

func TestReceive(t *testing.T) {
	d := newDouble(t, allCaps)
	src := d.pool.Get()
	buildUDP(src, &ipA, &ipB, 3000, 1000)
	msg := make([]byte, vnet.HdrLen, vnet.HdrLen+src.Len())
	vnet.PutHeader(msg, src.Bytes(), &src.Offload)
	d.give(t, append(msg, src.Bytes()...))
	d.give(t, msg[:5])                                    // shorter than the header
	d.give(t, make([]byte, vnet.HdrLen+13))               // shorter than Ethernet
	d.give(t, append([]byte{0, 99}, make([]byte, 70)...)) // GSO type that is none
	d.give(t, make([]byte, ring.SlotSize))                // longer than a slot
	d.give(t, make([]byte, vnet.HdrLen+60))               // plain, unknown EtherType
	before, free := d.count, d.pool.Free()
	var b ring.Batch
	more, errno := d.Receive(&b, d.pool)
	if more || errno != 0 || b.N != 2 {
		t.Fatalf("more %v, %v, %d frames", more, errno, b.N)
	}
	f := b.F[0]
	if f.Offset() != ring.HeadRoom || !bytes.Equal(f.Bytes(), src.Bytes()) || f.Offload != src.Offload {
		t.Errorf("frame at %d, offload %+v, want %+v", f.Offset(), f.Offload, src.Offload)
	}
	if b.F[1].Len() != 60 || b.F[1].Offload != (ring.Offload{}) {
		t.Errorf("plain frame: %d octets, %+v", b.F[1].Len(), b.F[1].Offload)
	}
	if d.pool.Free() != free-2 {
		t.Errorf("%d frames lost from the pool", free-2-d.pool.Free())
	}
	want := before
	want.TapRxFrames, want.TapRxBytes = 2, uint64(src.Len()+60)
	want.Drops[stats.Truncated], want.Drops[stats.Malformed], want.Drops[stats.Oversize] = 2, 1, 1
	if d.count != want {
		t.Errorf("counters %+v", d.count)
	}
}

func TestReceiveWithoutHeader(t *testing.T) {
	d := newDouble(t, Caps{})
	d.give(t, bytes.Repeat([]byte{0xee}, 80))
	var b ring.Batch
	if more, errno := d.Receive(&b, d.pool); more || errno != 0 || b.N != 1 {
		t.Fatalf("more %v, %v, %d frames", more, errno, b.N)
	}
	if f := b.F[0]; f.Offset() != ring.HeadRoom || f.Len() != 80 || f.Offload != (ring.Offload{}) {
		t.Errorf("%d octets at %d", f.Len(), f.Offset())
	}
}

func TestReceiveStops(t *testing.T) {
	d := newDouble(t, allCaps)
	msg := make([]byte, vnet.HdrLen+60)
	for range ring.BatchSize + 1 {
		d.give(t, msg)
	}
	var b ring.Batch
	if more, errno := d.Receive(&b, d.pool); !more || errno != 0 || b.N != ring.BatchSize {
		t.Errorf("full batch: more %v, %v, %d frames", more, errno, b.N)
	}
	b = ring.Batch{}
	small := newPool(t, 1)
	if more, errno := d.Receive(&b, small); !more || errno != 0 || b.N != 1 || small.Free() != 0 {
		t.Errorf("empty pool: more %v, %v, %d frames", more, errno, b.N)
	}
	small.Put(b.F[0])
	b = ring.Batch{}
	if more, errno := d.Receive(&b, small); more || errno != 0 || b.N != 0 || small.Free() != 1 {
		t.Errorf("nothing waits: more %v, %v, %d frames, %d free", more, errno, b.N, small.Free())
	}
	q := newQueue(-1)
	if more, errno := q.Receive(&b, small); more || errno != sys.EBADF || small.Free() != 1 {
		t.Errorf("gone: more %v, %v", more, errno)
	}
}

func TestSendWhole(t *testing.T) {
	d := newDouble(t, allCaps)
	f := d.pool.Get()
	buildUDP(f, &ip6A, &ip6B, 3000, 1000)
	want := bytes.Clone(f.Bytes())
	d.Send([]*ring.Frame{f})
	msg := d.took(t)
	var o ring.Offload
	if !vnet.ParseHeader(msg, msg[vnet.HdrLen:], &o) || o != f.Offload || !bytes.Equal(msg[vnet.HdrLen:], want) {
		t.Errorf("offload %+v", o)
	}
	if got := binary.LittleEndian.Uint16(msg[2:]); got != wire.EthLen+wire.IPv6Len+wire.UDPLen {
		t.Errorf("hdr_len %d", got)
	}
	if d.count.TapTxFrames != 1 || d.count.TapTxBytes != uint64(len(want)) {
		t.Errorf("counted %d frames, %d octets", d.count.TapTxFrames, d.count.TapTxBytes)
	}
}

// TestSendSoftware sends a superpacket through each lack of offload and checks
// each segment as the guest would.
func TestSendSoftware(t *testing.T) {
	for _, c := range []struct {
		name string
		caps Caps
	}{
		{"no USO", Caps{Vnet: true, Csum: true, TSO: true}},
		{"no TSO", Caps{Vnet: true, Csum: true}},
		{"no checksum", Caps{Vnet: true}},
		{"no header", Caps{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDouble(t, c.caps)
			f := d.pool.Get()
			buildUDP(f, &ip6A, &ip6B, 2500, 1000)
			d.Send([]*ring.Frame{f})
			var got []byte
			for range 3 {
				got = append(got, checkSegment(t, d.took(t), d.hdrLen)...)
			}
			if !bytes.Equal(got, f.PayloadArea()[:2500]) {
				t.Error("payload differs")
			}
			if d.count.TapTxFrames != 3 {
				t.Errorf("%d frames counted", d.count.TapTxFrames)
			}
		})
	}
}

// checkSegment returns the payload of a datagram, its checksum verified.
func checkSegment(t *testing.T, msg []byte, hdrLen int) []byte {
	t.Helper()
	b := msg[hdrLen:]
	var o ring.Offload
	if hdrLen != 0 && !vnet.ParseHeader(msg, b, &o) {
		t.Fatal("header of a segment is malformed")
	}
	if o.GSOType != ring.GSONone || !vnet.Complete(b, &o) {
		t.Fatalf("offload of a segment: %+v", o)
	}
	var h wire.Headers
	if v := wire.Parse(b, &h); v != wire.OK {
		t.Fatalf("verdict %d", v)
	}
	s := wire.PseudoSum(&h.Src, &h.Dst, h.Proto, len(b)-int(h.L4))
	if csum.Fold(csum.Sum(b[h.L4:], s)) != 0xffff {
		t.Error("wrong checksum")
	}
	return b[h.Payload:]
}

func TestSendCompletesChecksum(t *testing.T) {
	d := newDouble(t, Caps{})
	f := d.pool.Get()
	buildUDP(f, &ipA, &ipB, 101, 0)
	d.Send([]*ring.Frame{f})
	if p := checkSegment(t, d.took(t), 0); len(p) != 101 {
		t.Errorf("%d octets", len(p))
	}
}

func TestSendErrors(t *testing.T) {
	full := newDouble(t, allCaps)
	f := full.pool.Get()
	buildUDP(f, &ipA, &ipB, 60000, 0)
	for full.count.Drops[stats.TapFull] == 0 {
		full.Send([]*ring.Frame{f})
	}

	gone := newQueue(-1)
	gone.setCaps(allCaps)
	gone.Send([]*ring.Frame{f, f})
	if gone.count.Drops[stats.TapError] != 2 {
		t.Errorf("%d errors of 2", gone.count.Drops[stats.TapError])
	}

	bad := newDouble(t, Caps{})
	f.Offload = ring.Offload{NeedsCsum: true, CsumStart: 65000}
	bad.Send([]*ring.Frame{f})
	f.Offload = ring.Offload{GSOType: ring.GSOTCPv6, GSOSize: 10}
	bad.Send([]*ring.Frame{f})
	if bad.count.Drops[stats.TapError] != 2 || bad.count.TapTxFrames != 0 {
		t.Errorf("%d errors of 2, %d sent", bad.count.Drops[stats.TapError], bad.count.TapTxFrames)
	}
}

func TestReceiveNoAlloc(t *testing.T) {
	d := newDouble(t, allCaps)
	msg := make([]byte, vnet.HdrLen+1514)
	var b ring.Batch
	noAlloc(t, func() {
		sys.Write(d.peer, msg)
		b.N = 0
		d.Receive(&b, d.pool)
		for _, f := range b.Frames() {
			d.pool.Put(f)
		}
	})
	if d.count.TapRxFrames == 0 {
		t.Error("nothing received")
	}
}

func TestSendNoAlloc(t *testing.T) {
	for _, c := range []Caps{allCaps, {Vnet: true, Csum: true}, {}} {
		d := newDouble(t, c)
		frames := []*ring.Frame{d.pool.Get()}
		sink := make([]byte, ring.SlotSize)
		noAlloc(t, func() {
			buildUDP(frames[0], &ipA, &ipB, 3000, 1400)
			d.Send(frames)
			for {
				if _, errno := sys.Read(d.peer, sink); errno != 0 {
					return
				}
			}
		})
		if d.count.TapTxFrames == 0 || d.count.Drops != [stats.NumReasons]uint64{} {
			t.Errorf("%+v: counters %+v", c, d.count)
		}
	}
}

func noAlloc(t *testing.T, f func()) {
	t.Helper()
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%v allocations a run", n)
	}
}
