package ping

import (
	"bytes"
	"encoding/binary"
	"testing"

	"penne/internal/wire"
	"penne/ring"
	"penne/test/guest"
)

// rig is an echo translator with a scripted guest on one side and the host's
// loopback on the other.
type rig struct {
	*guest.Guest
	p *Ping
	t testing.TB
}

func newRig(t testing.TB) *rig {
	t.Helper()
	guest.Namespace(t)
	g := guest.New(t, 256)
	p, err := New(Config{Env: g.Env, Flows: 16, Warn: func(err error) { t.Log(err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return &rig{g, p, t}
}

func (r *rig) out(es ...*guest.Echo) {
	r.t.Helper()
	var batch []*ring.Frame
	for _, e := range es {
		batch = append(batch, r.Echo(e))
	}
	r.p.Input(batch)
	r.p.Flush()
}

func (r *rig) in() guest.Out {
	r.t.Helper()
	for len(r.Sent) == 0 {
		r.Wait(r.p.Event)
		r.p.Flush()
	}
	o := r.Sent[0]
	r.Sent = r.Sent[1:]
	return o
}

func TestEcho(t *testing.T) {
	for _, s := range []struct {
		name           string
		guest, gateway wire.Addr
		reply          uint8
	}{{"v4", guest.Addr4, guest.Gateway4, 0}, {"v6", guest.Addr6, guest.Gateway6, 129}} {
		t.Run(s.name, func(t *testing.T) {
			r := newRig(t)
			for seq, payload := range [][]byte{[]byte("abcdefgh"), {}, bytes.Repeat([]byte{7}, 20000)} {
				r.out(&guest.Echo{Src: s.guest, Dst: s.gateway, ID: 4711, Seq: uint16(seq), Payload: payload})
				o := r.in()
				icmp := o.Bytes[o.H.L4:]
				if o.Verdict != wire.OK || icmp[0] != s.reply || !o.SumOK() || !o.IPOK() {
					t.Fatalf("verdict %d, type %d, sum %v", o.Verdict, icmp[0], o.SumOK())
				}
				if o.H.Src != s.gateway || o.H.Dst != s.guest || o.H.SrcPort != 4711 {
					t.Errorf("from %v to %v, identifier %d", o.H.Src, o.H.Dst, o.H.SrcPort)
				}
				if got := binary.BigEndian.Uint16(icmp[6:]); got != uint16(seq) || !bytes.Equal(o.Payload(), payload) {
					t.Errorf("sequence %d, want %d; %d octets, want %d", got, seq, len(o.Payload()), len(payload))
				}
			}
		})
	}
}
