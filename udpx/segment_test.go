package udpx

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"syscall"
	"testing"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/test/guest"
)

// pattern is n octets that differ from datagram to datagram.
func pattern(seed, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(seed*31 + i*7 + i>>8)
	}
	return b
}

func TestRunsOfDatagramsArriveWhole(t *testing.T) {
	for _, segment := range []bool{true, false} {
		eachSide(t, func(t *testing.T, s side) {
			r, srv := newRig(t), newServer(t, s)
			r.u.segment = r.u.segment && segment
			sizes := []int{1400, 1400, 1400, 900, 1400, 0, 0, 10, 20, 20, 20, 5000, 1, 1}
			var batch []*guest.Datagram
			for i, n := range sizes {
				batch = append(batch, s.datagram(20030, srv.port(), pattern(i, n)))
			}
			r.out(batch...)
			for _, d := range batch {
				srv.expect(d.Payload)
			}
			if n := r.Env.Count.UDPToHost; n != uint64(len(sizes)) {
				t.Errorf("%d datagrams counted, want %d", n, len(sizes))
			}
		})
	}
}

func TestRunIsOneMessage(t *testing.T) {
	r, srv := newRig(t), newServer(t, v4)
	if !r.u.segment {
		t.Skip("kernel without UDP_SEGMENT")
	}
	var batch []*guest.Datagram
	for i := range 50 {
		batch = append(batch, v4.datagram(20031, srv.port(), pattern(i, 1000)))
	}
	batch[49].Payload = batch[49].Payload[:7]
	r.out(batch...)
	if n := r.u.send.Len(); n != 1 {
		t.Errorf("50 datagrams went in %d messages, want 1", n)
	}
	for _, d := range batch {
		srv.expect(d.Payload)
	}
}

func TestSuperpacketOut(t *testing.T) {
	for _, c := range []struct {
		name           string
		size, datagram int
		segment        bool
	}{
		{"whole", 64000, 1000, true},
		{"odd end", 5501, 500, true},
		{"more than one send takes", 100 * 300, 300, true},
		{"one octet each", 400, 1, true}, // hostile
		{"no UDP_SEGMENT", 30000, 300, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachSide(t, func(t *testing.T, s side) {
				r, srv := newRig(t), newServer(t, s)
				srv.SetReadBuffer(4 << 20)
				r.u.segment = r.u.segment && c.segment
				d := s.datagram(20032, srv.port(), pattern(1, c.size))
				d.Segment = uint16(c.datagram)
				after := s.datagram(20032, srv.port(), []byte("after"))
				r.out(d, after)
				count := 1
				for b := d.Payload; len(b) > 0; b = b[min(c.datagram, len(b)):] {
					srv.expect(b[:min(c.datagram, len(b))])
					count++
				}
				srv.expect(after.Payload)
				if n := r.Env.Count.UDPToHost; n != uint64(count) {
					t.Errorf("%d datagrams counted, want %d", n, count)
				}
			})
		})
	}
}

// TestHostileOffload sends frames whose offload fields contradict their length.
func TestHostileOffload(t *testing.T) {
	r, srv := newRig(t), newServer(t, v4)
	d := v4.datagram(20033, srv.port(), pattern(0, 100))
	for _, o := range []ring.Offload{
		{GSOType: ring.GSOUDPL4},
		{GSOType: ring.GSOUDPL4, GSOSize: 100},
		{GSOType: ring.GSOUDPL4, GSOSize: 65535},
		{GSOType: ring.GSOTCPv4, GSOSize: 10},
		{GSOType: 255, GSOSize: 10},
	} {
		r.u.Input([]*ring.Frame{r.Frame(d.Bytes(), o)})
		srv.expect(d.Payload)
	}
}

// TestTooManyPieces bounds what one frame may ask for.
func TestTooManyPieces(t *testing.T) {
	r, srv := newRig(t), newServer(t, v4)
	d := v4.datagram(20029, srv.port(), pattern(1, 60000))
	d.Segment = 1
	after := v4.datagram(20029, srv.port(), []byte("after"))
	r.out(d, after)
	srv.expect(after.Payload)
	if n := r.Env.Count.Drops[stats.Malformed]; n != 1 {
		t.Errorf("%d frames dropped, want 1", n)
	}
}

