package tcpx

import (
	"bytes"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/test/guest"
)

// readAll reads n octets from the host's end.
func readAll(t *testing.T, host *net.TCPConn, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	host.SetReadDeadline(time.Now().Add(guest.Patience))
	if k, err := io.ReadFull(host, b); err != nil {
		t.Fatalf("host got %d of %d octets: %v", k, n, err)
	}
	return b
}

// readLater reads n octets from the host's end in the background.
func readLater(t *testing.T, host *net.TCPConn, n int) <-chan []byte {
	host.SetReadDeadline(time.Now().Add(guest.Patience))
	got := make(chan []byte, 1)
	go func() {
		b := make([]byte, n)
		if k, err := io.ReadFull(host, b); err != nil {
			t.Errorf("host got %d of %d octets: %v", k, n, err)
		}
		got <- b
	}()
	return got
}

// lastAck passes until the translator has said something, and returns its last
// word.
func lastAck(g *guest.TCP) guest.Segment {
	g.G.T.Helper()
	g.Until(func() bool { return len(g.Got) > 0 })
	s := g.Got[len(g.Got)-1]
	g.Got = nil
	return s
}

// TestOneAckAPass: many frames of one pass are acknowledged once.
func TestOneAckAPass(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	data := pattern(10 * 1460)
	for i := range 10 {
		g.Send(0, data[i*1460:][:1460])
	}
	g.Pass()
	if len(g.Got) != 1 || g.Got[0].TCP.Ack() != g.Seq {
		t.Errorf("%d segments", len(g.Got))
	}
	if !bytes.Equal(readAll(t, host, len(data)), data) {
		t.Error("contents differ")
	}
	g.Got = nil
	g.None()
}

func TestOutOfOrderAndSack(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	data := pattern(5000)
	seq := g.Seq
	at := func(from, to int) { g.Raw(wire.ACK, seq+uint32(from), g.Ack, nil, data[from:to]) }
	steps := []struct {
		from, to int
		blocks   [][2]uint32
	}{
		{1000, 2000, [][2]uint32{{1000, 2000}}},
		{3000, 4000, [][2]uint32{{3000, 4000}, {1000, 2000}}},
		{1500, 2500, [][2]uint32{{1000, 2500}, {3000, 4000}}},
		{3000, 4000, [][2]uint32{{3000, 4000}, {1000, 2500}}}, // a repetition
	}
	for _, st := range steps {
		at(st.from, st.to)
		g.Pass()
		if len(g.Got) != 1 {
			t.Fatalf("%d answers to a segment out of order", len(g.Got))
		}
		s := g.Got[0]
		g.Got = nil
		if s.TCP.Ack() != seq || int(s.Opts.SACKLen) != len(st.blocks) {
			t.Fatalf("ack %d, %d blocks", s.TCP.Ack()-seq, s.Opts.SACKLen)
		}
		for i, b := range st.blocks {
			if s.Opts.SACK[i] != [2]uint32{seq + b[0], seq + b[1]} {
				t.Errorf("block %d: %d-%d, want %v", i, s.Opts.SACK[i][0]-seq, s.Opts.SACK[i][1]-seq, b)
			}
		}
	}
	at(0, 1200)
	if s := lastAck(g); s.TCP.Ack() != seq+2500 {
		t.Errorf("ack %d after the first gap closed", s.TCP.Ack()-seq)
	}
	at(2000, 5000)
	if s := lastAck(g); s.TCP.Ack() != seq+5000 || s.Opts.SACKLen != 0 {
		t.Errorf("ack %d, %d blocks", s.TCP.Ack()-seq, s.Opts.SACKLen)
	}
	if !bytes.Equal(readAll(t, host, len(data)), data) {
		t.Error("contents differ")
	}
}

