// Package steer makes the kernel choose the tap queue, and so the shard, of a frame from the guest by
// its flow, with an eBPF program where that may be loaded. Inbound connections need no steering: every
// shard watches a TCP listener, and a UDP port is a SO_REUSEPORT group or one shard's (package shard).
//
// Steering matters for speed only. Whatever is in force, a frame may reach another shard than the one
// that has its flow; the hand-off between shards takes care of that.
//
// It is used while shards are set up and owns nothing afterwards: the kernel keeps the program as long
// as the tap that it is attached to. The program is assembled with cilium/ebpf by this package's tests,
// which write program.go: the package itself does not import cilium/ebpf, whose size and initialisation
// every start of the process would pay for.
package steer

import (
	"errors"
	"fmt"
	"syscall"

	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard/flow"
)

//go:generate go test -count=1 -run TestProgramIsCurrent -update

// Mode is how the kernel chooses the queue of a frame that comes from the guest.
type Mode uint8

const (
	// Learning is the tap driver's default: a flow's frames come on the queue that frames to the
	// guest were last written to. Its table has at most 4096 entries, which expire after 3 s.
	Learning Mode = iota
	// EBPF is our program: the queue is [QueueOf] the flow.
	EBPF
)

func (m Mode) String() string {
	if m == EBPF {
		return "eBPF"
	}
	return "learning"
}

// Attach makes the kernel choose among the queues of tap's interface, all of which are attached, by
// [QueueOf] with this seed. It returns the mode in force, which is Learning after an error. That the
// process may not load the program (it takes CAP_BPF in the initial user namespace, or
// kernel.unprivileged_bpf_disabled 0), or that the kernel cannot steer (before 4.16), is no error.
func Attach(tap, queues int, seed *flow.Seed) (Mode, error) {
	if queues <= 1 {
		return Learning, nil // nothing to choose
	}
	insns := programFor(queues, seed)
	prog, err := sys.LoadSocketFilter("penne_steer", insns[:])
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSYS) {
		return Learning, nil
	}
	if err != nil {
		return Learning, fmt.Errorf("load steering program: %w", err)
	}
	defer syscall.Close(prog)
	err = sys.TunSetSteering(tap, prog)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTTY) {
		return Learning, nil // the driver does not know the request
	}
	if err != nil {
		return Learning, fmt.Errorf("attach steering program: %w", err)
	}
	return EBPF, nil
}

// QueueOf is the queue, 0 to queues-1, on which the frames of a flow arrive in mode EBPF: the upper half
// of the flow table's hash, scaled to the number of queues. Packets that are neither TCP nor UDP, and
// fragments, are hashed without ports; what is not IP goes to queue 0. The program does not walk IPv6
// extension headers: there k.Proto is the number of the first. Only tests call it.
func QueueOf(seed *flow.Seed, k *flow.Key, queues int) int {
	key := *k
	if key.Proto != wire.ProtoTCP && key.Proto != wire.ProtoUDP {
		key.GuestPort, key.RemotePort = 0, 0
	}
	return int(seed.Hash(&key) >> 32 * uint64(queues) >> 32)
}

// programFor is the program with its three constants filled in. The immediate value of an
// instruction is its upper half; a 64-bit one is spread over two instructions.
func programFor(queues int, seed *flow.Seed) [len(program)]uint64 {
	p := program
	for i, at := range [...]int{slotSeed0, slotSeed1} {
		p[at] |= seed[i] << 32
		p[at+1] |= seed[i] &^ (1<<32 - 1)
	}
	p[slotQueues] |= uint64(queues) << 32
	return p
}
