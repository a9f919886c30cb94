package udpx

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
	"penne/test/guest"
)

// msg is one send of the host's: octets, as datagrams of segment octets each if
// that is not 0.
type msg struct{ octets, segment int }

func single(sizes ...int) (ms []msg) {
	for _, n := range sizes {
		ms = append(ms, msg{octets: n})
	}
	return ms
}

// times is n datagrams of size octets.
func times(n, size int) []msg { return single(slices.Repeat([]int{size}, n)...) }

func join(rows ...[]msg) []msg { return slices.Concat(rows...) }

// from opens a flow to srv, and is ready to receive a whole row from it.
func (r *rig) from(srv *server, s side, port uint16) (d *guest.Datagram, peer netip.AddrPort) {
	r.t.Helper()
	d = s.datagram(port, srv.port(), []byte("x"))
	r.out(d)
	peer = srv.expect(d.Payload)
	r.u.rec[r.u.lastSlot].want = recvRow
	return d, peer
}

// sendAll sends what ms says and returns the datagrams.
func (s *server) sendAll(ms []msg, peer netip.AddrPort) (all [][]byte) {
	s.t.Helper()
	for i, m := range ms {
		b, size := pattern(i, m.octets), m.octets
		if m.segment != 0 {
			size = m.segment
			s.sendSegmented(b, size, peer)
			s.segmentBy(0)
		} else {
			s.reply(b, peer)
		}
		all = append(all, b[:min(size, len(b))])
		for len(b) > size {
			b = b[size:]
			all = append(all, b[:min(size, len(b))])
		}
	}
	return all
}

func TestRowsBecomeSuperpackets(t *testing.T) {
	for _, c := range []struct {
		name string
		sent []msg
		// want are the datagrams of each frame.
		want []int
	}{
		{"equal", times(20, 1000), []int{20}},
		{"alone", single(1000), []int{1}},
		{"last shorter", join(times(9, 1000), single(1)), []int{10}},
		{"shorter in the middle", join(times(5, 1000), single(999), times(5, 1000)), []int{6, 5}},
		{"longer in the middle", join(times(5, 1000), single(1001), times(5, 1000)), []int{5, 2, 4}},
		{"much longer in the middle", join(times(5, 1000), single(60000), times(5, 1000)), []int{5, 2, 4}},
		{"alternating", single(5, 6, 5, 6, 5, 6), []int{1, 2, 2, 1}},
		{"growing", single(1, 2, 3, 4), []int{1, 1, 1, 1}},
		{"shrinking", single(4, 3, 2, 1), []int{2, 2}},
		{"empty", times(3, 0), []int{1, 1, 1}},
		{"empty in the middle", join(times(3, 10), single(0), times(3, 10)), []int{3, 1, 3}},
		{"one octet each", times(20, 1), []int{20}},
		{"as much as IPv4 carries", join(times(15, 4000), times(3, 4000)), []int{16, 2}},
		{"too long to copy", times(3, maxCopy+1), []int{1, 1, 1}},
		{"as long as is copied", times(4, maxCopy), []int{3, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachSide(t, func(t *testing.T, s side) {
				r, srv := newRig(t), newServer(t, s)
				d, peer := r.from(srv, s, 20110)
				sent := srv.sendAll(c.sent, peer)
				r.Wait(r.u.Event)
				r.Env.Out.Flush()
				frames := r.Take()
				if len(frames) != len(c.want) {
					t.Fatalf("%d frames, want %d", len(frames), len(c.want))
				}
				for i, n := range c.want {
					r.checkRun(&frames[i], d, sent[:n])
					sent = sent[n:]
				}
				if n := r.Env.Count.UDPToGuest; n != uint64(len(c.sent)) {
					t.Errorf("%d datagrams counted, want %d", n, len(c.sent))
				}
			})
		})
	}
}

// checkRun fails unless o carries these datagrams to the guest.
func (r *rig) checkRun(o *guest.Out, d *guest.Datagram, want [][]byte) {
	r.t.Helper()
	r.check(o, back(d, bytes.Join(want, nil)))
	off := o.Offload
	switch {
	case len(want) == 1 && off.GSOType != ring.GSONone:
		r.t.Fatalf("offload %+v for one datagram", off)
	case len(want) > 1 && (off.GSOType != ring.GSOUDPL4 || int(off.GSOSize) != len(want[0])):
		r.t.Fatalf("offload %+v, want USO of %d octets", off, len(want[0]))
	}
}

