package tcpx

import (
	"io"
	"syscall"
	"testing"
	"time"

	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/test/guest"
)

// noAlloc fails the test if fn allocates, after a few runs to warm up.
func noAlloc(t *testing.T, what string, fn func()) {
	t.Helper()
	for range 10 {
		fn()
	}
	if n := testing.AllocsPerRun(200, fn); n != 0 {
		t.Errorf("%s allocates %v times", what, n)
	}
}

// template is a frame of the connection that is sent again and again with other
// numbers, without allocating.
type template struct {
	g     *guest.TCP
	bytes []byte
	one   [1]*ring.Frame
}

func newTemplate(g *guest.TCP, payload int) *template {
	return &template{g: g, bytes: g.Frame(wire.ACK, g.Seq, g.Ack, nil, make([]byte, payload))}
}

func (p *template) input(x *TCP, flags uint8, seq, ack uint32) {
	f := p.g.G.Env.Pool.Get()
	copy(f.Slot()[ring.HeadRoom:], p.bytes)
	f.SetBounds(ring.HeadRoom, len(p.bytes))
	wire.Parse(f.Bytes(), &f.H)
	th := f.Bytes()[f.H.L4:]
	putSeq(th[4:], seq)
	putSeq(th[8:], ack)
	th[13] = flags
	p.one[0] = f
	x.Input(p.one[:])
}

func putSeq(b []byte, v uint32) {
	b[0], b[1], b[2], b[3] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
}

func TestInputNoAlloc(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	go io.Copy(io.Discard, host)
	host.SetDeadline(time.Time{})
	p := newTemplate(g, 30000)
	r.Discard = true
	c := r.conn()
	noAlloc(t, "Input of data", func() {
		for int32(c.edge-c.rcvNxt) < 30000 || c.blocked {
			r.flush()
			r.Ready(r.tcp.Event)
		}
		p.input(r.tcp, wire.ACK, c.rcvNxt, g.Ack)
		r.flush()
	})
	p = newTemplate(g, 1)
	noAlloc(t, "Input out of order", func() {
		p.input(r.tcp, wire.ACK, c.rcvNxt+1, g.Ack)
		p.input(r.tcp, wire.ACK, c.rcvNxt, g.Ack)
		r.flush()
	})
	noAlloc(t, "Input out of the window", func() {
		p.input(r.tcp, wire.ACK, c.rcvNxt-5, g.Ack)
		p.input(r.tcp, wire.RST, c.rcvNxt+5, g.Ack)
		r.flush()
	})
}

// TestTailNoAlloc goes through a refused send, the tail and EPOLLOUT.
func TestTailNoAlloc(t *testing.T) {
	r := newRig(t, false, Config{MaxTail: 400_000})
	g, host := r.open()
	fd := descriptor(t, host)
	p := newTemplate(g, 20000)
	r.Discard = true
	c := r.conn()
	buf := make([]byte, 1<<20)
	noAlloc(t, "the tail", func() {
		for int32(c.edge-c.rcvNxt) >= 20000 {
			p.input(r.tcp, wire.ACK, c.rcvNxt, g.Ack)
			r.flush()
		}
		// What the host's end acknowledges may come with a later softirq.
		for int32(c.edge-c.rcvNxt) < 20000 {
			sys.Read(fd, buf)
			r.Ready(r.tcp.Event)
			r.flush()
		}
	})
	if r.Env.Count.TCPTailFrames == 0 {
		t.Error("no send was refused: not measured")
	}
}

// descriptor is that of a connection which the test keeps; it never blocks.
func descriptor(t *testing.T, c syscall.Conn) (fd int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(n uintptr) { fd = int(n) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestEventNoAlloc goes from EPOLLIN to the frames and the guest's
// acknowledgment.
func TestEventNoAlloc(t *testing.T) {
	bothFamilies(t, func(t *testing.T, v6 bool) {
		for _, noOff := range []bool{false, true} {
			r := newRig(t, v6, Config{NoPeekOff: noOff})
			g, host := r.open()
			host.SetDeadline(time.Time{})
			p := newTemplate(g, 0)
			r.Discard = true
			c := r.conn()
			msg := make([]byte, 3000)
			noAlloc(t, "Event with data", func() {
				host.Write(msg)
				want := c.max + 3000
				for c.max != want {
					r.Ready(r.tcp.Event)
					r.flush()
				}
				p.input(r.tcp, wire.ACK, c.rcvNxt, c.max)
				r.flush()
			})
		}
	})
}

func TestExpireNoAlloc(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	lose(t, r, g, host, 50_000)
	p := newTemplate(g, 0)
	r.Discard = true
	c := r.conn()
	noAlloc(t, "Expire", func() {
		r.Advance(61 * time.Second)
		r.tcp.Expire()
		r.flush()
		p.input(r.tcp, wire.ACK, c.rcvNxt, c.una) // it lives
		c.tries, c.lastData = 0, r.Env.Now
		r.tcp.Next()
	})
	if r.tcp.Len() != 1 {
		t.Error("flow ended")
	}
}

// TestFlowNoAlloc makes and ends flows: the guest's and the host's.
func TestFlowNoAlloc(t *testing.T) {
	r := newRig(t, false, Config{})
	g := r.dial()
	syn := g.Frame(wire.SYN, g.Seq, 0, g.SynOptions(), nil)
	p := &template{g: g, bytes: syn}
	r.Discard = true
	var sa sys.Sockaddr
	lfd := descriptor(t, r.ln)
	noAlloc(t, "a flow from the guest", func() {
		p.input(r.tcp, wire.SYN, g.Seq, 0)
		c := &r.tcp.conns[0]
		for c.state != synRcvd {
			r.Ready(r.tcp.Event)
		}
		r.flush()
		p.input(r.tcp, wire.ACK, g.Seq+1, c.max)
		r.flush()
		p.input(r.tcp, wire.RST, c.rcvNxt, 0)
		if fd, errno := sys.Accept(lfd, &sa); errno == 0 {
			sys.Close(fd)
		}
	})
	in := Inbound{Peer: g.Remote, Guest: g.Addr, PeerPort: 4000, GuestPort: 80}
	noAlloc(t, "Accept", func() {
		fd, _ := sys.Socket(sys.AF_INET, sys.SOCK_STREAM, sys.IPPROTO_TCP)
		if r.tcp.Accept(fd, in); r.tcp.Len() != 1 {
			t.Fatal("not accepted")
		}
		r.flush()
		r.tcp.endHost(&r.tcp.conns[0])
	})
	noAlloc(t, "a segment of no flow", func() { p.input(r.tcp, wire.ACK, 1, 1) })
}

// TestConnSize: an idle flow costs its record, a timer, a key and two index
// places, and no frame: the kernel's socket aside, under 2 KiB by far.
func TestConnSize(t *testing.T) {
	const record, key, timer = connSize, 56 + 8 + 4 + 32, 24
	if record > 512 {
		t.Errorf("a record of %d octets", record)
	}
	t.Logf("%d octets a flow", record+key+timer)
	r := newRig(t, false, Config{})
	free := r.Env.Pool.Free()
	r.open()
	if r.Env.Pool.Free() != free {
		t.Error("an idle flow holds a frame")
	}
}
