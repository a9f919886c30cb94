package dhcp

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/wire"
	"penne/test/responder"
)

// TestOfferBytes compares with an offer laid out by hand from the RFCs.
func TestOfferBytes(t *testing.T) {
	b := newBench(t)
	b.conf = Config{MTU: 65520, DNS: []wire.Addr{addr("198.51.100.53"), addr("2001:db8::53"), addr("198.51.100.54")},
		Search: []string{"example.org", "a.b."}, Hostname: "box"}
	got := b.input(t, message(msgDiscover))
	want := responder.Unhex(t, `35 01 02  36 04 c0000201  33 04 ffffffff  01 04 ffffff00  03 04 c0000201
		06 08 c6336435 c6336436  1a 02 fff0  0c 03 626f78
		77 12 07 6578616d706c65 03 6f7267 00 01 61 01 62 00  ff`)
	opts := got[wire.EthLen+ipUDP+offOptions:]
	if !bytes.HasPrefix(opts, want) {
		t.Errorf("got  %x\nwant %x", opts, want)
	}
	d := decode(t, got)
	if !d.YourClientIP.Equal(guest.V4()) || !d.ip.DstIP.Equal(guest.V4()) || !bytes.Equal(d.eth.DstMAC, guestMAC[:]) {
		t.Errorf("offers %v to %v, %v", d.YourClientIP, d.ip.DstIP, d.eth.DstMAC)
	}
}

func TestAnswers(t *testing.T) {
	other := addr("192.0.2.77")
	for _, c := range []struct {
		name string
		msg  []byte
		want byte
		drop stats.Reason // if want is msgNone; NumReasons for none
	}{
		{"discover", message(msgDiscover), msgOffer, 0},
		{"discover an address of old", message(msgDiscover, optAddr(optRequestedIP, other)), msgOffer, 0},
		{"rapid commit", message(msgDiscover, opt(optRapidCommit)), msgAck, 0},
		{"select", message(msgRequest, optAddr(optServerID, router), optAddr(optRequestedIP, guest)), msgAck, 0},
		{"select another server", message(msgRequest, optAddr(optServerID, other), optAddr(optRequestedIP, guest)), msgNone, stats.Unanswered},
		{"select another address", message(msgRequest, optAddr(optServerID, router), optAddr(optRequestedIP, other)), msgNak, 0},
		{"reboot", message(msgRequest, optAddr(optRequestedIP, guest)), msgAck, 0},
		{"reboot with another address", message(msgRequest, optAddr(optRequestedIP, other)), msgNak, 0},
		{"renew", withClient(message(msgRequest), guest), msgAck, 0},
		{"renew another address", withClient(message(msgRequest), other), msgNak, 0},
		{"request nothing", message(msgRequest), msgNone, stats.Unanswered},
		{"inform", withClient(message(msgInform), other), msgAck, 0},
		{"inform from nowhere", message(msgInform), msgNone, stats.Unanswered},
		{"decline", message(msgDecline, optAddr(optRequestedIP, guest)), msgNone, stats.NumReasons},
		{"release", withClient(message(msgRelease), guest), msgNone, stats.NumReasons},
		{"BOOTP (RFC 951)", message(0), msgNone, stats.Unanswered},
		{"an offer", message(msgOffer), msgNone, stats.Unanswered},
		{"lease query (RFC 4388)", message(10), msgNone, stats.Unanswered},
		{"no End option", message(msgDiscover)[:offOptions+3], msgOffer, 0},
		{"padding between options", message(msgDiscover, []byte{0, 0}, opt(optRapidCommit)), msgAck, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			got := b.input(t, c.msg)
			var drops [stats.NumReasons]uint64
			if c.want == msgNone {
				if got != nil {
					t.Errorf("reply %x", got)
				}
				if c.drop != stats.NumReasons {
					drops[c.drop] = 1
				}
			} else if d := decode(t, got); !bytes.Equal(d.opts[optMessageType], []byte{c.want}) {
				t.Errorf("reply of type %v, want %d", d.opts[optMessageType], c.want)
			}
			if b.Count.Drops != drops {
				t.Errorf("drops %v", b.Count.Drops)
			}
		})
	}
}

