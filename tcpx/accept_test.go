package tcpx

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard/flow"
	"penne/test/guest"
)

func (r *rig) inbound() (*guest.TCP, *net.TCPConn) {
	r.t.Helper()
	client, fd := r.connect(nil)
	g := r.dial()
	g.Port, g.RemotePort = 8080, uint16(client.LocalAddr().(*net.TCPAddr).Port)
	r.wrapSoon(g)
	before := r.tcp.Len()
	r.tcp.Accept(fd, Inbound{Peer: g.Remote, Guest: g.Addr, PeerPort: g.RemotePort, GuestPort: g.Port})
	if r.tcp.Len() != before+1 {
		r.t.Fatal("not accepted")
	}
	return g, client
}

// connect makes a connection from an address, or from any, and returns both ends.
func (r *rig) connect(from *net.TCPAddr) (client *net.TCPConn, accepted int) {
	r.t.Helper()
	client, err := net.DialTCP("tcp", from, r.ln.Addr().(*net.TCPAddr))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { client.Close() })
	client.SetReadDeadline(time.Now().Add(guest.Patience))
	raw, err := r.ln.AcceptTCP()
	if err != nil {
		r.t.Fatal(err)
	}
	if raw.RemoteAddr().String() != client.LocalAddr().String() {
		r.t.Fatal("another connection waits at the listener")
	}
	f, err := raw.File()
	if err != nil {
		r.t.Fatal(err)
	}
	raw.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	f.Close()
	if err != nil {
		r.t.Fatal(err)
	}
	sys.SetNonblock(fd)
	return client, fd
}

func TestAccept(t *testing.T) {
	bothFamilies(t, func(t *testing.T, v6 bool) {
		r := newRig(t, v6, Config{})
		g, client := r.inbound()
		syn := g.Next()
		if syn.Flags() != wire.SYN || !syn.Opts.HasWS || !syn.Opts.SACKOK || syn.Opts.MSS == 0 {
			t.Fatalf("flags %#x %+v", syn.Flags(), syn.Opts)
		}
		g.Ack = syn.Seq() + 1
		g.Raw(wire.SYN|wire.ACK, g.Seq, g.Ack, g.SynOptions(), nil)
		g.Seq++
		if s := g.Next(); s.Flags() != wire.ACK || s.TCP.Ack() != g.Seq || s.Seq() != g.Ack {
			t.Errorf("flags %#x ack %d", s.Flags(), s.TCP.Ack())
		}
		g.Send(wire.PSH, []byte("from inside"))
		b := make([]byte, 11)
		g.Pass()
		if _, err := io.ReadFull(client, b); err != nil || string(b) != "from inside" {
			t.Errorf("%q %v", b, err)
		}
		g.Got = nil
		client.Write([]byte("from outside"))
		if s := g.Next(); string(s.Data) != "from outside" {
			t.Errorf("%q", s.Data)
		}
	})
}

func TestAcceptRefused(t *testing.T) {
	r := newRig(t, false, Config{})
	g, client := r.inbound()
	syn := g.Next()
	g.Raw(wire.RST, 0, 0, nil, nil) // without ACK: not for this SYN
	g.Raw(wire.RST|wire.ACK, 0, syn.Seq(), nil, nil)
	if r.tcp.Len() != 1 {
		t.Fatal("a RST for something else counts")
	}
	g.Raw(wire.RST|wire.ACK, 0, syn.Seq()+1, nil, nil)
	if r.tcp.Len() != 0 {
		t.Fatal("flow stays")
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client read %v", err)
	}
}

func TestAcceptBadAck(t *testing.T) {
	r := newRig(t, false, Config{})
	g, _ := r.inbound()
	syn := g.Next()
	g.Raw(wire.SYN|wire.ACK, g.Seq, syn.Seq()+7, nil, nil)
	if s := g.Next(); s.Flags() != wire.RST || s.Seq() != syn.Seq()+7 {
		t.Errorf("flags %#x seq %d", s.Flags(), s.Seq())
	}
	g.Raw(wire.ACK, g.Seq, syn.Seq()+1, nil, nil)
	g.None()
	if r.conn().phase() != "SYN-SENT" {
		t.Error(r.conn().phase())
	}
}

func TestAcceptNobodyAnswers(t *testing.T) {
	r := newRig(t, false, Config{})
	g, client := r.inbound()
	syn := g.Next()
	for i := range maxSYNTries {
		r.Advance(time.Duration(rto(uint8(i))) + 10*time.Millisecond)
		if s := g.Next(); s.Flags() != wire.SYN || s.Seq() != syn.Seq() {
			t.Fatalf("flags %#x seq %d", s.Flags(), s.Seq())
		}
	}
	r.Advance(2 * time.Minute)
	g.Pass()
	if r.tcp.Len() != 0 {
		t.Error("flow stays")
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client read %v", err)
	}
}

