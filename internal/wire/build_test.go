package wire

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// TestPutUDP compares with sums computed by hand: of the addresses 0x1403 or, with
// the carry, 0xfa04, of protocol, ports and twice the length 0xac, and of the
// payload. 0 is sent as 0xffff (RFC 768).
func TestPutUDP(t *testing.T) {
	for _, c := range []struct {
		src, dst, payload string
		sum               uint16
	}{
		{"10.0.0.1", "10.0.0.2", "hi", 0xffff - (0x1403 + 0xac + 0x6869)},
		{"10.0.0.1", "10.0.0.2", "\xeb\x50", 0xffff},
		{"fd00::1", "fd00::2", "hi", 0xffff - (0xfa04 + 0xac + 0x6869 - 0xffff)},
	} {
		src, dst := addrOf(c.src), addrOf(c.dst)
		frame := make([]byte, EthLen+src.IPLen()+UDPLen+len(c.payload))
		PutEth(frame, &MAC{0x02}, &MAC{0x04}, src.EtherType())
		l4 := EthLen + PutIP(frame[EthLen:], UDPLen+len(c.payload), ProtoUDP, &src, &dst)
		copy(frame[l4+UDPLen:], c.payload)
		PutUDP(frame[l4:], 67, 68, &src, &dst)
		want := binary.BigEndian.AppendUint16([]byte{0, 67, 0, 68, 0, 10}, c.sum)
		if !bytes.Equal(frame[l4:l4+UDPLen], want) {
			t.Errorf("%s %x: header %x, want %x", c.src, c.payload, frame[l4:l4+UDPLen], want)
		}
		var h Headers
		if v := Parse(frame, &h); v != OK || !h.SumOK(frame) {
			t.Errorf("%s %x: verdict %d, or a wrong sum", c.src, c.payload, v)
		}
		frame[len(frame)-1] ^= 1
		if h.SumOK(frame) {
			t.Errorf("%s %x: a change goes unnoticed", c.src, c.payload)
		}
	}
}
