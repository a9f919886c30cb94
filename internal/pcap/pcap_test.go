package pcap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/tap"
	"penne/test/needs"
)

// double is a port that takes everything and gives what waits.
type double struct {
	waiting []*ring.Frame
	sent    int
	errno   sys.Errno
	closed  bool
}

func (d *double) Send(frames []*ring.Frame) { d.sent += len(frames) }

func (d *double) Receive(b *ring.Batch, _ *ring.Pool) (bool, sys.Errno) {
	for _, f := range d.waiting {
		b.Add(f)
	}
	d.waiting = nil
	return true, d.errno
}

func (d *double) FD() int                     { return 77 }
func (d *double) SetCounters(*stats.Counters) {}
func (d *double) Close() error                { d.closed = true; return nil }

// frames builds count frames of n octets of payload, with the numbers first,
// first+1... in their first payload octets.
func frames(t testing.TB, count, n int, first uint32) []*ring.Frame {
	t.Helper()
	a, err := ring.NewArena(count, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	pool, out := ring.NewPool(a), make([]*ring.Frame, count)
	for i := range out {
		out[i] = pool.Get()
		wire.PutEth(out[i].Build(wire.EthLen, n), &wire.MAC{2}, &wire.MAC{4}, 0x88b5) // local experiments (IEEE 802)
		binary.BigEndian.PutUint32(out[i].PayloadArea(), first+uint32(i))
	}
	return out
}

type capture struct {
	*Sink
	path string
	port tap.Port
	tap  *double
}

func newCapture(t testing.TB) *capture {
	t.Helper()
	c := &capture{path: filepath.Join(t.TempDir(), "x.pcap"), tap: &double{}}
	var err error
	if c.Sink, err = Create(c.path, nil); err != nil {
		t.Fatal(err)
	}
	c.port = c.tee(t, c.tap)
	return c
}

func (c *capture) tee(t testing.TB, d *double) tap.Port {
	t.Helper()
	p, err := Tee(d, c.Sink)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// read returns the records of a capture as another implementation sees them.
func read(t testing.TB, b []byte) (records [][]byte) {
	t.Helper()
	r, err := pcapgo.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if r.LinkType() != layers.LinkTypeEthernet || r.Snaplen() != snapLen {
		t.Errorf("link type %v, snaplen %d", r.LinkType(), r.Snaplen())
	}
	for {
		data, ci, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return records
		}
		if err != nil {
			t.Fatalf("record %d: %v", len(records), err)
		}
		if ci.CaptureLength != ci.Length || time.Since(ci.Timestamp).Abs() > time.Hour {
			t.Errorf("record %d: %+v", len(records), ci)
		}
		records = append(records, data)
	}
}

func (c *capture) finish(t testing.TB) [][]byte {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(c.path)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, b)
}

// TestBytes compares the file's first record with one laid out by hand.
func TestBytes(t *testing.T) {
	var b bytes.Buffer
	b.Write(fileHeader())
	h := recordHeader(time.Unix(0x01020304, 5), 60)
	b.Write(h[:])
	want := []byte{0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0,
		4, 3, 2, 1, 5, 0, 0, 0, 60, 0, 0, 0, 60, 0, 0, 0}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("got  %x\nwant %x", b.Bytes(), want)
	}
}

func TestBothDirections(t *testing.T) {
	c := newCapture(t)
	c.Start()
	in, out := frames(t, 2, 46, 1), frames(t, 1, ring.MaxPayload, 3)
	c.tap.waiting = in
	var b ring.Batch
	more, errno := c.port.Receive(&b, nil)
	if !more || errno != 0 || b.N != 2 {
		t.Errorf("more %v, %v, %d frames", more, errno, b.N)
	}
	c.port.Send(out)
	if c.tap.sent != 1 {
		t.Errorf("%d frames sent", c.tap.sent)
	}
	got := c.finish(t)
	if len(got) != 3 || !bytes.Equal(got[0], in[0].Bytes()) || !bytes.Equal(got[1], in[1].Bytes()) || !bytes.Equal(got[2], out[0].Bytes()) {
		t.Errorf("%d records", len(got))
	}
}

