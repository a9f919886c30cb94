package steer

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"go/format"
	"os"
	"testing"

	"github.com/cilium/ebpf/asm"

	"penne/internal/wire"
)

var update = flag.Bool("update", false, "write program.go anew")

// The program's stack, below the frame pointer R10. Registers: R6 the packet, R8 the offset of the
// transport header, R9 the protocol; then R1 to R4 the state of SipHash, R0 and R5 scratch.
const (
	words   = -40 // the five little-endian words that flow.Seed.Hash hashes
	guest   = words
	remote  = words + 16
	ports   = words + 32
	proto   = words + 36
	length  = words + 39
	scratch = -64 // up to 20 bytes of header
)

// assemble writes the program: the key of the frame as flow.KeyOf has it, hashed as flow.Seed.Hash
// does it, scaled as QueueOf does it. The symbols seed0, seed1 and queues mark constants to fill in.
func assemble() asm.Instructions {
	var p asm.Instructions
	p = append(p, asm.Mov.Reg(asm.R6, asm.R1), asm.Mov.Imm(asm.R0, 0))
	for at := int16(words); at < 0; at += 8 {
		p = append(p, asm.StoreMem(asm.RFP, at, asm.R0, asm.DWord))
	}
	p = append(p, load(12, scratch, 2, "queue0")...)
	p = append(p,
		asm.LoadMem(asm.R7, asm.RFP, scratch, asm.Half),
		asm.HostTo(asm.BE, asm.R7, asm.Half),
		asm.JEq.Imm(asm.R7, wire.EtherIPv4, "ipv4"),
		asm.JNE.Imm(asm.R7, wire.EtherIPv6, "queue0"),
	)
	p = append(p, keyIPv6()...)
	p = append(p, keyIPv4()...)
	p = append(p, keyPorts()...)
	p = append(p, sipHash()...)
	return append(p,
		asm.RSh.Imm(asm.R0, 32),
		asm.Mul.Imm(asm.R0, 0).WithSymbol("queues"),
		asm.RSh.Imm(asm.R0, 32),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("queue0"),
		asm.Return(),
	)
}

// load copies n bytes at a fixed offset of the frame to the stack; too short a frame jumps away.
func load(from int32, to int16, n int32, short string) asm.Instructions {
	return append(asm.Instructions{asm.Mov.Imm(asm.R2, from)}, loadAtR2(to, n, short)...)
}

func loadAtR2(to int16, n int32, short string) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, int32(to)),
		asm.Mov.Imm(asm.R4, n),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, short),
	}
}

// keyIPv6 takes both addresses at once (RFC 8200 section 3).
func keyIPv6() asm.Instructions {
	const ip = wire.EthLen
	p := load(ip+6, scratch, 1, "queue0")
	p = append(p, asm.LoadMem(asm.R9, asm.RFP, scratch, asm.Byte))
	p = append(p, load(ip+8, guest, 32, "queue0")...)
	return append(p, asm.Mov.Imm(asm.R8, ip+wire.IPv6Len), asm.Ja.Label("transport"))
}

// keyIPv4 writes the addresses in their v4-mapped form (RFC 791 section 3.1).
func keyIPv4() asm.Instructions {
	p := load(wire.EthLen, scratch, wire.IPv4Len, "queue0")
	p[0] = p[0].WithSymbol("ipv4")
	return append(p,
		asm.StoreImm(asm.RFP, guest+10, 0xffff, asm.Half),
		asm.StoreImm(asm.RFP, remote+10, 0xffff, asm.Half),
		asm.LoadMem(asm.R1, asm.RFP, scratch+12, asm.Word),
		asm.StoreMem(asm.RFP, guest+12, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.RFP, scratch+16, asm.Word),
		asm.StoreMem(asm.RFP, remote+12, asm.R1, asm.Word),
		asm.LoadMem(asm.R9, asm.RFP, scratch+9, asm.Byte),
		asm.LoadMem(asm.R8, asm.RFP, scratch, asm.Byte), // header length
		asm.And.Imm(asm.R8, 15),
		asm.LSh.Imm(asm.R8, 2),
		asm.Add.Imm(asm.R8, wire.EthLen),
		asm.LoadMem(asm.R1, asm.RFP, scratch+6, asm.Half), // more fragments, or an offset: no ports
		asm.HostTo(asm.BE, asm.R1, asm.Half),
		asm.And.Imm(asm.R1, 0x3fff),
		asm.JNE.Imm(asm.R1, 0, "hash"),
	)
}

