package udpx

import (
	"testing"
	"time"

	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
)

// listenAlone makes r listen with a socket that lets no other have its port, as
// one on a low port does.
func (r *rig) listenAlone(fd int, l Listener) int32 {
	r.t.Helper()
	id := r.listen(fd, l)
	sys.ReuseAddress(fd, false)
	return id
}

// wantShared fails unless there are n flows, all of which send through the
// listener id.
func (r *rig) wantShared(id, n int32) {
	r.t.Helper()
	if int32(r.u.Len()) != n || r.u.listeners[id].sharing != n {
		r.t.Fatalf("%d flows, %d share the listener's socket, want %d", r.u.Len(), r.u.listeners[id].sharing, n)
	}
}

// TestShared has flows of two peers share the listener's socket; answers leave
// from the address that was asked.
func TestShared(t *testing.T) {
	for _, c := range binds {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			fd, port := bound(t, c.listen)
			id := r.listenAlone(fd, Listener{GuestPort: 53})
			peers := []*server{newServer(t, c.s), newServer(t, c.s)}
			for i := range 3 {
				for _, peer := range peers {
					d := c.s.datagram(53, peer.port(), nil)
					peer.reply(pattern(i, 1000*i), to(c.dial, port))
					o := r.in()
					r.check(&o, back(d, pattern(i, 1000*i)))
					d.Payload = pattern(i, 20+i)
					r.out(d)
					if from := peer.expect(d.Payload); from != to(c.dial, port) {
						t.Errorf("answer comes from %v, want %v", from, to(c.dial, port))
					}
				}
			}
			r.wantShared(id, 2)
		})
	}
}

// TestSharedRows sends superpackets, runs and single datagrams of flows that
// share a socket and of one that does not in one batch.
func TestSharedRows(t *testing.T) {
	for _, segment := range []bool{true, false} {
		r, a, b, own := newRig(t), newServer(t, v4), newServer(t, v4), newServer(t, v4)
		r.u.segment = r.u.segment && segment
		fd, port := bound(t, "0.0.0.0")
		r.listenAlone(fd, Listener{GuestPort: 53})
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

// TestSharedAlone: once a port is known to be the listener's alone, flows do not
// even try.
func TestSharedAlone(t *testing.T) {
	r, peer := newRig(t), newServer(t, v4)
	fd, port := bound(t, "127.0.0.1")
	id := r.listen(fd, Listener{GuestPort: 53})
	r.u.listeners[id].alone = true
	peer.reply([]byte("?"), to("127.0.0.1", port))
	r.in()
	r.wantShared(id, 1)
}

// TestSharedEnds: a flow that shares a socket ends with its listener, or when its
// time is over, and the socket stays.
func TestSharedEnds(t *testing.T) {
	r, peer := newRig(t), newServer(t, v4)
	fd, port := bound(t, "127.0.0.1")
	id := r.listenAlone(fd, Listener{GuestPort: 53})
	ask := func() {
		peer.reply([]byte("?"), to("127.0.0.1", port))
		r.in()
		r.wantShared(id, 1)
	}
	ask()
	r.Env.Now += int64(DefaultIdle) + int64(time.Second)
	r.u.Expire()
	r.wantShared(id, 0)
	ask()
	r.u.Unlisten(id)
	if r.u.Len() != 0 {
		t.Error("a flow without a socket goes on")
	}
	id = r.listenAlone(fd, Listener{GuestPort: 53})
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
		r.listenAlone(fd, Listener{GuestPort: 53})
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
	id := r.listenAlone(fd, Listener{GuestPort: 53})
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
	r.wantShared(id, 1)
	if n := r.Env.Count.UDPToHost; n < 200*3 {
		t.Errorf("only %d datagrams went out", n)
	}
}
