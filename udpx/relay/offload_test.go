package relay

import (
	"bytes"
	"testing"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
)

// sender is a connected socket that sends rows of datagrams as one message.
type sender struct {
	bound
	row *sys.SendRow
	t   testing.TB
}

func newSender(t testing.TB, ip string, to uint16) *sender {
	t.Helper()
	s := &sender{bind(t, ip, 0), sys.NewSendRow(64, 64), t}
	connect(t, s.fd, ip, to)
	return s
}

func connect(t testing.TB, fd int, ip string, port uint16) {
	t.Helper()
	a := addrOf(ip)
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(&a), a.Is4(), port, 0)
	if errno := sys.Connect(fd, &sa); errno != 0 {
		t.Fatalf("connect: %v", errno)
	}
}

// segmented sends p as datagrams of size octets with one UDP_SEGMENT message.
func (s *sender) segmented(p []byte, size int) {
	s.t.Helper()
	s.row.Reset()
	s.row.Add(p)
	s.row.Segment(uint16(size))
	if n, errno := s.row.Send(s.fd, 0); n != 1 {
		s.t.Skipf("this kernel cannot segment datagrams: %v", errno)
	}
}

// collector is a socket that takes rows of datagrams as one message.
type collector struct {
	bound
	in *sys.RecvRow
	b  *rig
}

func (b *rig) collector(at bound, gro bool) *collector {
	b.t.Helper()
	c := &collector{bound: at, in: sys.NewRecvRow(64), b: b}
	for i := range 64 {
		c.in.SetBuf(i, make([]byte, 65535))
	}
	if gro && sys.EnableUDPGRO(c.fd) != 0 {
		b.t.Skip("this kernel cannot merge datagrams")
	}
	sys.SetReceiveBuffer(c.fd, raisedBuffer)
	return c
}

// take lets the relay work until so many octets are here, and receives them:
// the octets, the length of each datagram, and the number of messages.
func (c *collector) take(octets int) (all []byte, lens []int, messages int) {
	c.b.t.Helper()
	c.b.watching(c.fd, func() bool {
		n, errno := c.in.Recv(c.fd, 64)
		if errno != 0 && errno != sys.EAGAIN {
			c.b.t.Fatal(errno)
		}
		for i := range n {
			b, size := c.in.Data(i), c.in.Segment(i)
			all = append(all, b...)
			messages++
			for size > 0 && len(b) > size {
				lens, b = append(lens, size), b[size:]
			}
			lens = append(lens, len(b))
		}
		return len(all) >= octets
	})
	return all, lens, messages
}

// expect fails unless p came, as datagrams of size octets.
func (c *collector) expect(p []byte, size int) (messages int) {
	c.b.t.Helper()
	all, lens, messages := c.take(len(p))
	if !bytes.Equal(all, p) {
		c.b.t.Fatalf("%d octets came, want %d, or they have changed", len(all), len(p))
	}
	for i, n := range lens {
		if want := min(size, len(p)-i*size); n != want {
			c.b.t.Fatalf("datagram %d of %d is %d octets long, want %d", i, len(lens), n, want)
		}
	}
	return messages
}

// path is a relay between a sender and a collector, both able to segment.
type path struct {
	*rig
	peer    *sender
	service *collector
}

func newPath(t testing.TB, ip string, gro bool) *path {
	t.Helper()
	b := newRig(t, 4)
	at, service := bind(t, ip, 0), bind(t, ip, 0)
	if _, err := b.r.Serve(Listener{FD: at.fd, Target: service.port, To: &Host}); err != nil {
		t.Fatal(err)
	}
	p := &path{b, newSender(t, ip, at.port), b.collector(service, gro)}
	p.peer.row.Add([]byte("x")) // opens the flow
	p.peer.row.Send(p.peer.fd, 0)
	p.service.take(1)
	_, port, _, _ := p.service.in.From(0).Inet()
	connect(t, service.fd, ip, port)
	return p
}

