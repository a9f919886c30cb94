package udpx

import (
	"testing"

	"penne/internal/wire"
)

// TestAnswerFromAnotherAddress: a server of the guest is asked by one address and answers from another.
func TestAnswerFromAnotherAddress(t *testing.T) {
	r, peer := newRig(t), newServer(t, v4)
	fd, port := bound(t, "0.0.0.0")
	r.listen(fd, Listener{GuestPort: 53})
	d := v4.datagram(53, peer.port(), nil)
	peer.reply([]byte("query"), to("127.0.0.1", port))
	o := r.in()
	r.check(&o, back(d, []byte("query")))
	other := d
	other.Src, other.Payload = wire.Addr4([]byte{192, 0, 2, 77}), []byte("answer")
	for range 2 { // the second one finds the first one's flow without a look
		r.out(other)
		if from := peer.expect(other.Payload); from != to("127.0.0.1", port) {
			t.Errorf("the answer comes from %v, want port %d", from, port)
		}
	}
	if r.u.Len() != 1 {
		t.Errorf("%d flows, want 1", r.u.Len())
	}
}

// TestOtherAddressOfTheGuest: what the guest itself begins from two addresses stays apart.
func TestOtherAddressOfTheGuest(t *testing.T) {
	r, srv := newRig(t), newServer(t, v4)
	d := v4.datagram(40070, srv.port(), []byte("one"))
	r.out(d)
	first := srv.expect(d.Payload)
	d.Src, d.Payload = wire.Addr4([]byte{192, 0, 2, 77}), []byte("two")
	r.out(d)
	if second := srv.expect(d.Payload); second == first {
		t.Error("two addresses of the guest look the same on the host")
	}
}