// TestLongerThanThePath sends superpackets of datagrams that the host's link
// does not take whole: the kernel refuses to segment, and fragments single ones.
func TestLongerThanThePath(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		guest.Namespace(t)
		guest.LoopbackMTU(t, 1500)
		r, srv := newRig(t), newServer(t, s)
		srv.SetReadBuffer(4 << 20)
		for range 2 {
			d := s.datagram(20034, srv.port(), pattern(1, 20000))
			d.Segment = 3000
			r.out(d, s.datagram(20034, srv.port(), pattern(2, 4000)), s.datagram(20034, srv.port(), pattern(3, 4000)))
			for b := d.Payload; len(b) > 0; b = b[min(3000, len(b)):] {
				srv.expect(b[:min(3000, len(b))])
			}
			srv.expect(pattern(2, 4000))
			srv.expect(pattern(3, 4000))
		}
		if m := r.u.rec[0].segMax; r.u.segment && (m < 1472-20 || m >= 3000) {
			t.Errorf("segments of up to %d octets are thought to fit", m)
		}
		if !r.u.segment {
			t.Error("one long path ended segmentation for all")
		}
		small := s.datagram(20034, srv.port(), pattern(4, 12000))
		small.Segment = 1200
		r.out(small)
		if n := r.u.send.Len(); r.u.segment && n != 1 {
			t.Errorf("datagrams that fit went in %d messages, want 1", n)
		}
	})
}

// TestRefusalOfSegmentation plays a kernel that refuses UDP_SEGMENT for good.
func TestRefusalOfSegmentation(t *testing.T) {
	r, srv := newRig(t), newServer(t, v4)
	r.out(v4.datagram(20035, srv.port(), []byte("open")))
	srv.expect([]byte("open"))
	flow := &r.u.rec[0]

	single := r.Datagram(v4.datagram(20035, srv.port(), pattern(0, 2500)))
	super := message{f: single, frames: 1, to: 2500, segment: 1000, count: 3}
	r.u.refused(flow, &super, sys.EIO)
	for from := 0; from < 2500; from += 1000 {
		srv.expect(pattern(0, 2500)[from:min(from+1000, 2500)])
	}
	run := r.Datagram(v4.datagram(20035, srv.port(), []byte("one")))
	run.Next = r.Datagram(v4.datagram(20035, srv.port(), []byte("two")))
	m := message{f: run, frames: 2, segment: 3, count: 2}
	r.u.refused(flow, &m, sys.EINVAL)
	srv.expect([]byte("one"))
	srv.expect([]byte("two"))
	if r.u.segment || r.Env.Count.UDPToHost != 6 {
		t.Errorf("segment %v, %d datagrams; want false, 6", r.u.segment, r.Env.Count.UDPToHost)
	}
}

// sendSegmented sends b from the host as datagrams of size octets with one
// UDP_SEGMENT send, so that they arrive merged.
func (s *server) sendSegmented(b []byte, size int, to netip.AddrPort) {
	s.t.Helper()
	s.segmentBy(size)
	s.reply(b, to)
}

// segmentBy makes the host send datagrams of size octets; 0 ends that.
func (s *server) segmentBy(size int) {
	s.t.Helper()
	raw, err := s.SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		const udpSegment = 103
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_UDP, udpSegment, size)
	})
	if err != nil {
		s.t.Skipf("kernel without UDP_SEGMENT: %v", err)
	}
}

// cut gives the datagrams that offload would make of o.
func cut(o *guest.Out) (parts [][]byte) {
	b := o.Payload()
	if o.Offload.GSOType == ring.GSONone {
		return [][]byte{b}
	}
	for size := int(o.Offload.GSOSize); len(b) > 0; b = b[min(size, len(b)):] {
		parts = append(parts, b[:min(size, len(b))])
	}
	return parts
}

func TestMergedDatagramsAreOneSuperpacket(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		r, srv := newRig(t), newServer(t, s)
		d := s.datagram(20036, srv.port(), []byte("x"))
		r.out(d)
		peer := srv.expect(d.Payload)
		sent := pattern(5, 60*1000+17)
		srv.sendSegmented(sent, 1000, peer)
		o := r.in()
		r.check(&o, back(d, sent))
		if o.Offload.GSOType != ring.GSOUDPL4 || o.Offload.GSOSize != 1000 {
			t.Errorf("offload %+v, want USO of 1000 octets", o.Offload)
		}
		if n := r.Env.Count.UDPToGuest; n != 61 {
			t.Errorf("%d datagrams counted, want 61", n)
		}
	})
}

func TestWithoutGRO(t *testing.T) {
	r, srv := newRig(t), newServer(t, v4)
	r.u.gro = false
	d := v4.datagram(20037, srv.port(), []byte("x"))
	r.out(d)
	sent := pattern(5, 20*1000)
	srv.sendSegmented(sent, 1000, srv.expect(d.Payload))
	for len(sent) > 0 {
		o := r.in()
		for _, p := range cut(&o) {
			if !bytes.Equal(p, sent[:1000]) {
				t.Fatalf("datagram of %d octets, want 1000", len(p))
			}
			sent = sent[1000:]
		}
	}
	if n := r.Env.Count.UDPToGuest; n != 20 {
		t.Errorf("%d datagrams counted, want 20", n)
	}
}