func TestMergedDatagramsStayMerged(t *testing.T) {
	for _, ip := range loopbacks {
		for _, size := range []int{1, 100, 1400, 8972, 30000} {
			p := newPath(t, ip, true)
			there := payload(min(size*40+size/2, 60000), 1)
			p.peer.segmented(there, size)
			if n := p.service.expect(there, size); n != 1 {
				t.Errorf("%s: row of datagrams of %d octets came as %d messages", ip, size, n)
			}
			// And back, through the listener.
			back := sender{p.service.bound, sys.NewSendRow(1, 1), t}
			back.segmented(there, size)
			if n := p.collector(p.peer.bound, false).expect(there, size); n != (len(there)+size-1)/size {
				t.Errorf("%s: a peer that does not merge got %d messages", ip, n)
			}
			p.drops(stats.NumReasons, 0)
		}
	}
}

func TestRunsOfDatagramsBecomeRows(t *testing.T) {
	p := newPath(t, "127.0.0.1", true)
	lens := []int{500, 500, 500, 200, 500, 0, 0, 700, 700, 300, 300, 701, 1, 2}
	var all []byte
	p.peer.row.Reset()
	for i, n := range lens {
		b := payload(n, byte(i))
		all = append(all, b...)
		p.peer.row.Add(b)
	}
	if n, errno := p.peer.row.Send(p.peer.fd, 0); n != len(lens) {
		t.Fatalf("sent %d, %v", n, errno)
	}
	got, gotLens, messages := p.service.take(len(all))
	if !bytes.Equal(got, all) {
		t.Fatal("octets have changed")
	}
	if len(gotLens) != len(lens) {
		t.Fatalf("datagrams of %v octets, want %v", gotLens, lens)
	}
	for i, n := range gotLens {
		if n != lens[i] {
			t.Fatalf("datagrams of %v octets, want %v", gotLens, lens)
		}
	}
	if messages >= len(lens) {
		t.Errorf("%d messages for %d datagrams", messages, len(lens))
	}
}

func TestLongRunsAreCutToWhatOneMessageHolds(t *testing.T) {
	for _, size := range []int{1, 1400, 9000} {
		p := newPath(t, "::1", true)
		const count = 60
		all := payload(size*count, 3)
		for i := 0; i < count; i += 10 {
			p.peer.row.Reset()
			for k := i; k < i+10; k++ {
				p.peer.row.Add(all[k*size : (k+1)*size])
			}
			p.peer.row.Send(p.peer.fd, 0)
			p.service.expect(all[i*size:(i+10)*size], size)
		}
		p.drops(stats.NumReasons, 0)
	}
}

func TestSingleDatagramsWhereTheKernelDoesNotSegment(t *testing.T) {
	p := newPath(t, "127.0.0.1", false)
	p.r.segment = false
	there := payload(100*64+7, 1) // more datagrams than a row has room for
	p.peer.segmented(there, 100)
	p.service.expect(there, 100)
	p.drops(stats.NumReasons, 0)
}

func TestRefusedSegmentationIsSentAgainSingly(t *testing.T) {
	b := newRig(t, 1)
	from, to := bind(t, "127.0.0.1", 0), b.collector(bind(t, "127.0.0.1", 0), false)
	connect(t, from.fd, "127.0.0.1", to.port)
	all := payload(1000*5+10, 2)
	// More datagrams than a message may carry is what every kernel refuses.
	b.r.out.begin(from.fd, nil, 65535)
	b.r.addMerged(all, 1000)
	b.r.out.row.Segment(1)
	b.r.flush()
	to.expect(all, 1000)
	if b.r.out.segMax != 999 {
		t.Errorf("segments of %d octets are still tried", b.r.out.segMax)
	}
	if n := b.Env.Count.SplicedBytes; n != uint64(len(all)) {
		t.Errorf("%d octets counted of %d", n, len(all))
	}
	b.drops(stats.NumReasons, 0)
}

func addrOf(ip string) wire.Addr { return wire.AddrFrom(parse(ip)) }