// TestReceiver: where a reply goes follows from flags, state and type.
func TestReceiver(t *testing.T) {
	broadcast := message(msgDiscover)
	broadcast[offFlags] = 0x80
	for _, c := range []struct {
		name     string
		msg      []byte
		ip       wire.Addr
		mac      wire.MAC
		your, ci wire.Addr
	}{
		{"discover", message(msgDiscover), guest, guestMAC, guest, none},
		{"broadcast flag", broadcast, broadcast4, wire.Broadcast, guest, none},
		{"renew", withClient(message(msgRequest), guest), guest, guestMAC, guest, guest},
		{"nak", withClient(message(msgRequest), addr("192.0.2.77")), broadcast4, wire.Broadcast, none, none},
		{"inform", withClient(message(msgInform), addr("192.0.2.77")), addr("192.0.2.77"), guestMAC, none, addr("192.0.2.77")},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := decode(t, newBench(t).input(t, c.msg))
			if !d.ip.DstIP.Equal(c.ip.V4()) || !bytes.Equal(d.eth.DstMAC, c.mac[:]) {
				t.Errorf("to %v, %v", d.ip.DstIP, d.eth.DstMAC)
			}
			if !d.YourClientIP.Equal(c.your.V4()) || !d.ClientIP.Equal(c.ci.V4()) {
				t.Errorf("yiaddr %v, ciaddr %v", d.YourClientIP, d.ClientIP)
			}
			if d.Flags != uint16(c.msg[offFlags])<<8 {
				t.Errorf("flags %x", d.Flags)
			}
		})
	}
}

// TestOptionsOfEachType: no lease without one, nothing but names in a NAK.
func TestOptionsOfEachType(t *testing.T) {
	id := opt(optClientID, 1, 2, 3)
	for _, c := range []struct {
		name string
		msg  []byte
		want []byte // codes besides 53 and 54
	}{
		{"offer", message(msgDiscover, id), []byte{optLease, optClientID, optMask, optRouter}},
		{"rapid ack", message(msgDiscover, opt(optRapidCommit)), []byte{optLease, optRapidCommit, optMask, optRouter}},
		{"ack", message(msgRequest, optAddr(optRequestedIP, guest), opt(optRapidCommit)), []byte{optLease, optMask, optRouter}},
		{"inform", withClient(message(msgInform, id), guest), []byte{optClientID, optMask, optRouter}},
		{"nak", message(msgRequest, id, optAddr(optRequestedIP, router)), []byte{optClientID}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := decode(t, newBench(t).input(t, c.msg))
			for _, code := range c.want {
				if _, ok := d.opts[code]; !ok {
					t.Errorf("option %d is missing", code)
				}
				delete(d.opts, code)
			}
			for code := range d.opts {
				if code != optMessageType && code != optServerID && code != optEnd && code != optPad {
					t.Errorf("option %d is there", code)
				}
			}
		})
	}
}

func TestNetworkOptions(t *testing.T) {
	for _, c := range []struct {
		name, gateway string
		bits          uint8
		mask, routes  string
	}{
		{"on the link", "192.0.2.1", 24, "ffffff00", ""},
		{"point to point", "10.0.0.1", 32, "ffffffff", "20 0a000001 00000000 00 0a000001"},
		{"outside the prefix", "192.0.3.1", 24, "ffffff00", "20 c0000301 00000000 00 c0000301"},
		{"whole Internet", "10.0.0.1", 1, "80000000", "20 0a000001 00000000 00 0a000001"},
		{"no router", "", 24, "ffffff00", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.Rules.V4.Bits, b.Rules.V4.Gateway = c.bits, wire.Addr{}
			if c.gateway != "" {
				b.Rules.V4.Gateway = addr(c.gateway)
			}
			d := decode(t, b.input(t, message(msgDiscover)))
			var gw []byte
			if c.gateway != "" {
				gw = b.Rules.V4.Gateway.V4()
			}
			if !bytes.Equal(d.opts[optMask], responder.Unhex(t, c.mask)) || !bytes.Equal(d.opts[optRouter], gw) ||
				!bytes.Equal(d.opts[optClasslessRoutes], responder.Unhex(t, c.routes)) {
				t.Errorf("mask %x, router %x, routes %x", d.opts[optMask], d.opts[optRouter], d.opts[optClasslessRoutes])
			}
		})
	}
}