func TestSimultaneousOpen(t *testing.T) {
	r := newRig(t, false, Config{})
	g, client := r.inbound()
	syn := g.Next()
	g.SYN() // the guest connects from the same port at the same time
	s := g.Next()
	if s.Flags() != wire.SYN|wire.ACK || s.Seq() != syn.Seq() || s.TCP.Ack() != g.Seq {
		t.Fatalf("flags %#x seq %d ack %d", s.Flags(), s.Seq(), s.TCP.Ack())
	}
	if r.conn().phase() != "SYN-RECEIVED" {
		t.Error(r.conn().phase())
	}
	g.Ack = syn.Seq() + 1
	g.Raw(wire.SYN|wire.ACK, g.Seq-1, g.Ack, g.SynOptions(), nil)
	g.Pass()
	if r.conn().phase() != "ESTABLISHED" {
		t.Error(r.conn().phase())
	}
	g.Got = nil
	client.Write([]byte("x"))
	if s := g.Next(); string(s.Data) != "x" {
		t.Errorf("%q", s.Data)
	}
}

func TestAcceptTaken(t *testing.T) {
	r := newRig(t, false, Config{})
	g, _ := r.inbound()
	fd, errno := sys.Socket(sys.AF_INET, sys.SOCK_STREAM, sys.IPPROTO_TCP)
	if errno != 0 {
		t.Fatal(errno)
	}
	in := Inbound{Peer: g.Remote, Guest: g.Addr, PeerPort: g.RemotePort, GuestPort: g.Port}
	if r.tcp.Accept(fd, in); r.tcp.Len() != 1 {
		t.Error("two flows between the same ends")
	}
	if sys.Close(fd) != sys.EBADF {
		t.Error("socket left open")
	}
	in.Guest = wire.Addr{}
	fd, _ = sys.Socket(sys.AF_INET, sys.SOCK_STREAM, sys.IPPROTO_TCP)
	if r.tcp.Accept(fd, in); r.tcp.Len() != 1 || sys.Close(fd) != sys.EBADF {
		t.Error("flow to nowhere")
	}
}

// TestAcceptStaleAck: a guest in TIME-WAIT answers the SYN for its old connection, which the RST ends. The SYN comes
// again at once, and a second time only by the clock.
func TestAcceptStaleAck(t *testing.T) {
	r := newRig(t, false, Config{})
	g, _ := r.inbound()
	syn := g.Next()
	g.Raw(wire.ACK, g.Seq, syn.Seq()-1000, nil, nil)
	if s := g.Next(); s.Flags() != wire.RST || s.Seq() != syn.Seq()-1000 {
		t.Errorf("flags %#x seq %d", s.Flags(), s.Seq())
	}
	r.Advance(time.Millisecond)
	if s := g.Next(); s.Flags() != wire.SYN || s.Seq() != syn.Seq() {
		t.Errorf("flags %#x seq %d", s.Flags(), s.Seq())
	}
	g.Raw(wire.ACK, g.Seq, syn.Seq()-1000, nil, nil)
	if s := g.Next(); s.Flags() != wire.RST {
		t.Errorf("flags %#x", s.Flags())
	}
	g.None()
}

// opens has the guest answer the SYN of the only flow, and send the client something.
func (r *rig) opens(g *guest.TCP, client io.Reader) {
	r.t.Helper()
	syn := g.Next()
	if syn.Flags() != wire.SYN || r.tcp.Len() != 1 {
		r.t.Fatalf("flags %#x, %d flows", syn.Flags(), r.tcp.Len())
	}
	g.Ack = syn.Seq() + 1
	g.Raw(wire.SYN|wire.ACK, g.Seq, g.Ack, g.SynOptions(), nil)
	g.Seq++
	g.Pass()
	g.Send(wire.PSH, []byte("hello"))
	g.Pass()
	b := make([]byte, 5)
	if _, err := io.ReadFull(client, b); err != nil || string(b) != "hello" {
		r.t.Errorf("%q %v", b, err)
	}
}

