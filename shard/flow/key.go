package flow

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"

	"penne/internal/wire"
)

// Key identifies a flow: addresses, ports and protocol as the guest sees them.
type Key struct {
	Guest, Remote         wire.Addr
	GuestPort, RemotePort uint16 // the identifier and 0 for an ICMP echo
	Proto                 uint8  // IP protocol number
	_                     [3]uint8
}

// KeyOf is the key of a frame that came from the guest.
func KeyOf(h *wire.Headers) Key {
	return Key{Guest: h.Src, Remote: h.Dst, GuestPort: h.SrcPort, RemotePort: h.DstPort, Proto: h.Proto}
}

// Seed is the key of the hash, so that a guest cannot choose flows that collide.
// All shards share one, since they share the directory.
type Seed [2]uint64

// NewSeed draws a random seed.
func NewSeed() Seed {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return Seed{binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])}
}

// Hash is SipHash-1-3 (Aumasson and Bernstein, 2012) of the key's 37 octets,
// taken as five words.
func (s *Seed) Hash(k *Key) uint64 {
	w := [5]uint64{
		binary.LittleEndian.Uint64(k.Guest[:8]), binary.LittleEndian.Uint64(k.Guest[8:]),
		binary.LittleEndian.Uint64(k.Remote[:8]), binary.LittleEndian.Uint64(k.Remote[8:]),
		uint64(k.GuestPort) | uint64(k.RemotePort)<<16 | uint64(k.Proto)<<32 | 37<<56,
	}
	v0, v1 := s[0]^0x736f6d6570736575, s[1]^0x646f72616e646f6d
	v2, v3 := s[0]^0x6c7967656e657261, s[1]^0x7465646279746573
	for _, m := range w {
		v3 ^= m
		v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
		v0 ^= m
	}
	v2 ^= 0xff
	for range 3 {
		v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
	}
	return v0 ^ v1 ^ v2 ^ v3
}

func sipRound(v0, v1, v2, v3 uint64) (uint64, uint64, uint64, uint64) {
	v0 += v1
	v1 = bits.RotateLeft64(v1, 13) ^ v0
	v0 = bits.RotateLeft64(v0, 32)
	v2 += v3
	v3 = bits.RotateLeft64(v3, 16) ^ v2
	v0 += v3
	v3 = bits.RotateLeft64(v3, 21) ^ v0
	v2 += v1
	v1 = bits.RotateLeft64(v1, 17) ^ v2
	v2 = bits.RotateLeft64(v2, 32)
	return v0, v1, v2, v3
}