// TestPassesOn: what the wrapper does not record it leaves to the port.
func TestPassesOn(t *testing.T) {
	c := newCapture(t)
	c.tap.errno = syscall.ENODEV
	var b ring.Batch
	if _, errno := c.port.Receive(&b, nil); errno != syscall.ENODEV {
		t.Errorf("errno %v", errno)
	}
	if c.port.FD() != 77 || c.port.Close() != nil || !c.tap.closed {
		t.Error("not the port's")
	}
	if got := c.finish(t); len(got) != 0 {
		t.Errorf("%d records", len(got))
	}
}

// TestManyShards: several shards write at once, over the ends of their buffers.
// Each one's frames are all there, whole and in order, or counted.
func TestManyShards(t *testing.T) {
	const shards, rounds, batch = 4, 200, 16
	c := newCapture(t)
	c.bufSize = 1 << 18 // some will be dropped
	ports := make([]tap.Port, shards)
	sets := make([][]*ring.Frame, shards)
	for i := range ports {
		ports[i] = c.tee(t, &double{})
		sets[i] = frames(t, batch, 3001+i, uint32(i)<<24)
	}
	c.Start()
	var wg sync.WaitGroup
	for i, p := range ports {
		wg.Go(func() {
			for range rounds {
				p.Send(sets[i])
				for _, f := range sets[i] {
					n := f.PayloadArea()
					binary.BigEndian.PutUint32(n, binary.BigEndian.Uint32(n)+batch)
				}
			}
		})
	}
	wg.Wait()
	var last [shards]uint32
	got := c.finish(t)
	for i, r := range got {
		n := binary.BigEndian.Uint32(r[wire.EthLen:])
		shard, seq := n>>24, n&0xffffff+1
		if shard >= shards || len(r) != wire.EthLen+3001+int(shard) || seq <= last[shard] {
			t.Fatalf("record %d: %d octets, number %x after %x", i, len(r), n, last)
		}
		last[shard] = seq
	}
	if n := uint64(len(got)) + c.Dropped(); n != shards*rounds*batch || len(got) == 0 {
		t.Errorf("%d records, %d dropped, of %d", len(got), c.Dropped(), shards*rounds*batch)
	}
}

// TestFull: nobody takes frames out of the buffer, and the shard goes on.
func TestFull(t *testing.T) {
	c := newCapture(t)
	set := frames(t, 1, ring.MaxPayload, 0)
	fit := bufferSize / (lenRecord + set[0].Len())
	for range fit + 5 {
		c.port.Send(set)
	}
	if c.Dropped() != 5 {
		t.Errorf("%d dropped", c.Dropped())
	}
	small := frames(t, 1, 46, 1)
	c.port.Send(small) // for this one there is room
	c.Start()
	if got := c.finish(t); len(got) != fit+1 || !bytes.Equal(got[fit], small[0].Bytes()) {
		t.Errorf("%d records", len(got))
	}
}

// full is a file that takes room octets and no more; part of a write may go in.
type full struct {
	room int
	got  bytes.Buffer
}