// TestAcceptAgain: a peer whose connection is over connects from the same port again, before the guest has acknowledged
// the end of the old one. A third one is refused.
func TestAcceptAgain(t *testing.T) {
	r := newRig(t, false, Config{})
	g, client := r.inbound()
	syn := g.Next()
	g.Ack = syn.Seq() + 1
	g.Raw(wire.SYN|wire.ACK, g.Seq, g.Ack, g.SynOptions(), nil)
	g.Seq++
	g.Send(wire.FIN, nil)
	g.Pass()
	if b, err := io.ReadAll(client); err != nil || len(b) != 0 {
		t.Fatalf("%q %v", b, err)
	}
	client.Write([]byte("last"))
	client.Close()
	g.Got = nil
	in := Inbound{Peer: g.Remote, Guest: g.Addr, PeerPort: g.RemotePort, GuestPort: g.Port}
	next, fd := r.connect(client.LocalAddr().(*net.TCPAddr))
	r.tcp.Accept(fd, in)
	third, errno := sys.Socket(sys.AF_INET, sys.SOCK_STREAM, sys.IPPROTO_TCP)
	if errno != 0 {
		t.Fatal(errno)
	}
	if r.tcp.Accept(third, in); r.tcp.Len() != 1 || sys.Close(third) != sys.EBADF {
		t.Error("a third connection waits as well")
	}
	if s := g.Next(); string(s.Data) != "last" || !s.Has(wire.FIN) {
		t.Fatalf("%q, flags %#x", s.Data, s.Flags())
	}
	g.Ack += uint32(len("last")) + 1
	g.Send(0, nil)
	r.opens(g, next)
}

// TestAcceptAgainAfterReset: a peer resets its connection and the next one, which waits for the end of the first, before
// the guest has answered. A third one from the same port takes the place of the second.
func TestAcceptAgainAfterReset(t *testing.T) {
	r := newRig(t, false, Config{})
	g, client := r.inbound()
	in := Inbound{Peer: g.Remote, Guest: g.Addr, PeerPort: g.RemotePort, GuestPort: g.Port}
	syn := g.Next()
	client.SetLinger(0)
	client.Close()
	second, waits := r.connect(client.LocalAddr().(*net.TCPAddr))
	r.tcp.Accept(waits, in)
	second.SetLinger(0)
	second.Close()
	third, fd := r.connect(client.LocalAddr().(*net.TCPAddr))
	r.tcp.Accept(fd, in)
	if sys.Close(waits) != sys.EBADF {
		t.Error("the second socket is left open")
	}
	g.Pass()
	g.Got = nil
	g.Raw(wire.SYN|wire.ACK, g.Seq, syn.Seq()+1, g.SynOptions(), nil)
	if s := g.Next(); s.Flags() != wire.ACK {
		t.Fatalf("flags %#x", s.Flags())
	}
	if s := g.Next(); !s.Has(wire.RST) {
		t.Fatalf("flags %#x", s.Flags())
	}
	r.opens(g, third)
}

// TestCloseResetsHeir: the end of the translator is that of a waiting connection.
func TestCloseResetsHeir(t *testing.T) {
	r := newRig(t, false, Config{})
	r.inbound()
	fd, errno := sys.Socket(sys.AF_INET, sys.SOCK_STREAM, sys.IPPROTO_TCP)
	if errno != 0 {
		t.Fatal(errno)
	}
	r.conn().heir = int32(fd)
	r.tcp.Close()
	if r.tcp.Len() != 0 || sys.Close(fd) != sys.EBADF {
		t.Errorf("%d flows, or the socket left open", r.tcp.Len())
	}
}

// TestAcceptAgainElsewhere: a peer uses its port again while another shard has the flow in TIME-WAIT.
func TestAcceptAgainElsewhere(t *testing.T) {
	const other = 3
	type handed struct {
		fd    int
		in    Inbound
		owner uint8
	}
	var got []handed
	r := newRig(t, false, Config{HandInbound: func(fd int, in Inbound, owner uint8) { got = append(got, handed{fd, in, owner}) }})
	r.Env.Directory = flow.NewDirectory(16)
	g := r.dial()
	in := Inbound{Peer: g.Remote, Guest: g.Addr, PeerPort: 1234, GuestPort: 80}
	key := flow.Key{Guest: in.Guest, Remote: in.Peer, GuestPort: in.GuestPort, RemotePort: in.PeerPort, Proto: wire.ProtoTCP}
	hash := r.tcp.table.Hash(&key)
	r.Env.Directory.Claim(hash, other)
	fd, errno := sys.Socket(sys.AF_INET, sys.SOCK_STREAM, sys.IPPROTO_TCP)
	if errno != 0 {
		t.Fatal(errno)
	}
	r.tcp.Accept(fd, in)
	in.Handed = true
	if want := (handed{fd, in, other}); len(got) != 1 || got[0] != want || r.tcp.Len() != 0 {
		t.Fatalf("handed on: %+v, want %+v; %d flows here", got, want, r.tcp.Len())
	}
	if r.tcp.Accept(fd, in); len(got) != 1 || sys.Close(fd) != sys.EBADF {
		t.Error("handed on twice, or left open")
	}
	r.Env.Directory.Release(hash, other)
}
