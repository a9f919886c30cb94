package udpx

import (
	"bytes"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
	"penne/test/guest"
)

// rig is a UDP translator with a scripted guest on one side and the host's
// loopback on the other.
type rig struct {
	*guest.Guest
	u *UDP
	t testing.TB
}

func newRig(t testing.TB) *rig { return newRigOf(t, 64) }

func newRigOf(t testing.TB, flows int) *rig {
	t.Helper()
	g := guest.New(t, 256)
	u, err := New(Config{Env: g.Env, Flows: flows})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return &rig{g, u, t}
}

// side is one family's addresses.
type side struct {
	name           string
	guest, gateway wire.Addr
	loopback       string
}

var (
	v4    = side{"v4", guest.Addr4, guest.Gateway4, "127.0.0.1"}
	v6    = side{"v6", guest.Addr6, guest.Gateway6, "::1"}
	sides = []side{v4, v6}
)

func eachSide(t *testing.T, fn func(t *testing.T, s side)) {
	for _, s := range sides {
		t.Run(s.name, func(t *testing.T) { fn(t, s) })
	}
}

// server is a UDP socket on the host's loopback.
type server struct {
	*net.UDPConn
	t testing.TB
}

func newServer(t testing.TB, s side) *server { return serverOn(t, s.loopback, 0) }

func serverOn(t testing.TB, ip string, port uint16) *server {
	t.Helper()
	at := netip.AddrPortFrom(netip.MustParseAddr(ip), port)
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &server{c, t}
}

func (s *server) port() uint16 { return s.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

// expect receives one datagram and returns who sent it.
func (s *server) expect(want []byte) netip.AddrPort {
	s.t.Helper()
	s.SetReadDeadline(time.Now().Add(guest.Patience))
	b := make([]byte, 1<<16)
	n, from, err := s.ReadFromUDPAddrPort(b)
	if err != nil {
		s.t.Fatalf("receive on the host: %v", err)
	}
	if !bytes.Equal(b[:n], want) {
		s.t.Fatalf("host got %d octets, want %d: %.40q", n, len(want), b[:n])
	}
	return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

func (s *server) reply(b []byte, to netip.AddrPort) {
	s.t.Helper()
	if _, err := s.WriteToUDPAddrPort(b, to); err != nil {
		s.t.Fatalf("send on the host: %v", err)
	}
}

// datagram is one from the guest to a server behind the gateway. Tests take ports
// below 32768, from where on the kernel gives them to others: flows of the guest
// have its port on the host, too.
func (s side) datagram(from, to uint16, payload []byte) *guest.Datagram {
	return &guest.Datagram{Src: s.guest, Dst: s.gateway, SrcPort: from, DstPort: to, Payload: payload}
}

// widen gives the first flow's socket room for all that a test sends at once,
// which is more than most kernels' net.core.rmem_max.
func (r *rig) widen() {
	r.t.Helper()
	fd := r.u.rec[0].fd
	if syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, largeBuffer) == nil {
		return
	}
	sys.SetReceiveBuffer(fd, largeBuffer)
	if n, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF); err != nil || n < 2*largeBuffer {
		r.t.Skipf("a receive buffer of %d octets takes CAP_NET_ADMIN here: %d, %v", largeBuffer, n/2, err)
	}
}

// out sends one batch of the guest's.
func (r *rig) out(ds ...*guest.Datagram) {
	r.t.Helper()
	fs := r.u.env.Pool.Size() - r.u.env.Pool.Free()
	batch := make([]*ring.Frame, 0, len(ds))
	for _, d := range ds {
		batch = append(batch, r.Datagram(d))
	}
	r.u.Input(batch)
	r.Env.Out.Flush()
	if used := r.u.env.Pool.Size() - r.u.env.Pool.Free(); used != fs {
		r.t.Fatalf("%d frames in use after Input, %d before", used, fs)
	}
}

// in waits for one frame to the guest.
func (r *rig) in() guest.Out {
	r.t.Helper()
	for len(r.Sent) == 0 {
		r.Wait(r.u.Event)
		r.Env.Out.Flush()
	}
	o := r.Sent[0]
	r.Sent = r.Sent[1:]
	return o
}

// check fails unless o is a valid datagram to the guest with this payload.
func (r *rig) check(o *guest.Out, want *guest.Datagram) {
	r.t.Helper()
	if o.Verdict != wire.OK || !o.SumOK() || !o.IPOK() {
		r.t.Fatalf("bad frame: verdict %d, L4 sum ok %v, IP sum ok %v", o.Verdict, o.SumOK(), o.IPOK())
	}
	got := flow.KeyOf(&o.H)
	key := flow.Key{Guest: want.Src, Remote: want.Dst, GuestPort: want.SrcPort, RemotePort: want.DstPort, Proto: wire.ProtoUDP}
	if got != key {
		r.t.Fatalf("frame of %v:%d > %v:%d, want %v:%d > %v:%d", got.Guest, got.GuestPort, got.Remote, got.RemotePort,
			key.Guest, key.GuestPort, key.Remote, key.RemotePort)
	}
	if !bytes.Equal(o.Payload(), want.Payload) {
		r.t.Fatalf("payload of %d octets, want %d: %.40q", len(o.Payload()), len(want.Payload), o.Payload())
	}
}
