package engine

import (
	"testing"

	"penne/internal/wire"
)

// frame is an Ethernet frame with an IPv4 packet of a protocol.
func frame(proto uint8, l4 []byte) []byte {
	b := make([]byte, wire.EthLen+wire.IPv4Len)
	wire.PutEth(b, &wire.MAC{}, &wire.MAC{}, wire.EtherIPv4)
	src, dst := w("192.0.2.2"), w("198.51.100.3")
	wire.PutIPv4(b[wire.EthLen:], wire.IPv4Len+len(l4), proto, 64, &src, &dst)
	return append(b, l4...)
}

func TestDescribeFrame(t *testing.T) {
	tcp := make([]byte, wire.TCPLen+3)
	copy(tcp, []byte{0x80, 0, 0, 80, 0, 0, 0, 7, 0, 0, 0, 9, 5 << 4, 0x12, 1, 0})
	udp := []byte{0x80, 0, 0, 53, 0, 9, 0, 0, 'x'}
	fragment := frame(wire.ProtoUDP, udp)
	fragment[wire.EthLen+6] = 0x20 // more fragments
	for _, c := range []struct {
		b    []byte
		want string
	}{
		{frame(wire.ProtoTCP, tcp), "TCP 192.0.2.2:32768 > 198.51.100.3:80 SA seq 7 ack 9 win 256 len 3"},
		{frame(wire.ProtoUDP, udp), "UDP 192.0.2.2:32768 > 198.51.100.3:53 len 1"},
		{frame(wire.ProtoICMP, []byte{8, 0, 0, 0, 0, 1, 0, 1}), "ICMP 192.0.2.2 > 198.51.100.3 type 8 code 0 len 0"},
		{fragment, "fragment 192.0.2.2 > 198.51.100.3 protocol 17, 43 bytes"},
		{append(make([]byte, 12), 0x08, 0x06), "ARP, 14 bytes"},
		{append(make([]byte, 12), 0x88, 0xcc), "EtherType 0x88cc, not understood, 14 bytes"},
		{[]byte{1, 2}, "EtherType 0x0000, not understood, 2 bytes"},
	} {
		if got := describeFrame(c.b); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