func (f *full) Write(b []byte) (int, error) {
	n := min(len(b), f.room)
	f.room -= n
	f.got.Write(b[:n])
	if n < len(b) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (f *full) Truncate(n int64) error { f.got.Truncate(int(n)); return nil }
func (f *full) Close() error           { return nil }

// TestNoSpace: the disk fills up; the file stays valid, the shard goes on.
func TestNoSpace(t *testing.T) {
	set := frames(t, 16, 46, 0)
	record := lenRecord + wire.EthLen + 46
	for _, c := range []struct {
		name       string
		room, want int
	}{
		{"within a record", lenFile + 20*record + 30, 20},
		{"within a header", lenFile + 20*record + 7, 20},
		{"between records", lenFile + 20*record, 20},
		{"at once", lenFile + 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &full{room: c.room}
			reason := make(chan error, 1)
			s, err := newSink(f, 4096, func(err error) { reason <- err })
			if err != nil {
				t.Fatal(err)
			}
			p, err := Tee(&double{}, s)
			if err != nil {
				t.Fatal(err)
			}
			s.Start()
			for range 100 {
				p.Send(set)
			}
			err = <-reason
			if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "the capture ends after") {
				t.Errorf("failed with %v", err)
			}
			for range 4 { // more than the buffer holds
				p.Send(set)
			}
			if s.Dropped() == 0 {
				t.Error("nothing dropped")
			}
			if err := s.Close(); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("closed with %v", err)
			}
			if got := read(t, f.got.Bytes()); len(got) != c.want {
				t.Errorf("%d records, want %d", len(got), c.want)
			}
		})
	}
	if _, err := newSink(&full{room: 5}, 4096, nil); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("no room for the header: %v", err)
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	if _, err := Create(dir, nil); err == nil || !strings.Contains(err.Error(), "create capture file") {
		t.Errorf("a directory: %v", err)
	}
	path := filepath.Join(dir, "old")
	if err := os.WriteFile(path, make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Create(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil { // never started
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || len(read(t, b)) != 0 {
		t.Errorf("%d octets, %v", len(b), err)
	}
}

func TestRecordNoAlloc(t *testing.T) {
	c := newCapture(t)
	c.Start()
	set := frames(t, 8, 1400, 0)
	var b ring.Batch
	if n := testing.AllocsPerRun(1000, func() {
		c.port.Send(set)
		c.tap.waiting, b.N = set, 0
		c.port.Receive(&b, nil)
	}); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
	c.finish(t)
}

// TestTools: the programs that people read captures with take ours.
func TestTools(t *testing.T) {
	c := newCapture(t)
	c.Start()
	for i := range 10 {
		c.port.Send(frames(t, 3, 46+i*4000, uint32(i)))
	}
	c.finish(t)
	for _, tool := range []struct {
		name, want string
		args       []string
	}{
		{"capinfos", "Number of packets:   30\n", []string{"-M", "-c"}},
		{"capinfos", "File encapsulation:  Ethernet\n", []string{"-E"}},
		{"tcpdump", "ethertype Unknown (0x88b5)", []string{"-n", "-r"}},
	} {
		t.Run(tool.name, func(t *testing.T) {
			needs.Program(t, tool.name)
			out, err := exec.Command(tool.name, append(tool.args, c.path)...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), tool.want) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// FuzzBuffer: any lengths, any turns of shard and writer give the records that
// were not dropped.
func FuzzBuffer(f *testing.F) {
	f.Add([]byte{0, 255, 10, 255, 255})
	f.Add(bytes.Repeat([]byte{200, 1, 77}, 40))
	f.Add(bytes.Repeat([]byte{252, 254}, 40))
	f.Fuzz(func(t *testing.T, script []byte) {
		b, err := newBuffer(4096)
		if err != nil {
			t.Fatal(err)
		}
		defer b.free()
		var want [][]byte
		out := &full{room: 1 << 30}
		out.got.Write(fileHeader())
		for i, op := range script {
			if op >= 250 {
				if _, err := b.writeTo(out); err != nil {
					t.Fatal(err)
				}
				continue
			}
			frame := bytes.Repeat([]byte{byte(i)}, 14+int(op)*7)
			h, dropped := recordHeader(time.Now(), len(frame)), b.dropped.Load()
			b.put(&h, frame)
			b.publish()
			if b.dropped.Load() == dropped {
				want = append(want, frame)
			}
		}
		if _, err := b.writeTo(out); err != nil || !b.empty() {
			t.Fatal(err)
		}
		got := read(t, out.got.Bytes())
		if len(got) != len(want) {
			t.Fatalf("%d records, want %d", len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("record %d differs", i)
			}
		}
	})
}