func TestFQDN(t *testing.T) {
	wireName := "03 626f78 07 6578616d706c65 00"
	for _, c := range []struct {
		name string
		opts []byte
		want string
	}{
		{"not asked for", nil, ""},
		{"asked for", opt(optParams, 1, 81), "0c ff ff" + wireName},
		{"sent", opt(optFQDN, 4, 0, 0, 0), "0c ff ff" + wireName},
		{"wants the server to update", opt(optFQDN, 5, 0, 0), "0e ff ff" + wireName},
		{"old encoding", opt(optFQDN, 1, 0, 0, 'x'), "0a ff ff" + hex.EncodeToString([]byte("box.example"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.conf.FQDN = "box.example."
			d := decode(t, b.input(t, message(msgDiscover, c.opts)))
			if !bytes.Equal(d.opts[optFQDN], responder.Unhex(t, c.want)) {
				t.Errorf("got %x, want %s", d.opts[optFQDN], c.want)
			}
		})
	}
}

// TestSearchIsSplitAndCut: a long list goes into several options (RFC 3396), and
// no further than the client takes; names that are none are left out.
func TestSearchIsSplitAndCut(t *testing.T) {
	label := strings.Repeat("x", 60)
	b := newBench(t)
	b.conf.Search = []string{"", ".", "a..b", strings.Repeat("y", 64), label + ".org"}
	for range 20 {
		b.conf.Search = append(b.conf.Search, label+"."+label+".example")
	}
	for _, c := range []struct{ max, names, datagram int }{{0, 2, 576}, {400, 2, 576}, {1000, 5, 1000}, {1500, 9, 1500}, {9000, 9, 1500}} {
		d := decode(t, b.input(t, message(msgDiscover, opt(optMaxMessageSize, byte(c.max>>8), byte(c.max)))))
		if n := bytes.Count(d.opts[optSearch], []byte{60}); (n+1)/2 != c.names || int(d.ip.Length) > c.datagram {
			t.Errorf("maximum %d: %d names in %d octets", c.max, (n+1)/2, d.ip.Length)
		}
		if s := d.opts[optSearch]; len(s) > 0 && s[len(s)-1] != 0 {
			t.Errorf("maximum %d: a name is cut", c.max)
		}
	}
}

// TestNoRoom: of two long names the one that does not fit is left out whole.
func TestNoRoom(t *testing.T) {
	b := newBench(t)
	b.conf.Hostname, b.conf.MTU = strings.Repeat("h", 250), 1500
	b.conf.FQDN = strings.Repeat(strings.Repeat("f", 49)+".", 4) + "org"
	d := decode(t, b.input(t, message(msgDiscover, opt(optFQDN, 4, 0, 0))))
	if len(d.opts[optHostname]) != 250 || d.opts[optFQDN] != nil || d.ip.Length > minDatagram {
		t.Errorf("%d octets: %v", d.ip.Length, d.opts)
	}
}

func TestOverload(t *testing.T) {
	for _, c := range []struct {
		name string
		over byte
		want byte
	}{{"file", 1, msgOffer}, {"name", 2, msgAck}, {"both", 3, msgAck}, {"none", 0, msgNone}} {
		t.Run(c.name, func(t *testing.T) {
			msg := message(0, opt(optOverload, c.over))
			copy(msg[offFile:], append(opt(optMessageType, msgDiscover), optEnd))
			copy(msg[offSname:], append(append(opt(optMessageType, msgDiscover), opt(optRapidCommit)...), optEnd))
			b := newBench(t)
			got := b.input(t, msg)
			if c.want == msgNone {
				if got != nil {
					t.Errorf("read options that are none: %x", got)
				}
			} else if d := decode(t, got); d.opts[optMessageType][0] != c.want {
				t.Errorf("reply of type %v", d.opts[optMessageType])
			}
		})
	}
	msg := message(msgDiscover, opt(optOverload, 1))
	copy(msg[offFile+126:], []byte{optParams, 1}) // runs out of its field
	b := newBench(t)
	if b.input(t, msg) != nil || b.Count.Drops[stats.Malformed] != 1 {
		t.Errorf("drops %v", b.Count.Drops)
	}
}

func TestMalformed(t *testing.T) {
	put := func(at int, v ...byte) []byte {
		b := message(msgDiscover)
		copy(b[at:], v)
		return b
	}
	for _, c := range []struct {
		name string
		msg  []byte
	}{
		{"a reply", put(0, 2)},
		{"token ring", put(1, 6)},
		{"hardware address of 16", put(2, 16)},
		{"no magic cookie", put(offMagic, 0)},
		{"group address", put(offChaddr, 1)},
		{"no address", put(offChaddr, 0, 0, 0, 0, 0, 0)},
		{"type of two octets", message(0, opt(optMessageType, 1, 1))},
		{"requested address of 5", message(msgRequest, opt(optRequestedIP, 1, 2, 3, 4, 5))},
		{"server of 3", message(msgRequest, opt(optServerID, 1, 2, 3))},
		{"maximum of one octet", message(msgDiscover, opt(optMaxMessageSize, 1))},
		{"overload of none", message(msgDiscover, opt(optOverload))},
		{"short name", message(msgDiscover, opt(optFQDN, 1, 2))},
		{"option without length", append(message(msgDiscover)[:offOptions+3], optParams)},
		{"option past the end", append(message(msgDiscover)[:offOptions+3], optParams, 2, 1)},
		{"cut before the options", message(msgDiscover)[:offOptions-1]},
		{"empty", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			if b.input(t, c.msg) != nil || b.Count.Drops[stats.Malformed] != 1 {
				t.Errorf("drops %v", b.Count.Drops)
			}
		})
	}
}