// TestOutOfOrderFIN: a FIN out of order counts once it is in order.
func TestOutOfOrderFIN(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	g.Raw(wire.ACK|wire.FIN, g.Seq+3, g.Ack, nil, []byte("def"))
	g.Raw(wire.ACK, g.Seq, g.Ack, nil, []byte("abc"))
	if s := lastAck(g); s.TCP.Ack() != g.Seq+7 {
		t.Errorf("ack %d", s.TCP.Ack()-g.Seq)
	}
	if b, err := io.ReadAll(host); err != nil || string(b) != "abcdef" {
		t.Errorf("%q %v", b, err)
	}
}

// TestManyOutOfOrder: the out-of-order queue of a flow is bounded.
func TestManyOutOfOrder(t *testing.T) {
	r := newRig(t, false, Config{})
	g, _ := r.open()
	free := r.Env.Pool.Free()
	for i := range 3 * maxOutOfOrder {
		g.Raw(wire.ACK, g.Seq+uint32(2*i)+1, g.Ack, nil, []byte{1})
	}
	if kept := free - r.Env.Pool.Free(); kept != maxOutOfOrder {
		t.Errorf("%d frames kept", kept)
	}
}

func TestOverlaps(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	data := pattern(3000)
	seq := g.Seq
	for _, p := range [][2]int{{0, 1000}, {500, 1500}, {0, 1500}, {0, 3000}, {1000, 2000}} {
		g.Raw(wire.ACK, seq+uint32(p[0]), g.Ack, nil, data[p[0]:p[1]])
	}
	if s := lastAck(g); s.TCP.Ack() != seq+3000 {
		t.Errorf("ack %d", s.TCP.Ack()-seq)
	}
	if !bytes.Equal(readAll(t, host, 3000), data) {
		t.Error("contents differ")
	}
	g.Raw(wire.ACK, seq, g.Ack, nil, data[:1000]) // all known
	if s := lastAck(g); s.TCP.Ack() != seq+3000 {
		t.Errorf("ack %d", s.TCP.Ack()-seq)
	}
}

func TestBeyondWindow(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	c := r.conn()
	g.Raw(wire.ACK, c.edge, g.Ack, nil, []byte("far"))
	if s := lastAck(g); s.TCP.Ack() != g.Seq {
		t.Errorf("ack %d", s.TCP.Ack()-g.Seq)
	}
	if r.Env.Count.Drops[stats.OutOfWindow] != 1 {
		t.Error("not counted")
	}
	g.Raw(wire.ACK, g.Seq-1<<30, g.Ack, nil, []byte("old"))
	if s := lastAck(g); s.TCP.Ack() != g.Seq {
		t.Errorf("ack %d", s.TCP.Ack()-g.Seq)
	}
	// A segment that straddles the edge is cut there, and its FIN with it.
	size := int(c.edge - g.Seq)
	data := pattern(size + 5)
	for n := 0; n < size-100; n += 60000 {
		end := min(n+60000, size-100)
		g.Raw(wire.ACK, g.Seq+uint32(n), g.Ack, nil, data[n:end])
	}
	old := c.edge
	g.Raw(wire.ACK|wire.FIN, g.Seq+uint32(size-100), g.Ack, nil, data[size-100:])
	if c.guestFIN || c.rcvNxt != old {
		t.Errorf("took %d octets beyond the edge", int32(c.rcvNxt-old))
	}
	if !bytes.Equal(readAll(t, host, size), data[:size]) {
		t.Error("contents differ")
	}
}

