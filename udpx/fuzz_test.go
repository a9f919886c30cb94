package udpx

import (
	"testing"

	"penne/internal/wire"
	"penne/ring"
	"penne/test/guest"
)

// FuzzInput feeds frames as a hostile guest may send them, whole as wire.Parse
// sees them, with any offload fields. Destinations are led to the host's
// loopback, so that nothing leaves it. No frame may be lost and nothing may
// panic.
func FuzzInput(f *testing.F) {
	for _, s := range sides {
		d := s.datagram(20080, 9, pattern(1, 100))
		f.Add(d.Bytes(), uint8(ring.GSONone), uint16(0))
		f.Add(d.Bytes(), uint8(ring.GSOUDPL4), uint16(30))
		f.Add(d.Bytes(), uint8(ring.GSOUDPL4), uint16(0))
		d.Payload, d.TTL = nil, 1
		f.Add(d.Bytes(), uint8(ring.GSOUDPL4), uint16(65535))
	}
	f.Fuzz(func(t *testing.T, b []byte, gso uint8, size uint16) {
		r := newRigOf(t, 4)
		var frames []*ring.Frame
		for i := range 3 {
			fr := r.fuzzed(b, ring.Offload{GSOType: gso, GSOSize: size})
			if fr == nil {
				return
			}
			fr.H.SrcPort += uint16(i & 1)
			frames = append(frames, fr)
		}
		r.u.Input(frames)
		for range 4 {
			r.Ready(r.u.Event)
			r.Env.Out.Flush()
		}
		if n := r.Env.Pool.Size() - r.Env.Pool.Free(); n != r.Env.Out.Size() {
			t.Fatalf("%d frames in use, want %d", n, r.Env.Out.Size())
		}
		for _, o := range r.Sent {
			if o.Verdict != wire.OK || !o.SumOK() || !o.IPOK() {
				t.Fatalf("bad frame to the guest: verdict %d", o.Verdict)
			}
		}
	})
}

// fuzzed is b as a frame for Input, or nil if it would not get there.
func (r *rig) fuzzed(b []byte, o ring.Offload) *ring.Frame {
	f := r.Env.Pool.Get()
	if len(b) > len(f.Slot())-ring.HeadRoom {
		b = b[:len(f.Slot())-ring.HeadRoom]
	}
	f.SetBounds(ring.HeadRoom, copy(f.Slot()[ring.HeadRoom:], b))
	f.Offload = o
	if wire.Parse(f.Bytes(), &f.H) != wire.OK || f.H.Proto != wire.ProtoUDP {
		return nil
	}
	f.H.Dst = guest.Gateway4
	if f.H.V6 {
		f.H.Dst = guest.Gateway6
	}
	return f
}

// FuzzReceive gives the guest datagrams of any length and grouping, at any MTU.
func FuzzReceive(f *testing.F) {
	f.Add(uint16(1500), uint16(100), uint16(0), true)
	f.Add(uint16(1280), uint16(65507), uint16(0), false)
	f.Add(uint16(68), uint16(2000), uint16(700), true)
	f.Add(uint16(65520), uint16(60000), uint16(1000), false)
	f.Add(uint16(0), uint16(9000), uint16(1), true)
	f.Fuzz(func(t *testing.T, mtu, size, segment uint16, six bool) {
		s := v4
		if six {
			s = v6
		}
		r, srv := newRig(t), newServer(t, s)
		rules := *r.Env.Rules
		rules.MTU = int(mtu)
		r.Env.Rules = &rules
		r.out(s.datagram(20081, srv.port(), []byte("x")))
		peer := srv.expect([]byte("x"))
		n := min(int(size), 65507)
		if segment > 0 && n > int(segment) && n <= 64*int(segment) {
			srv.sendSegmented(pattern(1, n), int(segment), peer)
		} else {
			srv.reply(pattern(1, n), peer)
		}
		r.Wait(r.u.Event)
		r.Env.Out.Flush()
		limit := r.u.mtu() + wire.EthLen
		for _, o := range r.Sent {
			if o.Verdict != wire.OK && o.Verdict != wire.Fragment || !o.IPOK() {
				t.Fatalf("bad frame to the guest: verdict %d", o.Verdict)
			}
			if o.Offload.GSOType == ring.GSONone && len(o.Bytes) > limit {
				t.Fatalf("frame of %d octets for MTU %d", len(o.Bytes), mtu)
			}
		}
	})
}
