package steer

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"penne/internal/wire"
	"penne/shard/flow"
)

// kernelProgram loads the program with its constants filled in. As a traffic control program,
// because the kernel's test run starts those at the Ethernet header, as a tap does.
func kernelProgram(tb testing.TB, queues int, seed *flow.Seed) *ebpf.Program {
	tb.Helper()
	insns := assemble()
	for i := range insns {
		switch insns[i].Symbol() {
		case "seed0":
			insns[i].Constant = int64(seed[0])
		case "seed1":
			insns[i].Constant = int64(seed[1])
		case "queues":
			insns[i].Constant = int64(queues)
		}
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, Instructions: insns, License: "Apache-2.0"})
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, os.ErrPermission) {
		tb.Skipf("cannot load eBPF programs: %v", err)
	}
	if err != nil {
		tb.Fatalf("load: %+v", err)
	}
	tb.Cleanup(func() { prog.Close() })
	return prog
}

// runnable says whether the kernel's test run takes a frame; it refuses (EINVAL) what is cut before
// the end of the IP header, so only a real tap shows what becomes of that.
func runnable(frame []byte) bool {
	if len(frame) < wire.EthLen || len(frame) > 2048 {
		return false
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case wire.EtherIPv4:
		return len(frame) >= wire.EthLen+wire.IPv4Len
	case wire.EtherIPv6:
		return len(frame) >= wire.EthLen+wire.IPv6Len
	}
	return len(frame) > wire.EthLen
}

// run returns what the kernel makes of a frame.
func run(tb testing.TB, prog *ebpf.Program, frame []byte) int {
	tb.Helper()
	queue, _, err := prog.Test(frame)
	if err != nil {
		tb.Fatalf("run program on %d bytes: %v", len(frame), err)
	}
	return int(queue)
}

// predict is the program in Go, written from the RFCs and not from the assembly.
func predict(seed *flow.Seed, frame []byte, queues int) int {
	var k flow.Key
	l4 := len(frame)
	switch ip := frame[wire.EthLen:]; binary.BigEndian.Uint16(frame[12:]) {
	case wire.EtherIPv4:
		if len(ip) < wire.IPv4Len {
			return 0
		}
		k.Guest, k.Remote, k.Proto = wire.Addr4(ip[12:]), wire.Addr4(ip[16:]), ip[9]
		if binary.BigEndian.Uint16(ip[6:])&0x3fff == 0 {
			l4 = wire.EthLen + int(ip[0]&15)*4
		}
	case wire.EtherIPv6:
		if len(ip) < wire.IPv6Len {
			return 0
		}
		k.Guest, k.Remote, k.Proto = wire.Addr6(ip[8:]), wire.Addr6(ip[24:]), ip[6]
		l4 = wire.EthLen + wire.IPv6Len
	default:
		return 0
	}
	if l4+4 <= len(frame) {
		k.GuestPort, k.RemotePort = binary.BigEndian.Uint16(frame[l4:]), binary.BigEndian.Uint16(frame[l4+2:])
	}
	return QueueOf(seed, &k, queues)
}

// frames returns one frame of each shape for a flow drawn from r.
func frames(r *rand.Rand) map[string][]byte {
	payload := make([]byte, 24)
	for i := range payload {
		payload[i] = byte(r.Uint32())
	}
	payload[12] = 5 << 4 // a TCP header length that wire.Parse accepts
	binary.BigEndian.PutUint16(payload[4:], 24)
	return map[string][]byte{
		"TCP over IPv4":          ipv4(r, wire.ProtoTCP, 5, 0, payload),
		"UDP over IPv4":          ipv4(r, wire.ProtoUDP, 5, 0x4000, payload), // don't fragment
		"UDP, IPv4 options":      ipv4(r, wire.ProtoUDP, 15, 0, payload),
		"ICMP":                   ipv4(r, wire.ProtoICMP, 5, 0, payload),
		"first fragment":         ipv4(r, wire.ProtoUDP, 5, 0x2000, payload),
		"last fragment":          ipv4(r, wire.ProtoUDP, 5, 0x00b9, payload),
		"TCP over IPv6":          ipv6(r, wire.ProtoTCP, payload),
		"UDP over IPv6":          ipv6(r, wire.ProtoUDP, payload),
		"ICMPv6":                 ipv6(r, wire.ProtoICMPv6, payload),
		"IPv6 fragment":          ipv6(r, 44, payload),
		"IPv4 cut in its ports":  ipv4(r, wire.ProtoTCP, 5, 0, payload[:3]),
		"IPv4 cut in its header": ipv4(r, wire.ProtoTCP, 5, 0, nil)[:wire.EthLen+19],
		"IPv6 cut in its ports":  ipv6(r, wire.ProtoUDP, payload[:3]),
		"IPv6 cut in its header": ipv6(r, wire.ProtoUDP, nil)[:wire.EthLen+39],
		"ARP":                    ethernet(wire.EtherARP, payload),
		"no payload":             ethernet(wire.EtherIPv4, nil),
	}
}