// fill sends as long as the window allows, in segments of size octets, and
// returns how much was sent, checking each word on the window.
// TestTail fills a connection whose host does not read: everything inside the
// window is kept, memory is bounded, the window closes; and when the host reads
// the window opens by itself and the contents are right.
// TestWindowProbe: a guest whose window is closed asks and gets an answer.
// TestNoFrames: with the pool down to the tap's share, what the socket refuses
// is dropped and not acknowledged, and the flow goes on later.
// TestReflect: on a long path nothing is acknowledged before the remote has it;
// but nothing is held for longer than the path and 100 ms.
func TestReflect(t *testing.T) {
	r := newRig(t, false, Config{})
	raw, err := r.ln.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
	g, host := r.open()
	c := r.conn()
	c.lowRTT, c.rtt, c.rttAt = false, 20e6, r.Env.Now+int64(time.Hour)
	data := pattern(60000)
	g.Send(0, data) // more than the remote's window
	g.Pass()
	outq := func() uint32 {
		n, errno := sys.OutQueue(int(c.fd))
		if errno != 0 {
			t.Fatal(errno)
		}
		return uint32(n)
	}
	if outq() == 0 {
		t.Fatal("the remote took everything")
	}
	for range 20 {
		if wire.SeqLT(g.Seq-outq(), c.rcvAck) {
			t.Fatalf("acknowledged %d octets the remote does not have", int32(c.rcvAck-(g.Seq-outq())))
		}
		r.Advance(4 * time.Millisecond)
		g.Pass()
	}
	if _, ok := r.tcp.Next(); !ok {
		t.Fatal("nobody will look again")
	}
	for range 12 { // 128 ms in all
		r.Advance(4 * time.Millisecond)
		g.Pass()
	}
	if c.rcvAck != g.Seq {
		t.Errorf("%d octets held beyond the limit", g.Seq-c.rcvAck)
	}
	g.Got = nil
	if !bytes.Equal(readAll(t, host, len(data)), data) {
		t.Error("contents differ")
	}
}

// TestQuickAnswers: once answers come quickly, requests are acknowledged with
// them; and not for ever when one does not come.
func TestQuickAnswers(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	turn := func() (segments int) {
		g.Send(wire.PSH, []byte("request"))
		g.Pass()
		segments = len(g.Got)
		g.Got = nil
		readAll(t, host, 7)
		host.Write([]byte("answer"))
		s := g.Next()
		if string(s.Data) != "answer" || s.TCP.Ack() != g.Seq {
			t.Fatalf("%q ack %d", s.Data, s.TCP.Ack())
		}
		g.Ack += 6
		return segments
	}
	if turn() != 1 {
		t.Error("the first request was not acknowledged at once")
	}
	for range 10 {
		turn()
	}
	if turn() != 0 {
		t.Error("a segment for an acknowledgment that the answer carries")
	}
	g.Send(wire.PSH, []byte("request"))
	g.None()
	r.Advance(2 * answerTime)
	g.Pass()
	if len(g.Got) != 1 || g.Got[0].TCP.Ack() != g.Seq {
		t.Errorf("%d segments when no answer came", len(g.Got))
	}
	g.Got = nil
	g.Send(wire.PSH, []byte("again"))
	g.Pass()
	if len(g.Got) != 1 {
		t.Error("waited again right after waiting in vain")
	}
}

func TestUrgentFromGuest(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	g.Send(wire.URG|wire.PSH, []byte("urgent"))
	g.Pass()
	if b := readAll(t, host, 6); string(b) != "urgent" {
		t.Errorf("%q", b)
	}
}

func TestKeepaliveFromGuest(t *testing.T) {
	r := newRig(t, false, Config{})
	g, _ := r.open()
	c := r.conn()
	for _, payload := range [][]byte{nil, {0}} {
		g.Raw(wire.ACK, g.Seq-1, g.Ack, nil, payload)
		if s := lastAck(g); s.TCP.Ack() != g.Seq || s.Flags() != wire.ACK {
			t.Errorf("flags %#x ack %d", s.Flags(), s.TCP.Ack())
		}
	}
	if on, _ := sys.GetInt(int(c.fd), sys.SOL_SOCKET, sys.SO_KEEPALIVE); on != 1 {
		t.Error("the host's side does not look after its peer")
	}
}

