package udpx

import (
	"testing"

	"penne/test/guest"
)

// back is what the guest sees of an answer to d.
func back(d *guest.Datagram, payload []byte) *guest.Datagram {
	return &guest.Datagram{Src: d.Dst, Dst: d.Src, SrcPort: d.DstPort, DstPort: d.SrcPort, Payload: payload}
}

func TestRoundTrip(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		r, srv := newRig(t), newServer(t, s)
		for _, payload := range [][]byte{[]byte("hello"), {}, make([]byte, 9000)} {
			d := s.datagram(40001, srv.port(), payload)
			r.out(d)
			peer := srv.expect(payload)
			if peer.Port() != 40001 {
				t.Errorf("host sees source port %d, want the guest's 40001", peer.Port())
			}
			srv.reply(payload, peer)
			o := r.in()
			r.check(&o, back(d, payload))
		}
		if n := r.u.Len(); n != 1 {
			t.Errorf("%d flows, want 1", n)
		}
	})
}
