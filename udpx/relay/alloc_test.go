package relay

import (
	"testing"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/shard/flow"
)

// quick is an exchange over raw sockets, which allocate nothing themselves.
type quick struct {
	*path
	back *sender
	one  []byte
}

func newQuick(t testing.TB, ip string) *quick {
	p := newPath(t, ip, true)
	q := &quick{p, &sender{p.service.bound, sys.NewSendRow(64, 64), t}, payload(1400*20, 1)}
	for _, s := range []*sender{p.peer, q.back} {
		for i := range 10 {
			s.row.Add(q.one[i*1400 : (i+1)*1400])
		}
		s.row.Add(q.one)
		s.row.Segment(1400)
		s.row.Add(q.one[:1])
	}
	return q
}

// round sends a mixed row there and one back, and takes both.
func (q *quick) round(event func(tok flow.Token, bits uint32)) {
	q.peer.row.Send(q.peer.fd, 0)
	q.arrive(event, q.service.fd)
	q.back.row.Send(q.back.fd, 0)
	q.arrive(event, q.peer.fd)
}

// arrive lets the relay work until something has come to fd. It does not wait,
// as no event may be left to wait for.
func (q *quick) arrive(event func(tok flow.Token, bits uint32), fd int) {
	for n := 0; n == 0; n, _ = q.service.in.Recv(fd, 64) {
		q.Ready(event)
	}
}

func TestEventNoAlloc(t *testing.T) {
	for _, ip := range loopbacks {
		q := newQuick(t, ip)
		q.peer.row.Reset()
		q.peer.row.Add(q.one)
		q.peer.row.Segment(1400)
		q.peer.row.Add(q.one[:100])
		event := q.r.Event
		if n := testing.AllocsPerRun(200, func() { q.round(event) }); n != 0 {
			t.Errorf("%s: %v allocations a round", ip, n)
		}
		q.drops(stats.NumReasons, 0)
	}
}

func TestNewFlowNoAlloc(t *testing.T) {
	b := newRig(t, 2)
	at := bind(t, "127.0.0.1", 0)
	service := b.listen("127.0.0.1", 0)
	id := b.serve(at, service)
	peer := newSender(t, "127.0.0.1", at.port)
	peer.row.Add(payload(10, 1))
	event := b.r.Event
	buf := make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() {
		peer.row.Send(peer.fd, 0)
		for b.r.Len() == 0 {
			b.Wait(event)
		}
		if n, err := service.Read(buf); n != 10 {
			t.Fatal(err)
		}
		b.r.drop(b.r.listeners[id].flows)
	}); n != 0 {
		t.Errorf("%v allocations a flow", n)
	}
}

func TestLocalNoAlloc(t *testing.T) {
	q := newQuick(t, "127.0.0.1")
	at := bind(t, "127.0.0.1", 0)
	sys.EnablePacketInfo(at.fd, false)
	sink := bind(t, "127.0.0.1", 0)
	id := q.r.Share(Listener{FD: at.fd, Target: sink.port, To: &Host})
	peer := newSender(t, "127.0.0.1", at.port)
	peer.row.Add(q.one)
	peer.row.Segment(1400)
	in, out := q.collector(at, true).in, q.collector(sink, true).in
	if n := testing.AllocsPerRun(200, func() {
		peer.row.Send(peer.fd, 0)
		n := 0
		for n == 0 {
			n, _ = in.Recv(at.fd, 64)
		}
		if q.r.Local(id, in, n) != 1 {
			t.Fatal("not taken")
		}
		for n, _ = out.Recv(sink.fd, 64); n == 0; n, _ = out.Recv(sink.fd, 64) {
		}
	}); n != 0 {
		t.Errorf("%v allocations a row", n)
	}
}

func BenchmarkStream1400(b *testing.B) {
	for _, segmented := range []bool{false, true} {
		name := map[bool]string{false: "single", true: "segmented"}[segmented]
		for _, merge := range []bool{false, true} {
			b.Run(name+map[bool]string{false: "", true: "/receiver merges"}[merge], func(b *testing.B) {
				stream(b, segmented, merge)
			})
		}
	}
}

// stream measures 32 datagrams at a time, one way.
func stream(b *testing.B, segmented, merge bool) {
	p := newPath(b, "127.0.0.1", merge)
	data := payload(32*1400, 1)
	p.peer.row.Reset()
	if segmented {
		p.peer.row.Add(data)
		p.peer.row.Segment(1400)
	} else {
		for i := range 32 {
			p.peer.row.Add(data[i*1400 : (i+1)*1400])
		}
	}
	event := p.r.Event
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		p.peer.row.Send(p.peer.fd, 0)
		for got := 0; got < len(data); {
			p.Ready(event)
			n, _ := p.service.in.Recv(p.service.fd, 64)
			for i := range n {
				got += p.service.in.Len(i)
			}
		}
	}
}

func TestExpireNoAlloc(t *testing.T) {
	q := newQuick(t, "127.0.0.1")
	live := &q.r.rec[q.r.listeners[0].flows]
	if n := testing.AllocsPerRun(100, func() {
		q.Advance(Idle)
		live.last = q.Env.Now - 1 // its timer comes early and is set again
		q.r.Expire()
		if _, ok := q.r.Next(); !ok {
			t.Fatal("no timer")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