func ethernet(etherType uint16, payload []byte) []byte {
	f := append([]byte{0: 0x02, 5: 0x01, 6: 0x02, 11: 0x02}, byte(etherType>>8), byte(etherType))
	return append(f, payload...)
}

func ipv4(r *rand.Rand, proto byte, words int, fragment uint16, payload []byte) []byte {
	h := make([]byte, words*4, words*4+len(payload))
	h[0], h[8], h[9] = 4<<4|byte(words), 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(cap(h)))
	binary.BigEndian.PutUint16(h[6:], fragment)
	binary.BigEndian.PutUint64(h[12:], r.Uint64())
	return ethernet(wire.EtherIPv4, append(h, payload...))
}

func ipv6(r *rand.Rand, next byte, payload []byte) []byte {
	h := make([]byte, wire.IPv6Len, wire.IPv6Len+len(payload))
	h[0], h[6], h[7] = 6<<4, next, 64
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	for at := 8; at < wire.IPv6Len; at += 8 {
		binary.BigEndian.PutUint64(h[at:], r.Uint64())
	}
	return ethernet(wire.EtherIPv6, append(h, payload...))
}

// TestProgramAgainstGo runs every shape of frame, many flows each, through the program in the kernel.
func TestProgramAgainstGo(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, queues := range []int{2, 3, 16} {
		seed := flow.NewSeed()
		prog := kernelProgram(t, queues, &seed)
		for range 200 {
			for name, f := range frames(r) {
				if !runnable(f) {
					continue
				}
				if got, want := run(t, prog, f), predict(&seed, f, queues); got != want {
					t.Fatalf("%s, %d queues: %d in the kernel, %d in Go\n%x", name, queues, got, want, f)
				}
			}
		}
	}
}

// TestQueueIsTheFlowTables compares, for frames of whole flows, with the key that the shard makes of
// the frame: what a shard calls the flow's queue is where its frames arrive.
func TestQueueIsTheFlowTables(t *testing.T) {
	const queues = 5
	r := rand.New(rand.NewPCG(3, 4))
	seed := flow.NewSeed()
	used := [queues]int{}
	for range 500 {
		all := frames(r)
		for _, name := range []string{"TCP over IPv4", "UDP over IPv4", "UDP, IPv4 options", "TCP over IPv6", "UDP over IPv6", "ICMP", "ICMPv6"} {
			var h wire.Headers
			if v := wire.Parse(all[name], &h); v != wire.OK {
				t.Fatalf("%s: the frame does not parse: %v", name, v)
			}
			k := flow.KeyOf(&h)
			if name == "ICMP" || name == "ICMPv6" {
				all[name] = all[name][:h.L4] // the program does not look at its header
			}
			got, want := QueueOf(&seed, &k, queues), predict(&seed, all[name], queues)
			if got != want {
				t.Fatalf("%s: queue %d by the flow's key, %d by the frame's bytes", name, got, want)
			}
			used[got]++
		}
	}
	for q, n := range used {
		if n < 500 { // 700 expected, 24 standard deviation
			t.Errorf("queue %d has %d of 3500 frames: not spread evenly: %v", q, n, used)
		}
	}
}

// TestProgramForFillsConstants checks the patching of the committed program against the assembler.
func TestProgramForFillsConstants(t *testing.T) {
	seed := flow.Seed{0x0123456789abcdef, 0xfedcba9876543210}
	got := programFor(11, &seed)
	insns := assemble()
	for i := range insns {
		switch insns[i].Symbol() {
		case "seed0":
			insns[i] = asm.LoadImm(asm.R1, int64(seed[0]), asm.DWord)
		case "seed1":
			insns[i] = asm.LoadImm(asm.R2, -0x123456789abcdf0, asm.DWord)
		case "queues":
			insns[i] = asm.Mul.Imm(asm.R0, 11)
		}
	}
	want := marshal(t, insns)
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("instruction %d: %016x, want %016x", i, got[i], want[i])
		}
	}
}

func TestQueueOfNoAlloc(t *testing.T) {
	seed := flow.NewSeed()
	k := flow.Key{Proto: wire.ProtoICMP, GuestPort: 1}
	if n := testing.AllocsPerRun(1000, func() { QueueOf(&seed, &k, 4) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzProgram feeds the program what a hostile guest may send.
func FuzzProgram(f *testing.F) {
	for _, frame := range frames(rand.New(rand.NewPCG(5, 6))) {
		f.Add(frame)
	}
	seed := flow.NewSeed()
	prog := kernelProgram(f, 7, &seed)
	f.Fuzz(func(t *testing.T, frame []byte) {
		if !runnable(frame) {
			return
		}
		if got, want := run(t, prog, frame), predict(&seed, frame, 7); got != want {
			t.Fatalf("%d in the kernel, %d in Go", got, want)
		}
	})
}
