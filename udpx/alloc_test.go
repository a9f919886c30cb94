package udpx

import (
	"testing"

	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
	"penne/test/guest"
)

// noAlloc fails if f allocates.
func noAlloc(t *testing.T, what string, f func()) {
	t.Helper()
	f() // what grows once has grown
	if n := testing.AllocsPerRun(200, f); n != 0 {
		t.Errorf("%s allocates %v times", what, n)
	}
}

// sink is a socket of the host that is read without allocation.
type sink struct {
	fd  int
	buf [2048]byte
	row *sys.RecvRow
}

func newSink(t *testing.T, s side) (*sink, uint16) {
	fd, port := bound(t, s.loopback)
	k := &sink{fd: fd, row: sys.NewRecvRow(1)}
	k.row.SetBuf(0, k.buf[:])
	return k, port
}

// drain throws away what came.
func (k *sink) drain() {
	for {
		if _, errno := k.row.Recv(k.fd, 1); errno != 0 {
			return
		}
	}
}

func TestInputNoAlloc(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		r := newRig(t)
		k, port := newSink(t, s)
		single := s.datagram(20070, port, pattern(1, 1200))
		super := s.datagram(20070, port, pattern(1, 30000))
		super.Segment = 1000
		other := s.datagram(20071, port, pattern(1, 10))
		frames := []*guest.Datagram{single, single, single, other, super, single}
		var raw [][]byte
		for _, d := range frames {
			raw = append(raw, d.Bytes())
		}
		batch := make([]*ring.Frame, 0, len(frames))
		noAlloc(t, "Input", func() {
			batch = batch[:0]
			for i, d := range frames {
				batch = append(batch, r.Frame(raw[i], d.Offload()))
			}
			r.u.Input(batch)
			k.drain()
		})
		if n := r.Env.Count.UDPToHost; n < 200*35 {
			t.Errorf("only %d datagrams went out", n)
		}
	})
}

// TestEventNoAlloc receives single datagrams, merged ones and long ones.
func TestEventNoAlloc(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		r, srv := newRig(t), newServer(t, s)
		r.Discard = true
		rules := *r.Env.Rules
		rules.MTU = 1500
		r.Env.Rules = &rules
		r.out(s.datagram(20072, srv.port(), []byte("x")))
		peer := srv.expect([]byte("x"))
		k := r.connected(srv, peer.Port(), s)
		before := r.Env.Count.UDPToGuest
		tok := flow.NewToken(flow.KindUDP, r.u.table.Gen(0), 0)
		noAlloc(t, "Event", func() {
			for from := 0; from < k.Len(); {
				n, errno := k.Send(k.fd, from)
				if errno != 0 {
					t.Fatal(errno)
				}
				from += n
			}
			r.u.Event(tok, sys.EPOLLIN)
			r.Env.Out.Flush()
		})
		if n := r.Env.Count.UDPToGuest - before; n < 200*32 {
			t.Errorf("only %d datagrams came in", n)
		}
	})
}

// row is a packed send row and the socket for it.
type row struct {
	*sys.SendRow
	fd int
}

// connected is srv, connected to the flow on host port port, with one datagram
// of each kind to send to it.
func (r *rig) connected(srv *server, port uint16, s side) row {
	r.t.Helper()
	raw, err := srv.SyscallConn()
	if err != nil {
		r.t.Fatal(err)
	}
	k := row{SendRow: sys.NewSendRow(4, 4)}
	raw.Control(func(fd uintptr) { k.fd = int(fd) })
	to := r.u.rec[0].peer
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(&to), s == v4, port, 0)
	if errno := sys.Connect(k.fd, &sa); errno != 0 {
		r.t.Fatal(errno)
	}
	k.Add(pattern(1, 100))
	k.Add(pattern(2, 30000))
	if r.u.segment {
		k.Segment(1000)
	}
	k.Add(pattern(3, 4000))
	k.Add(nil)
	return k
}

// TestOpenNoAlloc makes and ends flows.
func TestOpenNoAlloc(t *testing.T) {
	r := newRig(t)
	k, port := newSink(t, v4)
	d := v4.datagram(20073, port, []byte("x"))
	raw, off := d.Bytes(), d.Offload()
	batch := make([]*ring.Frame, 1)
	noAlloc(t, "opening a flow", func() {
		batch[0] = r.Frame(raw, off)
		r.u.Input(batch)
		k.drain()
		r.u.drop(0)
	})
	if n := r.Env.Count.UDPClosed; n < 200 {
		t.Errorf("only %d flows were made", n)
	}
}

// TestFaultNoAlloc takes ICMP errors of the host to the guest.
func TestFaultNoAlloc(t *testing.T) {
	r := newRig(t)
	r.Discard = true
	d := v4.datagram(20074, closedPort(t, v4), []byte("x"))
	raw, off := d.Bytes(), d.Offload()
	batch := make([]*ring.Frame, 1)
	tok := flow.NewToken(flow.KindUDP, 0, 0)
	noAlloc(t, "reporting an error", func() {
		batch[0] = r.Frame(raw, off)
		r.u.Input(batch)
		r.u.Event(tok, sys.EPOLLERR)
		r.u.Expire()
		r.Env.Out.Flush()
	})
	if n := r.Env.Count.UDPToHost; n < 200 {
		t.Errorf("only %d datagrams went out", n)
	}
}

// TestInboundNoAlloc makes flows from the host's side.
func TestInboundNoAlloc(t *testing.T) {
	r, peer := newRig(t), newServer(t, v4)
	r.Discard = true
	fd, port := bound(t, "0.0.0.0")
	id := r.listen(fd, Listener{GuestPort: 7010})
	raw, _ := peer.SyscallConn()
	k := row{SendRow: sys.NewSendRow(1, 1)}
	raw.Control(func(fd uintptr) { k.fd = int(fd) })
	loop := wire.Unspecified(true)
	copy(loop[12:], []byte{127, 0, 0, 1})
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(&loop), true, port, 0)
	sys.Connect(k.fd, &sa)
	k.Add(pattern(1, 100))
	tok := flow.NewToken(flow.KindListenUDP, 0, id)
	noAlloc(t, "an inbound flow", func() {
		k.Send(k.fd, 0)
		r.u.Event(tok, sys.EPOLLIN)
		r.Env.Out.Flush()
		r.u.drop(0)
	})
}