func TestInvalidSegments(t *testing.T) {
	r := newRig(t, false, Config{})
	g, _ := r.open()
	c := r.conn()
	seq, ack := g.Seq, g.Ack
	challenged := func(name string) {
		t.Helper()
		g.Pass()
		if len(g.Got) != 1 || g.Got[0].Flags() != wire.ACK || g.Got[0].TCP.Ack() != seq || g.Got[0].Seq() != ack {
			t.Errorf("%s: %d segments", name, len(g.Got))
		}
		g.Got = nil
		if c.phase() != "ESTABLISHED" || c.rcvNxt != seq {
			t.Errorf("%s: %s, took %d", name, c.phase(), c.rcvNxt-seq)
		}
	}
	g.Raw(wire.SYN, seq, 0, nil, nil)
	challenged("SYN in the window")
	g.Raw(wire.SYN, seq-5000, 0, nil, nil)
	challenged("SYN elsewhere")
	g.Raw(wire.ACK, seq, ack+1, nil, []byte("x"))
	challenged("acknowledgment of what was not sent")
	g.Raw(wire.ACK, seq, ack-1<<30, nil, []byte("x"))
	challenged("acknowledgment out of the past")
	g.Raw(wire.RST, seq+1, 0, nil, nil)
	challenged("RST in the window")
	g.Raw(wire.RST, seq-1, 0, nil, nil)
	g.Raw(wire.RST, c.edge, 0, nil, nil)
	g.Raw(0, seq, 0, nil, []byte("no ACK flag"))
	g.None()
	if c.phase() != "ESTABLISHED" || c.rcvNxt != seq {
		t.Errorf("%s, took %d", c.phase(), c.rcvNxt-seq)
	}
}

// TestChallengesLimited: a flood of bad segments is not a flood of answers.
func TestChallengesLimited(t *testing.T) {
	r := newRig(t, false, Config{})
	g, _ := r.open()
	for range 3 * challengeRate {
		g.Raw(wire.SYN, g.Seq, 0, nil, nil)
	}
	g.Pass()
	if n := len(g.Got); n > challengeRate {
		t.Errorf("%d answers", n)
	}
	g.Got = nil
	r.Advance(time.Second)
	g.Raw(wire.SYN, g.Seq, 0, nil, nil)
	g.Pass()
	if len(g.Got) != 1 {
		t.Error("none a second later")
	}
}

// TestOneByteSegments: a hostile guest's tiny segments neither pin a slot each
// nor get lost.
// TestTailRandom sends random segments into a socket that is read now and then,
// and compares what arrives.

// TestOldAck: an acknowledgment that was overtaken is no news, but the data
// with it is.
func TestOldAck(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	host.Write(pattern(3000))
	receiveSome(t, g, 3000)
	g.Raw(wire.ACK, g.Seq, g.Ack-1500, nil, []byte("data"))
	g.Pass()
	if b := readAll(t, host, 4); string(b) != "data" {
		t.Errorf("%q", b)
	}
	if r.conn().una != g.Ack {
		t.Error("went back")
	}
}

// TestOutOfOrderOfThePast: a queued segment that ends before what was taken since is nothing
// new, whatever end it claims.
func TestOutOfOrderOfThePast(t *testing.T) {
	r := newRig(t, false, Config{})
	g, host := r.open()
	data := pattern(300)
	g.Raw(wire.ACK|wire.FIN, g.Seq+100, g.Ack, nil, data[100:150])
	g.Send(0, data[:200])
	if r.conn().guestFIN {
		t.Fatal("an end amid the stream")
	}
	g.Send(0, data[200:])
	if got := readAll(t, host, 300); !bytes.Equal(got, data) {
		t.Error("contents differ")
	}
}

// TestSynWithData: what a SYN carries is not acknowledged with it, and arrives
// when the guest sends it again.
func TestSynWithData(t *testing.T) {
	r := newRig(t, false, Config{})
	g := r.dial()
	g.Raw(wire.SYN, g.Seq, 0, g.SynOptions(), []byte("early"))
	g.Seq++
	s := g.Next()
	if s.Flags() != wire.SYN|wire.ACK || s.TCP.Ack() != g.Seq {
		t.Fatalf("flags %#x, acknowledged %d beyond the SYN", s.Flags(), int32(s.TCP.Ack()-g.Seq))
	}
	g.Ack = s.Seq() + 1
	g.Send(wire.PSH, []byte("early"))
	host, err := r.ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	if got := readAll(t, host, 5); string(got) != "early" {
		t.Errorf("%q", got)
	}
}