// keyPorts adds the ports of TCP and UDP. A packet too short to have them is steered without.
func keyPorts() asm.Instructions {
	p := asm.Instructions{
		asm.JEq.Imm(asm.R9, wire.ProtoTCP, "ports").WithSymbol("transport"),
		asm.JNE.Imm(asm.R9, wire.ProtoUDP, "hash"),
		asm.Mov.Reg(asm.R2, asm.R8).WithSymbol("ports"),
	}
	p = append(p, loadAtR2(scratch, 4, "hash")...)
	for i := int16(0); i < 4; i += 2 {
		p = append(p,
			asm.LoadMem(asm.R1, asm.RFP, scratch+i, asm.Half),
			asm.HostTo(asm.BE, asm.R1, asm.Half),
			asm.StoreMem(asm.RFP, ports+i, asm.R1, asm.Half),
		)
	}
	return p
}

// sipHash leaves SipHash-1-3 of the words in R0.
func sipHash() asm.Instructions {
	p := asm.Instructions{
		asm.StoreMem(asm.RFP, proto, asm.R9, asm.Byte).WithSymbol("hash"),
		asm.StoreImm(asm.RFP, length, 37, asm.Byte),
		asm.LoadImm(asm.R1, 0, asm.DWord).WithSymbol("seed0"),
		asm.LoadImm(asm.R2, 0, asm.DWord).WithSymbol("seed1"),
		asm.Mov.Reg(asm.R3, asm.R1),
		asm.Mov.Reg(asm.R4, asm.R2),
	}
	for i, c := range []int64{0x736f6d6570736575, 0x646f72616e646f6d, 0x6c7967656e657261, 0x7465646279746573} {
		p = append(p, asm.LoadImm(asm.R5, c, asm.DWord), asm.Xor.Reg(asm.R1+asm.Register(i), asm.R5))
	}
	for at := int16(words); at < 0; at += 8 {
		p = append(p, asm.LoadMem(asm.R0, asm.RFP, at, asm.DWord), asm.Xor.Reg(asm.R4, asm.R0))
		p = append(p, sipRound()...)
		p = append(p, asm.Xor.Reg(asm.R1, asm.R0))
	}
	p = append(p, asm.Xor.Imm(asm.R3, 0xff))
	for range 3 {
		p = append(p, sipRound()...)
	}
	p = append(p, asm.Mov.Reg(asm.R0, asm.R1))
	for _, r := range []asm.Register{asm.R2, asm.R3, asm.R4} {
		p = append(p, asm.Xor.Reg(asm.R0, r))
	}
	return p
}

func sipRound() asm.Instructions {
	const v0, v1, v2, v3 = asm.R1, asm.R2, asm.R3, asm.R4
	var p asm.Instructions
	half := func(a, b asm.Register, n int32) { // a += b; b = rotate(b, n) ^ a
		p = append(p, asm.Add.Reg(a, b))
		p = append(p, rotate(b, n)...)
		p = append(p, asm.Xor.Reg(b, a))
	}
	half(v0, v1, 13)
	p = append(p, rotate(v0, 32)...)
	half(v2, v3, 16)
	half(v0, v3, 21)
	half(v2, v1, 17)
	return append(p, rotate(v2, 32)...)
}

func rotate(r asm.Register, n int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R5, r),
		asm.LSh.Imm(r, n),
		asm.RSh.Imm(asm.R5, 64-n),
		asm.Or.Reg(r, asm.R5),
	}
}

// marshal encodes a program as the kernel wants it.
func marshal(t *testing.T, insns asm.Instructions) []uint64 {
	var b bytes.Buffer
	if err := insns.Marshal(&b, binary.LittleEndian); err != nil {
		t.Fatal(err)
	}
	raw := make([]uint64, b.Len()/8)
	for i := range raw {
		raw[i] = binary.LittleEndian.Uint64(b.Next(8))
	}
	return raw
}

// source is program.go.
func source(t *testing.T) []byte {
	insns := assemble()
	raw := marshal(t, insns)
	var out bytes.Buffer
	slot := map[string]int{}
	for it := insns.Iterate(); it.Next(); {
		slot[it.Ins.Symbol()] = int(it.Offset)
	}
	fmt.Fprintf(&out, "// Code generated by go generate (program_test.go); DO NOT EDIT.\n\npackage steer\n\n")
	fmt.Fprintf(&out, "// Where programFor fills in its constants.\nconst (\nslotSeed0 = %d\nslotSeed1 = %d\nslotQueues = %d\n)\n\n",
		slot["seed0"], slot["seed1"], slot["queues"])
	fmt.Fprintf(&out, "// program is the steering program in the kernel's encoding.\nvar program = [...]uint64{")
	for i, insn := range raw {
		if i%6 == 0 {
			out.WriteByte('\n')
		}
		fmt.Fprintf(&out, "0x%016x,", insn)
	}
	out.WriteString("\n}\n")
	src, err := format.Source(out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func TestProgramIsCurrent(t *testing.T) {
	src := source(t)
	if *update {
		if err := os.WriteFile("program.go", src, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile("program.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(src, committed) {
		t.Error("program.go is not what program_test.go assembles: run go generate ./shard/steer")
	}
}