// TestMergedJoinRuns mixes what the kernel merged with single datagrams. How it
// merges is the kernel's choice; what it merged stays together.
func TestMergedJoinRuns(t *testing.T) {
	for _, c := range []struct {
		name string
		sent []msg
		most int // frames
	}{
		{"equal", join(times(3, 1000), []msg{{5000, 1000}}, times(3, 1000)), 1},
		{"odd end", join(times(3, 1000), []msg{{5001, 1000}}, times(3, 1000)), 2},
		{"other length", join(times(3, 1000), []msg{{5000, 500}}, times(3, 500)), 2},
		{"more than 64", join([]msg{{600, 10}}, times(6, 10)), 2},
		{"too long to copy", []msg{{20000, 1000}, {20000, 1000}}, 2},
		{"long", []msg{{64000, 1000}, {1000, 0}, {64000, 1000}}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachSide(t, func(t *testing.T, s side) {
				r, srv := newRig(t), newServer(t, s)
				if !r.u.gro {
					t.Skip("kernel without UDP_GRO")
				}
				d, peer := r.from(srv, s, 20111)
				sent := srv.sendAll(c.sent, peer)
				r.Wait(r.u.Event)
				r.Env.Out.Flush()
				frames := r.Take()
				if len(frames) > c.most {
					t.Errorf("%d frames, want at most %d", len(frames), c.most)
				}
				r.checkOrder(frames, d, sent)
			})
		})
	}
}

// checkOrder fails unless the frames carry exactly these datagrams, in this
// order, in superpackets that any kernel takes.
func (r *rig) checkOrder(frames []guest.Out, d *guest.Datagram, want [][]byte) {
	r.t.Helper()
	for i := range frames {
		o := &frames[i]
		parts := cut(o)
		if len(parts) > len(want) {
			r.t.Fatalf("frame %d has %d datagrams, %d are left", i, len(parts), len(want))
		}
		if len(parts) > sys.MaxSegments || len(o.Bytes)-wire.EthLen > 65535 {
			r.t.Fatalf("frame %d has %d datagrams in %d octets", i, len(parts), len(o.Bytes))
		}
		r.checkRun(o, d, want[:len(parts)])
		want = want[len(parts):]
	}
	if len(want) > 0 {
		r.t.Fatalf("%d datagrams lost", len(want))
	}
}

// TestOrderIsKept sends rows of all kinds, of any mixture.
func TestOrderIsKept(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		rng := rand.New(rand.NewPCG(1, 2))
		r, srv := newRig(t), newServer(t, s)
		d, peer := r.from(srv, s, 20112)
		r.widen()
		sizes := []int{0, 1, 100, 1000, 1000, 1000, 1000, 1001, 9000, 30000, 65000}
		for range 50 {
			var ms []msg
			for octets := 0; octets < 400<<10 && len(ms) < 100; {
				m := msg{octets: sizes[rng.IntN(len(sizes))]}
				if rng.IntN(8) == 0 {
					m.segment = 1000
					m.octets = 1000*rng.IntN(60) + 1 + rng.IntN(1000)
				}
				octets += m.octets
				ms = append(ms, m)
				if rng.IntN(2) == 0 { // again
					ms = append(ms, m)
				}
			}
			sent := srv.sendAll(ms, peer)
			r.Env.Count.UDPToGuest = 0
			for r.Env.Count.UDPToGuest < uint64(len(sent)) {
				r.Wait(r.u.Event)
			}
			r.Env.Out.Flush()
			r.checkOrder(r.Take(), d, sent)
		}
	})
}

// TestFragmentsBetweenRuns: what goes out in pieces finds its frame again, and
// leaves those behind it where they are.
func TestFragmentsBetweenRuns(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		r, srv := newRig(t), newServer(t, s)
		rules := *r.Env.Rules
		rules.MTU = 1500
		r.Env.Rules = &rules
		d, peer := r.from(srv, s, 20113)
		sent := srv.sendAll(join(times(3, 1000), times(2, 3000), times(3, 1000), single(65507), times(2, 7)), peer)
		r.Wait(r.u.Event)
		r.Env.Out.Flush()
		r.checkRun(take(r), d, sent[:3])
		r.expectDatagram(back(d, sent[3]), 1500)
		r.expectDatagram(back(d, sent[4]), 1500)
		r.checkRun(take(r), d, sent[5:8])
		r.expectDatagram(back(d, sent[8]), 1500)
		r.checkRun(take(r), d, sent[9:])
	})
}

func take(r *rig) *guest.Out {
	o := r.in()
	return &o
}

