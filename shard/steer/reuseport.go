package steer

import (
	"errors"
	"fmt"
	"syscall"

	"penne/internal/sys"
)

// Spread is how the kernel chooses, for a connection from outside, one socket of a SO_REUSEPORT
// group.
type Spread uint8

const (
	// ByHash is the kernel's default: a keyed hash of addresses and ports.
	ByHash Spread = iota
	// ByRandom gives every connection to a random socket.
	ByRandom
	// ByCPU gives a connection to the socket whose index is the number of the CPU that handles its
	// SYN, modulo the number of sockets.
	ByCPU
)

func (s Spread) String() string {
	return [...]string{"hash", "random", "CPU"}[s]
}

// Reuseport sets how connections are spread over the SO_REUSEPORT group of fd, one of its sockets,
// and returns what is in force: want, or ByHash where the kernel knows no such programs (TCP before
// 4.6). sockets is their number; their index is the order in which they joined the group, which for
// TCP is by listen. Sockets of one group share the program, so that one call per group is enough; an
// index beyond the group falls back to ByHash. Needs no privilege.
//
// It is for listeners. A group of UDP sockets needs ByHash, because every datagram is spread anew.
func Reuseport(fd, sockets int, want Spread) (Spread, error) {
	if want == ByHash || sockets <= 1 {
		return ByHash, nil
	}
	err := sys.AttachReuseport(fd, spreadProgram(sockets, want))
	if errors.Is(err, syscall.ENOPROTOOPT) {
		return ByHash, nil
	}
	if err != nil {
		return ByHash, fmt.Errorf("attach reuseport program: %w", err)
	}
	return want, nil
}

// spreadProgram returns a number modulo sockets.
func spreadProgram(sockets int, by Spread) []sys.ClassicBPF {
	source := uint32(sys.SKF_AD_RANDOM)
	if by == ByCPU {
		source = sys.SKF_AD_CPU
	}
	return []sys.ClassicBPF{
		{Code: sys.BPF_LD | sys.BPF_W | sys.BPF_ABS, K: source},
		{Code: sys.BPF_ALU | sys.BPF_MOD | sys.BPF_K, K: uint32(sockets)},
		{Code: sys.BPF_RET | sys.BPF_A},
	}
}