func TestChecksum(t *testing.T) {
	b := newBench(t)
	b.put(message(msgDiscover))
	field := b.In.Bytes()[wire.EthLen+wire.IPv4Len+6:]
	field[0] ^= 1
	if b.run() != nil || b.Count.Drops[stats.Malformed] != 1 {
		t.Error("took a damaged message")
	}
	b.In.Offload.NeedsCsum = true
	if b.run() == nil {
		t.Error("a sum that is not computed yet was held against the message")
	}
	b.In.Offload.NeedsCsum = false
	clear(field[:2])
	if b.run() == nil {
		t.Error("a message without checksum was dropped")
	}
}

func TestOff(t *testing.T) {
	b := newBench(t)
	b.conf.Off = true
	if b.input(t, message(msgDiscover)) != nil || b.Count.Drops != [stats.NumReasons]uint64{} {
		t.Errorf("answers though it is off: %v", b.Count.Drops)
	}
	b.conf.Off, b.Rules.V4.On = false, false
	if b.input(t, message(msgDiscover)) != nil || b.Count.Drops[stats.FamilyOff] != 1 {
		t.Errorf("answers though the family is off: %v", b.Count.Drops)
	}
}

// TestNothingToGive: without an address of ours, or of the guest, there is no lease.
func TestNothingToGive(t *testing.T) {
	for _, c := range []func(*fwd.Family){
		func(f *fwd.Family) { f.Ours = wire.Addr{} },
		func(f *fwd.Family) { f.Guest = wire.Addr{} },
	} {
		b := newBench(t)
		c(&b.Rules.V4)
		if b.input(t, message(msgDiscover)) != nil || b.Count.Drops[stats.Unanswered] != 1 {
			t.Errorf("drops %v", b.Count.Drops)
		}
	}
}

func TestIs(t *testing.T) {
	for _, c := range []struct {
		h    wire.Headers
		want bool
	}{
		{wire.Headers{Proto: wire.ProtoUDP, DstPort: 67}, true},
		{wire.Headers{Proto: wire.ProtoUDP, DstPort: 68, SrcPort: 67}, false},
		{wire.Headers{Proto: wire.ProtoTCP, DstPort: 67}, false},
		{wire.Headers{Proto: wire.ProtoUDP, DstPort: 67, V6: true}, false},
	} {
		if Handles(&c.h) != c.want {
			t.Errorf("%+v", c.h)
		}
	}
}

// full is a message that needs everything, and a Config that has it.
func full(b *bench) []byte {
	b.conf = Config{MTU: 1500, DNS: []wire.Addr{addr("198.51.100.53")}, Search: []string{"example.org", "example.net"},
		Hostname: "box", FQDN: "box.example.org"}
	b.Rules.V4.Bits = 32
	return message(msgDiscover, opt(optClientID, 1, 2, 3), opt(optRapidCommit), opt(optFQDN, 5, 0, 0), opt(optMaxMessageSize, 5, 0))
}

func TestInputNoAlloc(t *testing.T) {
	b := newBench(t)
	b.put(full(b))
	b.NoAlloc(t, b.respond)
}

// FuzzInput: whatever comes, a reply is well-formed, ours, and promises the
// guest nothing but its address.
func FuzzInput(f *testing.F) {
	b := newBench(f)
	f.Add(full(b))
	f.Add(message(msgDiscover))
	f.Add(message(msgRequest, optAddr(optServerID, router), optAddr(optRequestedIP, guest)))
	f.Add(message(msgRequest, optAddr(optRequestedIP, router)))
	f.Add(withClient(message(msgInform), guest))
	over := message(0, opt(optOverload, 3))
	copy(over[offFile:], opt(optMessageType, msgDiscover))
	copy(over[offSname:], opt(optClientID, 1, 2, 3))
	f.Add(over)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, msg []byte) {
		if len(msg) > 4096 {
			return
		}
		reply := b.input(t, msg)
		if reply == nil {
			return
		}
		var h wire.Headers
		if wire.Parse(reply, &h) != wire.OK || h.Src != router || h.DstPort != clientPort {
			t.Fatalf("reply %x", reply)
		}
		payload := reply[h.Payload : uint32(h.Payload)+h.PayloadLen]
		your := wire.Addr4(payload[offYiaddr:])
		if your != guest && your != none || len(payload)+ipUDP > maxDatagram || len(payload) < minMessage {
			t.Errorf("gives %v in %d octets", your, len(payload))
		}
		var d layers.DHCPv4
		if err := d.DecodeFromBytes(payload, gopacket.NilDecodeFeedback); err != nil {
			t.Errorf("%v in %x", err, payload)
		}
	})
}