// TestStrayEndsRun: datagrams of others do not get into a run, nor change what
// is in it.
func TestStrayEndsRun(t *testing.T) {
	r, a, b, c := newRig(t), newServer(t, v4), newServer(t, v4), newServer(t, v4)
	db, _ := r.from(b, v4, 20114)
	da, peer := r.from(a, v4, 20114)
	for slot := range int32(2) { // both: now one of them catches it all
		var none sys.Sockaddr
		none.SetLen(16)
		if errno := sys.Connect(r.u.rec[slot].fd, &none); errno != 0 {
			t.Fatal(errno)
		}
	}
	first := a.sendAll(times(3, 1000), peer)
	stray := b.sendAll(times(2, 1000), peer)
	c.sendAll(times(2, 1000), peer) // nobody's
	last := a.sendAll(times(4, 1000), peer)
	r.Wait(r.u.Event)
	r.Env.Out.Flush()
	frames := r.Take()
	if len(frames) != 3 {
		t.Fatalf("%d frames, want 3", len(frames))
	}
	r.checkRun(&frames[0], da, first)
	r.checkRun(&frames[1], db, stray)
	r.checkRun(&frames[2], da, last)
	if n := r.Env.Count.Drops[stats.NoFlow]; n != 2 {
		t.Errorf("%d dropped, want 2", n)
	}
}

// TestListenerRow: what two new peers send at once, with some that the bypass
// takes between.
func TestListenerRow(t *testing.T) {
	for _, foreign := range []bool{false, true} {
		t.Run(fmt.Sprintf("flows are another shard's %v", foreign), func(t *testing.T) {
			r, a, b := newRig(t), newServer(t, v4), newServer(t, v4)
			fd, port := bound(t, "127.0.0.1")
			r.listen(fd, Listener{GuestPort: 7020, Local: func(*sys.RecvRow, int) uint64 { return 0b1001001001 }})
			da, db := v4.datagram(7020, a.port(), nil), v4.datagram(7020, b.port(), nil)
			if foreign {
				r.Env.Directory = flow.NewDirectory(64)
				for _, d := range []*guest.Datagram{da, db} {
					key := flow.Key{Guest: d.Src, GuestPort: d.SrcPort, Remote: d.Dst, RemotePort: d.DstPort, Proto: wire.ProtoUDP}
					r.Env.Directory.Claim(r.Env.Seed.Hash(&key), 3)
				}
			}
			var sent [][]byte
			for i, p := range []*server{a, a, a, b, b, b, a, b, b, b} {
				sent = append(sent, pattern(i, 500))
				p.reply(sent[i], to("127.0.0.1", port))
			}
			r.Wait(r.u.Event)
			r.Env.Out.Flush()
			frames := r.Take()
			ofA := 0
			for ofA < len(frames) && frames[ofA].H.SrcPort == a.port() {
				ofA++
			}
			r.checkOrder(frames[:ofA], da, [][]byte{sent[1], sent[2]})
			r.checkOrder(frames[ofA:], db, [][]byte{sent[4], sent[5], sent[7], sent[8]})
			if !foreign && len(frames) != 2 {
				t.Errorf("%d frames, want 2", len(frames))
			}
		})
	}
}

// TestGatherNoAlloc receives rows that become superpackets.
func TestGatherNoAlloc(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		r, srv := newRig(t), newServer(t, s)
		r.out(s.datagram(20115, srv.port(), []byte("x")))
		k := r.connected(srv, srv.expect([]byte("x")).Port(), s)
		k.SendRow = sys.NewSendRow(30, 30)
		for i := range 30 {
			k.Add(pattern(i, 1000-i/20))
		}
		frames := 0
		r.Env.Out = ring.NewOut(r.Env.Pool, ring.BatchSize, counter{&frames})
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
		if n := r.Env.Count.UDPToGuest; n < 200*30 || frames > int(n)/10 {
			t.Errorf("%d datagrams came in, in %d frames", n, frames)
		}
	})
}

// counter is a sink that counts frames.
type counter struct{ n *int }

func (c counter) Send(frames []*ring.Frame) { *c.n += len(frames) }

func TestWanted(t *testing.T) {
	for _, c := range []struct{ n, octets, want int }{
		{1, 0, 2}, {1, 65535, 2}, {20, 20 * 1400, 40}, {40, 0, recvRow}, {40, 40 * 1400, recvRow},
		{recvRow, recvRow * 1400, recvRow}, {16, 16 * 65000, 16}, {recvRow, recvRow * 65535, 16},
	} {
		if got := wanted(c.n, c.octets); int(got) != c.want {
			t.Errorf("after %d messages of %d octets: %d, want %d", c.n, c.octets, got, c.want)
		}
	}
}