// TestSuperpacketBeyondIP sends more than fits an IP packet of 65535 octets,
// which IPv6 may carry behind its header.
func TestSuperpacketBeyondIP(t *testing.T) {
	r, srv := newRig(t), newServer(t, v6)
	d := v6.datagram(20038, srv.port(), []byte("x"))
	r.out(d)
	peer := srv.expect(d.Payload)
	sent := pattern(6, 65520)
	srv.sendSegmented(sent, 1260, peer)
	var got []byte
	for len(got) < len(sent) {
		o := r.in()
		if o.Verdict != wire.OK || !o.SumOK() || len(o.Bytes)-wire.EthLen > 65535 {
			t.Fatalf("frame of %d octets, verdict %d, sum ok %v", len(o.Bytes), o.Verdict, o.SumOK())
		}
		for _, p := range cut(&o) {
			got = append(got, p...)
		}
	}
	if !bytes.Equal(got, sent) {
		t.Error("payload changed")
	}
}

// reassembler collects IP fragments as a guest's kernel would.
type reassembler struct {
	t    *testing.T
	mtu  int
	id   uint32
	data []byte
}

// add adds a fragment and tells whether the datagram is whole. Fragments come
// in order.
func (a *reassembler) add(o *guest.Out) bool {
	a.t.Helper()
	if o.Verdict != wire.Fragment || len(o.Bytes)-wire.EthLen > a.mtu || !o.IPOK() {
		a.t.Fatalf("frame of %d octets, verdict %d, is no fragment for MTU %d", len(o.Bytes), o.Verdict, a.mtu)
	}
	ip := o.Bytes[wire.EthLen:]
	at, more, id, payload := 0, false, uint32(0), []byte(nil)
	if o.H.V6 {
		v := binary.BigEndian.Uint16(ip[42:])
		at, more, id, payload = int(v&^7), v&1 != 0, binary.BigEndian.Uint32(ip[44:]), ip[48:]
	} else {
		v := binary.BigEndian.Uint16(ip[6:])
		at, more = int(v&0x1fff)*8, v&0x2000 != 0
		id, payload = uint32(binary.BigEndian.Uint16(ip[4:])), ip[20:]
		if n := int(binary.BigEndian.Uint16(ip[2:])); n != len(ip) || v&0x4000 != 0 {
			a.t.Errorf("IP length %d of %d octets, flags %#x", n, len(ip), v)
		}
	}
	if at != len(a.data) || at > 0 && id != a.id || more && len(payload)%8 != 0 {
		a.t.Fatalf("fragment at %d, identification %d; want %d, %d", at, id, len(a.data), a.id)
	}
	a.data, a.id = append(a.data, payload...), id
	return !more
}

func TestLongDatagramIsFragmented(t *testing.T) {
	for _, c := range []struct {
		mtu, size, segment int
	}{
		{1500, 65507, 0}, {1500, 1473, 0}, {1280, 9000, 0}, {65520, 65507, 0},
		{1280, 14000, 1400}, {1500, 63000, 3000}, {68 + 1212, 1453*10 + 1, 1453},
	} {
		eachSide(t, func(t *testing.T, s side) {
			r, srv := newRig(t), newServer(t, s)
			rules := *r.Env.Rules
			rules.MTU = c.mtu
			r.Env.Rules = &rules
			d := s.datagram(20039, srv.port(), []byte("x"))
			r.out(d)
			peer := srv.expect(d.Payload)
			sent, size := pattern(8, c.size), c.size
			srv.reply([]byte("before"), peer)
			if c.segment != 0 {
				size = c.segment
				srv.sendSegmented(sent, size, peer)
			} else {
				srv.reply(sent, peer)
			}
			o := r.in()
			r.check(&o, back(d, []byte("before")))
			for ; len(sent) > 0; sent = sent[min(size, len(sent)):] {
				r.expectDatagram(back(d, sent[:min(size, len(sent))]), c.mtu)
			}
			if n := r.u.env.Pool.Size() - r.u.env.Pool.Free(); n != r.Env.Out.Size() {
				t.Errorf("%d frames in use, want %d", n, r.Env.Out.Size())
			}
		})
	}
}

// expectDatagram takes the frames of one datagram, fragments or not.
func (r *rig) expectDatagram(want *guest.Datagram, mtu int) {
	r.t.Helper()
	o := r.in()
	if o.Verdict == wire.OK {
		r.check(&o, want)
		return
	}
	a := reassembler{t: r.t.(*testing.T), mtu: mtu}
	for !a.add(&o) {
		o = r.in()
	}
	whole := append(append([]byte(nil), o.Bytes[:wire.EthLen+want.Src.IPLen()]...), a.data...)
	if want.Src.Is4() {
		wire.PutIPv4(whole[wire.EthLen:], len(whole)-wire.EthLen, wire.ProtoUDP, 64, &want.Src, &want.Dst)
	} else {
		wire.PutIPv6(whole[wire.EthLen:], len(a.data), wire.ProtoUDP, 64, &want.Src, &want.Dst)
	}
	joined := guest.Out{Bytes: whole}
	joined.Verdict = wire.Parse(whole, &joined.H)
	r.check(&joined, want)
}
