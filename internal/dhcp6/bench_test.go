package dhcp6

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
	ours     = addr("fe80::1")
	client   = addr("fe80::ff:fe00:7")
	guest    = addr("2001:db8::5")
	other    = addr("2001:db8::77")

	clientDUID = []byte{0, 3, 0, 1, 2, 0, 0, 0, 0, 7}
	serverDUID = []byte{0, 3, 0, 1, 0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55}
)

func addr(s string) wire.Addr { return wire.AddrFrom(netip.MustParseAddr(s)) }

type bench struct {
	*responder.Bench
	src, dst wire.Addr
	conf     Config
}

func newBench(t testing.TB) *bench {
	t.Helper()
	rules := fwd.Rules{OurMAC: ourMAC, LinkLocal6: ours, V6: fwd.Family{On: true, Guest: guest, Bits: 64}}
	return &bench{Bench: responder.New(t, rules), src: client, dst: allServers}
}

// put makes the input a datagram to the server; false if it is not ours.
func (b *bench) put(msg []byte) bool {
	d := responder.Datagram{MAC: wire.MAC{0x33, 0x33, 0, 1, 0, 2}, Src: b.src, Dst: b.dst, SrcPort: clientPort, DstPort: serverPort, Payload: msg}
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
func opt(code uint16, v ...[]byte) []byte {
	body := slices.Concat(v...)
	b := binary.BigEndian.AppendUint16(nil, code)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
}

// na is an association of addresses as a client sends it.
func na(id byte, addrs ...wire.Addr) []byte { return ia(optIANA, id, make([]byte, 8), addrs) }

func ta(id byte, addrs ...wire.Addr) []byte { return ia(optIATA, id, nil, addrs) }

func ia(code uint16, id byte, times []byte, addrs []wire.Addr) []byte {
	parts := [][]byte{{0, 0, 0, id}, times}
	for _, a := range addrs {
		parts = append(parts, opt(optIAAddr, a[:], make([]byte, 8)))
	}
	return opt(code, parts...)
}

func pd(id byte) []byte { return opt(optIAPD, []byte{0, 0, 0, id}, make([]byte, 8)) }

var cid, sid = opt(optClientID, clientDUID), opt(optServerID, serverDUID)

// message builds a message as a client does.
func message(kind byte, opts ...[]byte) []byte {
	return append([]byte{kind, 0xca, 0xfe, 0xba}, slices.Concat(opts...)...)
}

// decode checks what every reply has in common and returns it as another
// implementation reads it.
func decode(t testing.TB, frame []byte) *layers.DHCPv6 {
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
	ip, eth := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6), p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	if !ip.SrcIP.Equal(ours[:]) || !ip.DstIP.Equal(client[:]) || !bytes.Equal(eth.SrcMAC, ourMAC[:]) || !bytes.Equal(eth.DstMAC, guestMAC[:]) {
		t.Errorf("from %v, %v to %v, %v", ip.SrcIP, eth.SrcMAC, ip.DstIP, eth.DstMAC)
	}
	d := p.Layer(layers.LayerTypeDHCPv6).(*layers.DHCPv6)
	if !bytes.Equal(d.TransactionID, []byte{0xca, 0xfe, 0xba}) || !bytes.Equal(find(d, optServerID), serverDUID) {
		t.Errorf("transaction %x, server %x", d.TransactionID, find(d, optServerID))
	}
	return d
}

// find returns the first option of a code, nil if there is none.
func find(d *layers.DHCPv6, code uint16) []byte {
	for _, o := range d.Options {
		if uint16(o.Code) == code {
			return append([]byte{}, o.Data...)
		}
	}
	return nil
}

// body is a reply's message without type, transaction and identifiers.
func body(t testing.TB, frame []byte) []byte {
	t.Helper()
	decode(t, frame)
	b := frame[wire.EthLen+wire.IPv6Len+wire.UDPLen:]
	b = bytes.TrimPrefix(b[lenHeader:], sid)
	return bytes.TrimPrefix(b, cid)
}
