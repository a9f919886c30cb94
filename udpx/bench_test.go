package udpx

import (
	"testing"

	"penne/internal/sys"
	"penne/ring"
	"penne/shard/flow"
	"penne/test/guest"
)

// BenchmarkInput sends what the guest's tap delivers, by shape of traffic. The
// receiving socket is never read: once its buffer is full, the kernel drops.
func BenchmarkInput(b *testing.B) {
	for _, c := range []struct {
		name                         string
		frames, size, segment, flows int
		withoutSegment               bool
	}{
		{name: "one datagram", frames: 1, size: 64},
		{name: "run of 64", frames: 64, size: 1400},
		{name: "run of 64 without UDP_SEGMENT", frames: 64, size: 1400, withoutSegment: true},
		{name: "64 flows", frames: 64, size: 1400, flows: 64},
		{name: "superpacket", frames: 1, size: 64400, segment: 1400},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := newRigOf(b, 64)
			r.u.segment = r.u.segment && !c.withoutSegment
			_, port := bound(b, "127.0.0.1")
			var raw [][]byte
			var off ring.Offload
			for i := range c.frames {
				d := v4.datagram(21000, port, pattern(i, c.size))
				if c.flows > 0 {
					d.SrcPort += uint16(i % c.flows)
				}
				d.Segment = uint16(c.segment)
				raw, off = append(raw, d.Bytes()), d.Offload()
			}
			batch := make([]*ring.Frame, c.frames)
			b.SetBytes(int64(c.frames * c.size))
			b.ReportAllocs()
			for b.Loop() {
				for i := range batch {
					batch[i] = r.Frame(raw[i], off)
				}
				r.u.Input(batch)
			}
			if c.segment > 0 {
				b.ReportMetric(float64(r.Env.Count.UDPToHost)/b.Elapsed().Seconds(), "datagrams/s")
			} else {
				b.ReportMetric(float64(b.N*c.frames)/b.Elapsed().Seconds(), "datagrams/s")
			}
		})
	}
}

// BenchmarkEvent receives for the guest, by shape of traffic; what the host's
// sender costs is in the figure.
func BenchmarkEvent(b *testing.B) {
	for _, c := range []struct {
		name       string
		msgs, size int
		segment    uint16
	}{
		{name: "one datagram", msgs: 1, size: 64},
		{name: "32 datagrams", msgs: 32, size: 1400},
		{name: "merged", msgs: 2, size: 60200, segment: 1400},
	} {
		b.Run(c.name, func(b *testing.B) {
			r, srv := newRig(b), newServer(b, v4)
			r.Discard = true
			r.out(&guest.Datagram{Src: guest.Addr4, Dst: guest.Gateway4, SrcPort: 21001, DstPort: srv.port(), Payload: []byte("x")})
			k := r.connected(srv, srv.expect([]byte("x")).Port(), v4)
			k.SendRow = sys.NewSendRow(c.msgs, c.msgs)
			for i := range c.msgs {
				k.Add(pattern(i, c.size))
				if c.segment != 0 {
					k.Segment(c.segment)
				}
			}
			tok := flow.NewToken(flow.KindUDP, 0, 0)
			b.SetBytes(int64(c.msgs * c.size))
			b.ReportAllocs()
			for b.Loop() {
				k.Send(k.fd, 0)
				r.u.Event(tok, sys.EPOLLIN)
				r.Env.Out.Flush()
			}
			b.ReportMetric(float64(r.Env.Count.UDPToGuest)/b.Elapsed().Seconds(), "datagrams/s")
		})
	}
}

// BenchmarkOpen makes and ends a flow for each datagram.
func BenchmarkOpen(b *testing.B) {
	r := newRig(b)
	_, port := bound(b, "127.0.0.1")
	d := v4.datagram(21002, port, []byte("x"))
	raw, off := d.Bytes(), d.Offload()
	batch := make([]*ring.Frame, 1)
	b.ReportAllocs()
	for b.Loop() {
		batch[0] = r.Frame(raw, off)
		r.u.Input(batch)
		r.u.drop(0)
	}
}
