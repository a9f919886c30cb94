package tcpx

import (
	"math/rand/v2"
	"testing"

	"penne/internal/wire"
	"penne/ring"
)

func TestInWindow(t *testing.T) {
	const next, edge = 0xffffff00, 0x00000100 // a window of 512 across the wrap
	for _, c := range []struct {
		name      string
		seq, span uint32
		want      bool
	}{
		{"empty at next", next, 0, true},
		{"empty before", next - 1, 0, false},
		{"empty last", edge - 1, 0, true},
		{"empty at edge", edge, 0, false},
		{"data at next", next, 1000, true},
		{"data before, reaching in", next - 10, 11, true},
		{"data before, ending at next", next - 10, 10, false},
		{"data at edge", edge, 1, false},
		{"data before edge", edge - 1, 5, true},
	} {
		if got := inWindow(c.seq, c.span, next, edge); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
	if !inWindow(7, 100, 7, 7) || inWindow(8, 0, 7, 7) || inWindow(6, 0, 7, 7) || inWindow(6, 1, 7, 7) {
		t.Error("closed window")
	}
}

func TestCut(t *testing.T) {
	for _, c := range [][6]uint32{ // seq, length, next, edge -> skip, drop
		{100, 50, 100, 200, 0, 0},
		{90, 50, 100, 200, 10, 0},
		{180, 50, 100, 200, 0, 30},
		{90, 200, 100, 200, 10, 90},
		{50, 50, 100, 200, 50, 0},
		{50, 40, 100, 200, 40, 0},
		{100, 50, 100, 100, 0, 50},
		{0xfffffff0, 32, 0, 100, 16, 0},
	} {
		if skip, drop := trim(c[0], c[1], c[2], c[3]); skip != c[4] || drop != c[5] {
			t.Errorf("trim%v = %d, %d", c[:4], skip, drop)
		}
	}
}

func TestJudgeReset(t *testing.T) {
	for seq, want := range map[uint32]resetVerdict{
		99: resetIgnore, 100: resetAccept, 101: resetChallenge, 150: resetAccept, 199: resetChallenge, 200: resetIgnore,
	} {
		if got := judgeReset(seq, 100, 150, 200); got != want {
			t.Errorf("%d: %d, want %d", seq, got, want)
		}
	}
}

func TestJudgeAck(t *testing.T) {
	for ack, want := range map[uint32]ackVerdict{
		1000: ackSame, 1001: ackNew, 2000: ackNew, 2001: ackFuture, 999: ackOld, 500: ackOld, 499: ackStale,
		1000 + 1<<31 - 1: ackFuture,
	} {
		if got := judgeAck(ack, 1000, 2000, 500); got != want {
			t.Errorf("%d: %d, want %d", ack, got, want)
		}
	}
}

func TestGuestMSS(t *testing.T) {
	for _, c := range []struct {
		option uint16
		v4     bool
		mtu    int
		want   uint16
	}{
		{1460, true, 65520, 1460}, {0, true, 65520, 536}, {0, false, 65520, 1220}, {1, true, 1500, 48},
		{65535, true, 65520, 65480}, {65535, false, 65520, 65460}, {9000, true, 1500, 1460}, {65535, true, 1 << 20, 65495},
	} {
		got := guestMSS(c.option, c.v4, c.mtu)
		if got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
		if n := chunkFor(got); n == 0 || n > ring.MaxPayload || got <= ring.MaxPayload && n%got != 0 {
			t.Errorf("frames of %d octets for an MSS of %d", n, got)
		}
	}
}

// TestOfferNeverLeft walks random windows: the edge never moves left, stands
// for what the field says, and is no further right than a step beyond the wish.
func TestOfferNeverLeft(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, scale := range []uint8{0, 8, 14} {
		ack := rng.Uint32()
		next, old := ack, ack
		for range 10000 {
			room := rng.Uint32N(5 << 20)
			field, edge := offer(ack, next, room, old, scale)
			if wire.SeqLT(edge, old) {
				t.Fatalf("edge %d left of %d", edge, old)
			}
			if edge != ack+uint32(field)<<scale {
				t.Fatalf("field %d does not stand for edge %d", field, edge-ack)
			}
			wish := max(next+room-ack, old-ack)
			if d := edge - ack; d > wish && d-wish > 1<<scale {
				t.Fatalf("window %d for a wish of %d", d, wish)
			}
			old = edge
			next += rng.Uint32N(edge - next + 1)
			ack += rng.Uint32N(next - ack + 1)
		}
	}
}

func TestWorthUpdate(t *testing.T) {
	const mss, allowance = 1460, 1 << 20
	for _, c := range []struct {
		next, edge, fresh uint32
		want              bool
	}{
		{0, 100000, 100000, false},
		{0, 100000, 100000 + allowance/8 - 1, false},
		{0, 100000, 100000 + allowance/8, true},
		{0, 0, 1, false},
		{0, 0, mss, true},
		{0, mss - 1, 2*mss - 1, true},
		{0, 100000, 90000, false},
	} {
		if got := worthUpdate(c.next, c.edge, c.fresh, allowance, mss); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
	if !worthUpdate(0, 0, 500, 1000, mss) {
		t.Error("a flow with a small allowance must hear of half of it")
	}
}

func TestSendRoom(t *testing.T) {
	for _, c := range [][4]uint32{ // window, flight, most -> room
		{0, 0, 1000, 0}, {1000, 0, 1000, 1000}, {1000, 1000, 1000, 0}, {500, 1000, 1000, 0},
		{100000, 99000, 100000, 0}, {100000, 98000, 100000, 2000}, {10, 0, 100000, 10}, {1000, 400, 1000, 600},
	} {
		if got := sendRoom(c[0], c[1], c[2], 1460); got != c[3] {
			t.Errorf("%v: %d", c, got)
		}
	}
}

func TestPoolShare(t *testing.T) {
	if poolShare(10, 128) != 0 || poolShare(128, 128) != 0 {
		t.Error("frames of the tap offered")
	}
	if got := poolShare(2048, 128); got != 240*ring.SlotSize/2 {
		t.Error(got)
	}
}

// TestHoldBound lets octets arrive at random times and looks again when told
// to: none stays unacknowledged for longer than the limit, and none is forced
// before three quarters of it.
func TestHoldBound(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	const limit = 120_000_000
	var h hold
	const base = 1<<32 - 5000 // the sequence number of octet 0: it soon wraps
	var arrived []int64       // when the octet with number i came
	acked, now := uint32(0), int64(1)
	for range 20000 {
		force, again := h.due(now, limit, base+acked, base+uint32(len(arrived)))
		force -= base
		for ; acked < force; acked++ {
			if age := now - arrived[acked]; age > limit || age < limit*3/4-limit/4-1 {
				t.Fatalf("octet of age %d forced", age)
			}
		}
		if (again == 0) != (acked == uint32(len(arrived))) {
			t.Fatalf("next look at %d with %d of %d acknowledged", again, acked, len(arrived))
		}
		step := rng.Int64N(limit / 3)
		if again != 0 {
			step = min(step, again-now)
		}
		now += max(step, 1)
		if rng.IntN(2) == 0 {
			arrived = append(arrived, now)
		}
		if rng.IntN(20) == 0 { // the remote acknowledges
			acked += rng.Uint32N(uint32(len(arrived)) - acked + 1)
		}
	}
}

func TestSynOptions(t *testing.T) {
	var b [12]byte
	for _, c := range []struct {
		scale int
		sack  bool
	}{{8, true}, {-1, true}, {8, false}, {-1, false}} {
		o := synOptions(b[:], 1460, c.scale, c.sack)
		if len(o)%4 != 0 {
			t.Errorf("%+v: %d octets", c, len(o))
		}
		var got wire.TCPOptions
		wire.TCP(append(make([]byte, wire.TCPLen), o...)).Options(&got)
		if got.Malformed || got.MSS != 1460 || got.SACKOK != c.sack || got.HasWS != (c.scale >= 0) || got.HasWS && got.WScale != 8 {
			t.Errorf("%+v: %+v", c, got)
		}
	}
}

func TestRTO(t *testing.T) {
	for tries, want := range map[uint8]int64{0: 1e9, 1: 2e9, 5: 32e9, 6: 60e9, 200: 60e9} {
		if got := rto(tries); got != want {
			t.Errorf("%d: %d", tries, got)
		}
	}
}
