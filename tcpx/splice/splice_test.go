package splice

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard/flow"
	"penne/test/guest"
)

// bench is a relay between a client, which dials front, and a server behind
// back, both real sockets on the loopback.
type bench struct {
	t           *testing.T
	g           *guest.Guest
	r           *Relay
	front, back *net.TCPListener
}

func newBench(t *testing.T) *bench {
	g := guest.New(t, 64)
	b := &bench{t: t, g: g, r: New(g.Env, 4), front: listen(t), back: listen(t)}
	t.Cleanup(b.r.Close)
	return b
}

func listen(t *testing.T) *net.TCPListener {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	patient(t, l)
	return l
}

// patient makes what waits for ever fail instead.
func patient(t *testing.T, c interface{ SetDeadline(time.Time) error }) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(guest.Patience)); err != nil {
		t.Fatal(err)
	}
}

// open dials front and lets the relay join that connection to port; the
// server's end is not accepted yet.
func (b *bench) open(port uint16) *net.TCPConn {
	client, err := net.DialTCP("tcp4", nil, b.front.Addr().(*net.TCPAddr))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { client.Close() })
	patient(b.t, client)
	conn, err := b.front.AcceptTCP()
	if err != nil {
		b.t.Fatal(err)
	}
	b.r.Open(dup(b.t, conn), dial(b.t, port))
	return client
}

// dup takes the descriptor out of the Go runtime's hands.
func dup(t *testing.T, c *net.TCPConn) int {
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	return fd
}

func dial(t *testing.T, port uint16) int {
	fd, errno := sys.Socket(sys.AF_INET, sys.SOCK_STREAM, sys.IPPROTO_TCP)
	if errno != 0 {
		t.Fatal(errno)
	}
	ip := wire.AddrFrom(netip.MustParseAddr("127.0.0.1"))
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(&ip), true, port, 0)
	if errno := sys.Connect(fd, &sa); errno != 0 && errno != sys.EINPROGRESS {
		t.Fatal(errno)
	}
	return fd
}

func (b *bench) serve() *net.TCPConn {
	c, err := b.back.AcceptTCP()
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	patient(b.t, c)
	return c
}

// run steps the relay until done is closed or no connection is left.
func (b *bench) run(done <-chan struct{}) {
	for b.r.Len() > 0 {
		select {
		case <-done:
			return
		default:
		}
		if b.r.Pending() {
			b.g.Ready(b.r.Event)
		} else {
			b.g.Wait(b.r.Event)
		}
		b.r.Flush()
	}
}

func port(l *net.TCPListener) uint16 { return l.Addr().(*net.TCPAddr).AddrPort().Port() }

func TestBothWaysAtOnceWithHalfClose(t *testing.T) {
	b := newBench(t)
	client := b.open(port(b.back))
	server := b.serve()
	up, down := make([]byte, 4<<20), make([]byte, 6<<20)
	rand.Read(up)
	rand.Read(down)
	got := make(chan []byte, 2)
	for _, end := range []struct {
		c    *net.TCPConn
		send []byte
	}{{client, up}, {server, down}} {
		go func() {
			end.c.Write(end.send)
			end.c.CloseWrite()
		}()
		go func() {
			all, err := io.ReadAll(end.c)
			if err != nil {
				t.Error(err)
			}
			got <- all
		}()
	}
	b.run(nil) // ends when both directions have been closed
	for range 2 {
		if all := <-got; !bytes.Equal(all, up) && !bytes.Equal(all, down) {
			t.Fatalf("%d octets arrived changed", len(all))
		}
	}
	if b.r.Len() != 0 {
		t.Fatalf("%d connections left", b.r.Len())
	}
}

func TestHalfCloseKeepsTheOtherWayOpen(t *testing.T) {
	b := newBench(t)
	client := b.open(port(b.back))
	server := b.serve()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		question, _ := io.ReadAll(server) // returns when the client has half-closed
		server.Write(append([]byte("re: "), question...))
		server.Close()
	}()
	client.Write([]byte("hello"))
	client.CloseWrite()
	b.run(nil)
	<-answered
	if answer, err := io.ReadAll(client); err != nil || string(answer) != "re: hello" {
		t.Fatalf("answer %q, %v", answer, err)
	}
}

