package udpx

import (
	"testing"
	"time"

	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
)

// listenExclusive makes r listen with a socket that lets no other have its port, as
// one on a low port does.
func (r *rig) listenExclusive(fd int, l Listener) int32 {
	r.t.Helper()
	id := r.listen(fd, l)
	sys.ReuseAddress(fd, false)
	return id
}

// wantFlows fails unless there are n flows, of which sharers send through the
// socket of the listener id.
func (r *rig) wantFlows(id int32, n int, sharers int32) {
	r.t.Helper()
	if r.u.Len() != n || r.u.listeners[id].sharers != sharers {
		r.t.Fatalf("%d flows, %d share the listener's socket, want %d and %d", r.u.Len(), r.u.listeners[id].sharers, n, sharers)
	}
}

// TestSharedRows sends superpackets, runs and single datagrams of flows that
// share a socket and of one that does not in one batch.
func TestSharedRows(t *testing.T) {
	for _, segment := range []bool{true, false} {
		r, a, b, own := newRig(t), newServer(t, v4), newServer(t, v4), newServer(t, v4)
		r.u.segment = r.u.segment && segment
		fd, port := bound(t, "0.0.0.0")
		r.listenExclusive(fd, Listener{GuestPort: 53})
		for _, p := range []*server{a, b} {
			p.reply([]byte("?"), to("127.0.0.9", port))
			r.in()
		}
		super := v4.datagram(53, a.port(), pattern(1, 2500))
		super.Segment = 1000
		out := v4.datagram(20090, own.port(), []byte("own"))
		r.out(super, out, v4.datagram(53, b.port(), pattern(2, 70)), super, out, v4.datagram(53, b.port(), pattern(3, 70)))
		for range 2 {
			for _, piece := range [][]byte{pattern(1, 2500)[:1000], pattern(1, 2500)[1000:2000], pattern(1, 2500)[2000:]} {
				a.expect(piece)
			}
			own.expect([]byte("own"))
		}
		for i := range 2 {
			if from := b.expect(pattern(2+i, 70)); from != to("127.0.0.9", port) {
				t.Errorf("from %v", from)
			}
		}
		if n := r.Env.Count.UDPToHost; n != 10 {
			t.Errorf("%d datagrams counted, want 10", n)
		}
	}
}

// TestSharedExclusive: once a listener is known to be exclusive, flows do not even try to
// bind.
func TestSharedExclusive(t *testing.T) {
	r, peer := newRig(t), newServer(t, v4)
	fd, port := bound(t, "127.0.0.1")
	id := r.listen(fd, Listener{GuestPort: 53})
	r.u.listeners[id].exclusive = true
	peer.reply([]byte("?"), to("127.0.0.1", port))
	r.in()
	r.wantFlows(id, 1, 1)
}

// TestSharedEnds: a flow that shares a socket ends with its listener, or when its
// time is over, and the socket stays.
func TestSharedEnds(t *testing.T) {
	r, peer := newRig(t), newServer(t, v4)
	fd, port := bound(t, "127.0.0.1")
	id := r.listenExclusive(fd, Listener{GuestPort: 53})
	ask := func() {
		peer.reply([]byte("?"), to("127.0.0.1", port))
		r.in()
		r.wantFlows(id, 1, 1)
	}
	ask()
	r.Env.Now += int64(DefaultIdle) + int64(time.Second)
	r.u.Expire()
	r.wantFlows(id, 0, 0)
	ask()
	r.u.Unlisten(id)
	if r.u.Len() != 0 {
		t.Error("a flow without a socket goes on")
	}
	id = r.listenExclusive(fd, Listener{GuestPort: 53})
	ask()
	r.u.Close()
	if errno := sys.SocketError(fd); errno != 0 {
		t.Errorf("the listener's socket: %v", errno)
	}
}

// TestSharedForeignSource: an address that answers cannot leave from gives way
// to one that the kernel chooses.
func TestSharedForeignSource(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		r, peer := newRig(t), newServer(t, s)
		fd, port := bound(t, s.loopback)
		r.listenExclusive(fd, Listener{GuestPort: 53})
		peer.reply([]byte("?"), to(s.loopback, port))
		r.in()
		r.u.rec[0].from = wire.Addr{0x20, 1, 0xd, 0xb8, 15: 9}
		if s == v4 {
			r.u.rec[0].from = wire.Addr4([]byte{203, 0, 113, 9})
		}
		d := s.datagram(53, peer.port(), pattern(1, 50))
		r.out(d, d)
		for range 2 {
			if from := peer.expect(d.Payload); from != to(s.loopback, port) {
				t.Errorf("from %v", from)
			}
		}
	})
}

// TestSharedNoAlloc answers through the listener's socket.
func TestSharedNoAlloc(t *testing.T) {
	r, peer := newRig(t), newServer(t, v4)
	r.Discard = true
	fd, port := bound(t, "0.0.0.0")
	id := r.listenExclusive(fd, Listener{GuestPort: 53})
	raw, _ := peer.SyscallConn()
	k := row{SendRow: sys.NewSendRow(1, 1)}
	raw.Control(func(fd uintptr) { k.fd = int(fd) })
	loop := wire.Addr4([]byte{127, 0, 0, 1})
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(&loop), true, port, 0)
	sys.Connect(k.fd, &sa)
	k.Add(pattern(1, 100))
	tok := flow.NewToken(flow.KindListenUDP, 0, id)
	d := v4.datagram(53, peer.port(), pattern(1, 100))
	raw4, off := d.Bytes(), d.Offload()
	batch := make([]*ring.Frame, 3)
	drain := &sink{fd: k.fd, row: sys.NewRecvRow(1)}
	drain.row.SetBuf(0, drain.buf[:])
	noAlloc(t, "answering a peer", func() {
		k.Send(k.fd, 0)
		r.u.Event(tok, sys.EPOLLIN)
		for i := range batch {
			batch[i] = r.Frame(raw4, off)
		}
		r.u.Input(batch)
		r.Env.Out.Flush()
		drain.drain()
	})
	r.wantFlows(id, 1, 1)
	if n := r.Env.Count.UDPToHost; n < 200*3 {
		t.Errorf("only %d datagrams went out", n)
	}
}
