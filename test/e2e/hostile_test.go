package e2e

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"penne/test/bed"
)

func init() { _ = bed.Register("hostile", hostileTool) }

// TestHostileGuest has the namespace send tens of thousands of frames that nobody sane sends, with offload headers to
// match, and wants the network to work as before, and the log not to have been flooded.
func TestHostileGuest(t *testing.T) {
	b := newBed(t)
	s := attach(t, b)
	remote := direct(t, b, b.Remote)
	serveIn(t, remote, "tcp", "who", at(bed.RemoteIP4, 7000), at(bed.RemoteIP6, 7000))
	const frames = 20000
	for _, offload := range []string{"", "offload"} {
		var sent int
		if err := s.Tool(&sent, "hostile", bed.Link, strconv.Itoa(frames), offload); err != nil {
			t.Fatal(err)
		}
		// With offload headers the kernel itself refuses what contradicts itself.
		if offload == "" && sent < frames*9/10 || sent < frames/20 {
			t.Errorf("%d of %d frames were sent %s", sent, frames, offload)
		}
		for _, f := range families {
			run(t, s, "ping", f.flag, "-c1", f.remote)
			if a := ask(t, s, "tcp", at(f.remote, 7000)); a.Remote == "" {
				t.Errorf("after frames %s: %+v", offload, a)
			}
		}
	}
	if said := s.Proc.Stderr.String(); strings.Count(said, "\n") > 20 {
		t.Errorf("the guest can fill the log: %.2000s", said)
	}
}

// hostileTool sends COUNT bad frames on IFACE, and tells how many the kernel took: IFACE COUNT ["offload"].
func hostileTool(args []string) (any, error) {
	link, err := net.InterfaceByName(args[0])
	if err != nil {
		return nil, err
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, err
	}
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd)
	h := hostile{rand: rand.New(rand.NewPCG(1, 2)), mac: link.HardwareAddr}
	if args[2] == "offload" {
		const solPacket, packetVnetHdr = 263, 15 // linux/if_packet.h
		if err := syscall.SetsockoptInt(fd, solPacket, packetVnetHdr, 1); err != nil {
			return nil, err
		}
		h.offload = true
	}
	sent := 0
	for range count {
		if syscall.Sendto(fd, h.frame(), 0, &syscall.SockaddrLinklayer{Ifindex: link.Index}) == nil {
			sent++
		}
	}
	return sent, nil
}

// hostile makes frames: headers that are nearly right, so that they get far.
type hostile struct {
	rand    *rand.Rand
	mac     net.HardwareAddr
	offload bool
}

// pick returns one of its arguments.
func pick[T any](h *hostile, of ...T) T { return of[h.rand.IntN(len(of))] }

func (h *hostile) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(h.rand.Uint32())
	}
	return b
}

func (h *hostile) port() uint16 { return pick(h, 0, 53, 67, 547, 7000, 40000, uint16(h.rand.Uint32())) }

// frame makes one, with a virtio-net header if there are offloads.
func (h *hostile) frame() []byte {
	b := slices.Concat([]byte{0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55}, h.mac)
	switch h.rand.IntN(10) {
	case 0:
		b = append(append(b, 8, 6), h.noise(pick(h, 0, 8, 28, 46))...)
	case 1:
		b = h.noise(14 + h.rand.IntN(200))
	case 2, 3, 4, 5:
		b = append(append(b, 8, 0), h.ip4(h.transport())...)
	default:
		b = append(append(b, 0x86, 0xdd), h.ip6(h.transport())...)
	}
	if h.rand.IntN(3) == 0 {
		for range 1 + h.rand.IntN(3) {
			b[h.rand.IntN(len(b))] = byte(h.rand.Uint32())
		}
	}
	if !h.offload {
		return b
	}
	return append(h.header(), append(b, h.noise(pick(h, 0, 0, 3000, 20000))...)...)
}

// header is struct virtio_net_hdr of linux/virtio_net.h, little endian.
func (h *hostile) header() []byte {
	b := []byte{pick[byte](h, 0, 1, 1), pick[byte](h, 0, 1, 3, 4, 5, 0x81)}
	for _, v := range []int{
		pick(h, 54, 74, 42, 62, h.rand.IntN(200)), pick(h, 0, 1, 536, 1400, 65535),
		pick(h, 34, 54, h.rand.IntN(100)), pick(h, 16, 6, 2),
	} {
		b = binary.LittleEndian.AppendUint16(b, uint16(v))
	}
	return b
}

func (h *hostile) ip4(proto byte, payload []byte) []byte {
	total := pick(h, 20+len(payload), 20+len(payload), 0, 19, 65535)
	b := []byte{0x40 | pick[byte](h, 5, 5, 5, 6, 15, 4, 0), 0, byte(total >> 8), byte(total), 0, 1,
		pick[byte](h, 0, 0, 0, 0x20, 0x40), pick[byte](h, 0, 0, 100), 64, proto, 0, 0}
	b = h.addr(b, bed.HostIP4, bed.HostIP4, "0.0.0.0", "127.0.0.1", "224.1.1.1", "255.255.255.255", "10.0.0.1")
	b = h.addr(b, bed.RemoteIP4, bed.RemoteIP4, bed.GatewayIP4, bed.HostIP4, "224.0.0.1", "255.255.255.255", "127.0.0.1", "0.0.0.0")
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum>>16+sum))
	return append(b, payload...)
}

func (h *hostile) ip6(proto byte, payload []byte) []byte {
	if proto == 1 {
		proto = 58
	}
	next := pick(h, proto, proto, proto, 0, 43, 44, 60, 59, 50)
	length := pick(h, len(payload), len(payload), 0, 65535)
	b := []byte{0x60, 0, 0, 0, byte(length >> 8), byte(length), next, pick[byte](h, 64, 255)}
	b = h.addr(b, bed.HostIP6, bed.HostIP6, "::", "::1", "ff02::1", "fe80::5", "::ffff:192.0.2.1")
	b = h.addr(b, bed.RemoteIP6, bed.RemoteIP6, bed.GatewayIP6, "ff02::1", "ff02::2", "ff02::1:2", "::", "::1", "fe80::1")
	return append(b, payload...)
}

func (h *hostile) addr(b []byte, of ...string) []byte {
	return append(b, netip.MustParseAddr(pick(h, of...)).AsSlice()...)
}

// transport makes what is inside IP, and its protocol.
func (h *hostile) transport() (proto byte, b []byte) {
	b = binary.BigEndian.AppendUint16(b, h.port())
	b = binary.BigEndian.AppendUint16(b, h.port())
	switch h.rand.IntN(4) {
	case 0:
		n := pick(h, 0, 1, 20, 1400)
		b = binary.BigEndian.AppendUint16(b, pick(h, uint16(8+n), 0, 7, 65535))
		return 17, append(append(b, 0, 0), h.noise(n)...)
	case 1:
		types := pick[byte](h, 8, 0, 3, 5, 11, 128, 129, 133, 134, 135, 136, 137, 143)
		return 1, append([]byte{types, pick[byte](h, 0, 0, 1, 255), 0, 0}, h.noise(pick(h, 0, 4, 20, 60))...)
	}
	b = append(append(b, h.noise(8)...), pick[byte](h, 0x50, 0x60, 0xf0, 0x40, 0), byte(h.rand.Uint32()))
	return 6, append(append(b, h.noise(6)...), h.noise(pick(h, 0, 0, 20, 1400))...)
}