func TestResetIsCarriedOver(t *testing.T) {
	for _, from := range []string{"client", "server"} {
		b := newBench(t)
		client := b.open(port(b.back))
		server := b.serve()
		killer, victim := client, server
		if from == "server" {
			killer, victim = server, client
		}
		// Bytes first, so that the connection is known to be up.
		killer.Write([]byte("x"))
		arrived := make(chan struct{})
		go func() {
			io.ReadFull(victim, make([]byte, 1))
			killer.SetLinger(0)
			killer.Close()
			close(arrived)
		}()
		b.run(nil)
		<-arrived
		if _, err := victim.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("reset by %s is seen as %v", from, err)
		}
	}
}

func TestRefusalResetsTheClient(t *testing.T) {
	b := newBench(t)
	unused := listen(t)
	closed := port(unused)
	unused.Close()
	client := b.open(closed)
	b.run(nil)
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("a refused connection is seen as %v", err)
	}
}

func TestFullRelayRefuses(t *testing.T) {
	b := newBench(t)
	for range 4 {
		b.open(port(b.back))
	}
	client := b.open(port(b.back))
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the fifth of four is seen as %v", err)
	}
	if b.r.Len() != 4 {
		t.Fatalf("%d connections", b.r.Len())
	}
}

func TestIdleConnectionHoldsNoPipe(t *testing.T) {
	b := newBench(t)
	client := b.open(port(b.back))
	server := b.serve()
	done := make(chan struct{})
	go func() {
		client.Write(make([]byte, 1<<20))
		io.ReadFull(server, make([]byte, 1<<20))
		close(done)
		client.Write([]byte("x")) // an event, so that run looks at done
	}()
	b.run(done)
	b.g.Ready(b.r.Event)
	for i := range b.r.conns {
		for side := range b.r.conns[i].ways {
			if w := &b.r.conns[i].ways[side]; w.hasPipe && w.inPipe == 0 {
				t.Fatal("an empty way holds a pipe")
			}
		}
	}
}

// TestTrimReturnsPipes: what a burst left is closed, and the next one gets new ones.
func TestTrimReturnsPipes(t *testing.T) {
	b := newBench(t)
	client, server := b.pair()
	for range 2 {
		b.exchange(client, server, 1<<20)
		idle := slices.Clone(b.r.pipes.idle)
		if len(idle) == 0 {
			t.Fatal("no pipe was used")
		}
		b.r.Trim()
		for _, p := range idle {
			if r, w := sys.Close(p.r), sys.Close(p.w); r != sys.EBADF || w != sys.EBADF {
				t.Errorf("pipe left open: %v, %v", r, w)
			}
		}
	}
	b.finish(client, server)
}

// descriptor is that of a connection which the test keeps; it never blocks.
func descriptor(t *testing.T, c *net.TCPConn) (fd int) {
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(n uintptr) { fd = int(n) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestMoveNoAlloc(t *testing.T) {
	b := newBench(t)
	client := b.open(port(b.back))
	server := b.serve()
	buf := make([]byte, 1000)
	step := func(tok flow.Token, bits uint32) { b.r.Event(tok, bits) }
	b.g.Wait(step)
	fd, end := descriptor(t, server), time.Now().Add(guest.Patience)
	if n := testing.AllocsPerRun(200, func() {
		client.Write(buf)
		for got := 0; got < len(buf) && time.Now().Before(end); {
			b.g.Ready(step)
			if n, errno := sys.Read(fd, buf[got:]); errno == 0 {
				got += n
			}
		}
	}); n != 0 {
		t.Fatalf("%v allocations a step", n)
	}
	if time.Now().After(end) {
		t.Fatal("the octets did not come")
	}
}
