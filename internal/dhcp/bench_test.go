package dhcp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"penne/internal/fwd"
	"penne/internal/wire"
	"penne/test/responder"
)

var (
	ourMAC   = responder.OurMAC
	guestMAC = responder.GuestMAC
	guest    = addr("192.0.2.5")
	router   = addr("192.0.2.1")
	none     = addr("0.0.0.0")
)

func addr(s string) wire.Addr { return wire.AddrFrom(netip.MustParseAddr(s)) }

type bench struct {
	*responder.Bench
	conf Config
}

func newBench(t testing.TB) *bench {
	t.Helper()
	v4 := fwd.Family{On: true, Guest: guest, Bits: 24, Gateway: router, Ours: router}
	return &bench{Bench: responder.New(t, fwd.Rules{OurMAC: ourMAC, V4: v4})}
}

// put makes the input a datagram to the server; false if it is not ours.
func (b *bench) put(msg []byte) bool {
	d := responder.Datagram{MAC: wire.Broadcast, Src: none, Dst: broadcast4, SrcPort: clientPort, DstPort: serverPort, Payload: msg}
	return b.Load(d.Bytes()) == wire.OK && Handles(&b.In.H)
}

// input gives the message to Input and returns the reply's frame, if any.
func (b *bench) input(t testing.TB, msg []byte) []byte {
	t.Helper()
	if !b.put(msg) {
		t.Fatal("no message to the server")
	}
	return b.run()
}

func (b *bench) run() []byte { return b.Of(b.respond) }

func (b *bench) respond() { Input(&b.Env, &b.conf, b.In) }

// opt is one option.
func opt(code byte, v ...byte) []byte { return append([]byte{code, byte(len(v))}, v...) }

func optAddr(code byte, a wire.Addr) []byte { return opt(code, a.V4()...) }

// message builds a message as a client does; opts do not include the End option.
func message(kind byte, opts ...[]byte) []byte {
	b := make([]byte, offOptions)
	copy(b, []byte{1, 1, 6, 0, 0xca, 0xfe, 0xba, 0xbe, 0, 7})
	copy(b[offChaddr:], guestMAC[:])
	binary.BigEndian.PutUint32(b[offMagic:], magic)
	if kind != 0 {
		b = append(b, opt(optMessageType, kind)...)
	}
	return append(append(b, slices.Concat(opts...)...), optEnd)
}

func withClient(b []byte, a wire.Addr) []byte {
	copy(b[offCiaddr:], a.V4())
	return b
}

// decoded is a reply as another implementation reads it.
type decoded struct {
	layers.DHCPv4
	ip   layers.IPv4
	eth  layers.Ethernet
	opts map[byte][]byte // same codes joined, as RFC 3396 has it
}

// decode checks what every reply has in common.
func decode(t testing.TB, frame []byte) decoded {
	t.Helper()
	if frame == nil {
		t.Fatal("no reply")
	}
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		t.Fatalf("%v in %x", e.Error(), frame)
	}
	udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if !ok || udp.SrcPort != serverPort || udp.DstPort != clientPort {
		t.Fatalf("ports of %x", frame)
	}
	if err := udp.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
		t.Fatal(err)
	}
	if err, wrong := p.VerifyChecksums(); err != nil || len(wrong) > 0 {
		t.Errorf("checksums: %v %v", wrong, err)
	}
	d := decoded{DHCPv4: *p.Layer(layers.LayerTypeDHCPv4).(*layers.DHCPv4), ip: *p.Layer(layers.LayerTypeIPv4).(*layers.IPv4),
		eth: *p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet), opts: map[byte][]byte{}}
	for _, o := range d.Options {
		d.opts[byte(o.Type)] = append(d.opts[byte(o.Type)], o.Data...)
	}
	if d.Operation != layers.DHCPOpReply || d.Xid != 0xcafebabe || !bytes.Equal(d.ClientHWAddr, guestMAC[:]) || len(udp.Payload) < minMessage {
		t.Errorf("header %+v, %d octets", d.DHCPv4, len(udp.Payload))
	}
	if !bytes.Equal(d.opts[optServerID], router.V4()) || !d.ip.SrcIP.Equal(router.V4()) || !bytes.Equal(d.eth.SrcMAC, ourMAC[:]) {
		t.Errorf("server %v at %v, %v", d.opts[optServerID], d.ip.SrcIP, d.eth.SrcMAC)
	}
	return d
}
