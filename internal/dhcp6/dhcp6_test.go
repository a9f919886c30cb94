package dhcp6

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"penne/internal/stats"
	"penne/internal/wire"
	"penne/test/responder"
)

// Pieces of replies, laid out by hand from RFC 8415.
const (
	leased   = "0003 0028 00000001 ffffffff ffffffff 0005 0018 20010db8000000000000000000000005 ffffffff ffffffff"
	noAddrs  = "0003 0012 00000002 00000000 00000000 000d 0002 0002"
	noTemp   = "0004 000a 00000003 000d 0002 0002"
	noPrefix = "0019 0012 00000004 00000000 00000000 000d 0002 0006"
	offLink  = "0003 0012 00000001 00000000 00000000 000d 0002 0004"
	success  = "000d 0002 0000"
	rapid    = "000e 0000"
)

// TestAnswers compares whole replies.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name string
		msg  []byte
		kind byte
		want string
	}{
		{"solicit", message(msgSolicit, cid, na(1)), msgAdvertise, leased},
		{"solicit with a hint", message(msgSolicit, cid, na(1, other)), msgAdvertise, leased},
		{"solicit, rapid commit", message(msgSolicit, cid, opt(optRapidCommit), na(1)), msgReply, rapid + leased},
		{"solicit all there is", message(msgSolicit, cid, na(1), na(2), ta(3), pd(4)), msgAdvertise, leased + noAddrs + noTemp + noPrefix},
		{"solicit nothing", message(msgSolicit, cid), msgAdvertise, ""},
		{"request", message(msgRequest, cid, sid, na(1, guest)), msgReply, leased},
		{"request without an address", message(msgRequest, cid, sid, na(1)), msgReply, leased},
		{"request another address", message(msgRequest, cid, sid, na(1, other)), msgReply, offLink},
		{"request two, the second right", message(msgRequest, cid, sid, na(1, other, guest)), msgReply, offLink},
		{"request a prefix", message(msgRequest, cid, sid, pd(4)), msgReply, noPrefix},
		{"confirm", message(msgConfirm, cid, na(1, guest)), msgReply, success},
		{"confirm another address", message(msgConfirm, cid, na(1, other)), msgReply, "000d 0002 0004"},
		{"confirm a temporary one", message(msgConfirm, cid, na(1, guest), ta(3, other)), msgReply, "000d 0002 0004"},
		{"renew", message(msgRenew, cid, sid, na(1, guest)), msgReply, leased},
		{"renew another address", message(msgRenew, cid, sid, na(1, other)), msgReply,
			"0003 0044 00000001 ffffffff ffffffff 0005 0018 20010db8000000000000000000000005 ffffffff ffffffff" +
				"0005 0018 20010db8000000000000000000000077 00000000 00000000"},
		{"renew a prefix", message(msgRenew, cid, sid, pd(4)), msgReply, "0019 0012 00000004 00000000 00000000 000d 0002 0003"},
		{"rebind", message(msgRebind, cid, na(1, guest)), msgReply, leased},
		{"release", message(msgRelease, cid, sid, na(1, guest)), msgReply, success},
		{"decline", message(msgDecline, cid, sid, na(1, guest)), msgReply, success},
		{"information", message(msgInformation, cid), msgReply, ""},
		{"information, nameless", message(msgInformation), msgReply, ""},
		{"information from us", message(msgInformation, cid, sid), msgReply, ""},
		{"other options inside", message(msgSolicit, cid, opt(optIANA, []byte{0, 0, 0, 1}, make([]byte, 8), opt(99, []byte{1}))), msgAdvertise, leased},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			got := b.input(t, c.msg)
			if d := decode(t, got); byte(d.MsgType) != c.kind {
				t.Errorf("reply of type %v, want %d", d.MsgType, c.kind)
			}
			if got, want := body(t, got), responder.Unhex(t, c.want); !bytes.Equal(got, want) {
				t.Errorf("got  %x\nwant %x", got, want)
			}
			if b.Count.Drops != [stats.NumReasons]uint64{} {
				t.Errorf("drops %v", b.Count.Drops)
			}
		})
	}
}

// TestUnanswered are the messages that RFC 8415 section 16 has us discard.
func TestUnanswered(t *testing.T) {
	stranger := opt(optServerID, []byte{0, 3, 0, 1, 1, 2, 3, 4, 5, 6})
	for _, c := range []struct {
		name string
		msg  []byte
	}{
		{"solicit without name", message(msgSolicit, na(1))},
		{"solicit one server", message(msgSolicit, cid, sid, na(1))},
		{"request without name", message(msgRequest, sid, na(1))},
		{"request of no server", message(msgRequest, cid, na(1))},
		{"request of another server", message(msgRequest, cid, stranger, na(1))},
		{"request of a server without name", message(msgRequest, cid, opt(optServerID), na(1))},
		{"confirm at one server", message(msgConfirm, cid, sid, na(1, guest))},
		{"confirm nothing", message(msgConfirm, cid, na(1))},
		{"renew of no server", message(msgRenew, cid, na(1))},
		{"rebind at one server", message(msgRebind, cid, sid, na(1))},
		{"release at another", message(msgRelease, cid, stranger, na(1))},
		{"decline without server", message(msgDecline, cid, na(1))},
		{"information with addresses", message(msgInformation, cid, na(1))},
		{"information from another", message(msgInformation, cid, stranger)},
		{"advertise", message(msgAdvertise, cid, sid)},
		{"reply", message(msgReply, cid, sid)},
		{"reconfigure", message(10, cid, sid)},
		{"relay", message(12, cid)},
		{"of no type", message(0, cid)},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			if got := b.input(t, c.msg); got != nil || b.Count.Drops[stats.Unanswered] != 1 {
				t.Errorf("reply %x, drops %v", got, b.Count.Drops)
			}
		})
	}
}

// TestUnicast: a message to us alone is refused, or not heard.
func TestUnicast(t *testing.T) {
	for kind := byte(1); kind <= msgInformation; kind++ {
		b := newBench(t)
		b.dst = ours
		opts := [][]byte{cid}
		refused := slices.Contains([]byte{msgRequest, msgRenew, msgRelease, msgDecline}, kind)
		if refused {
			opts = append(opts, sid)
		}
		got := b.input(t, message(kind, opts...))
		if !refused {
			if got != nil || b.Count.Drops[stats.Unanswered] != 1 {
				t.Errorf("type %d: reply %x, drops %v", kind, got, b.Count.Drops)
			}
			continue
		}
		if d := decode(t, got); byte(d.MsgType) != msgReply || !bytes.Equal(body(t, got), responder.Unhex(t, "000d 0002 0005")) {
			t.Errorf("type %d: reply %x", kind, got)
		}
	}
}

func TestNothingToGive(t *testing.T) {
	for _, a := range []wire.Addr{{}, addr("fe80::5")} {
		b := newBench(t)
		b.Rules.V6.Guest = a
		got := body(t, b.input(t, message(msgSolicit, cid, na(2))))
		if !bytes.Equal(got, responder.Unhex(t, noAddrs)) {
			t.Errorf("guest %v: got %x", a, got)
		}
	}
	b := newBench(t)
	b.Rules.LinkLocal6 = wire.Addr{}
	if b.input(t, message(msgSolicit, cid)) != nil || b.Count.Drops[stats.Unanswered] != 1 {
		t.Errorf("answers from nowhere; drops %v", b.Count.Drops)
	}
}

func TestTold(t *testing.T) {
	b := newBench(t)
	b.conf = Config{DNS: []wire.Addr{addr("198.51.100.53"), addr("2001:db8::53"), {}}, Search: []string{"example.org", "", "a.b."},
		FQDN: "box.example"}
	told := "0017 0010 20010db8000000000000000000000053"
	searched := "0018 0012 07 6578616d706c65 03 6f7267 00 01 61 01 62 00"
	name := "03 626f78 07 6578616d706c65 00"
	for _, c := range []struct {
		name string
		msg  []byte
		want string
	}{
		{"information", message(msgInformation, cid), told + searched},
		{"request", message(msgRequest, cid, sid, na(1)), leased + told + searched},
		{"release", message(msgRelease, cid, sid), success},
		{"name asked for", message(msgInformation, cid, opt(optORO, []byte{0, 23, 0, 39})), told + "0027 000e 04" + name + searched},
		{"name sent", message(msgInformation, cid, opt(optFQDN, []byte{1, 3, 'f', 'o', 'o'})), told + "0027 000e 06" + name + searched},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, want := body(t, b.input(t, c.msg)), responder.Unhex(t, c.want); !bytes.Equal(got, want) {
				t.Errorf("got  %x\nwant %x", got, want)
			}
		})
	}
}

// TestRoom: a reply stays below the least MTU whatever there is to tell, and
// names are left out whole.
func TestRoom(t *testing.T) {
	b := newBench(t)
	label := strings.Repeat("x", 60)
	b.conf.Search = []string{"a..b", strings.Repeat("y", 64), strings.Repeat("a.", 127) + "a"}
	for range 20 {
		b.conf.Search = append(b.conf.Search, label+"."+label+".example")
	}
	got := b.input(t, message(msgInformation, cid))
	names := find(decode(t, got), optSearch)
	if n := bytes.Count(names, []byte{60}); n != 2*9 || names[len(names)-1] != 0 {
		t.Errorf("%d labels in %d octets", n, len(names))
	}
	var many [][]byte
	for i := range 200 {
		many = append(many, na(byte(i)), ta(byte(i)), na(byte(i), other, guest))
	}
	got = b.input(t, message(msgRenew, append(many, cid, sid)...))
	if decode(t, got); len(got) > wire.EthLen+1280 {
		t.Errorf("%d octets", len(got))
	}
}

func TestMalformed(t *testing.T) {
	for _, c := range []struct {
		name string
		msg  []byte
	}{
		{"empty", nil},
		{"cut transaction", []byte{msgSolicit, 1, 2}},
		{"option past the end", append(message(msgSolicit, cid), 0, 14, 0, 1)},
		{"half an option", append(message(msgSolicit, cid), 0, 14, 0)},
		{"client without name", message(msgSolicit, opt(optClientID, []byte{0, 3}))},
		{"client's name too long", message(msgSolicit, opt(optClientID, make([]byte, maxDUID+1)))},
		{"association of 11", message(msgSolicit, cid, opt(optIANA, make([]byte, 11)))},
		{"temporary association of 3", message(msgSolicit, cid, opt(optIATA, make([]byte, 3)))},
		{"delegation of 11", message(msgSolicit, cid, opt(optIAPD, make([]byte, 11)))},
		{"address of 23", message(msgSolicit, cid, opt(optIANA, make([]byte, 12), opt(optIAAddr, make([]byte, 23))))},
		{"option past an association", message(msgSolicit, cid, opt(optIANA, make([]byte, 12), []byte{0, 5, 0, 24}))},
		{"odd option request", message(msgInformation, cid, opt(optORO, []byte{0, 23, 0}))},
		{"name without flags", message(msgInformation, cid, opt(optFQDN))},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			if b.input(t, c.msg) != nil || b.Count.Drops[stats.Malformed] != 1 {
				t.Errorf("drops %v", b.Count.Drops)
			}
		})
	}
}

func TestSource(t *testing.T) {
	for _, s := range []string{"2001:db8::5", "::", "ff02::1"} {
		b := newBench(t)
		b.src = addr(s)
		if b.input(t, message(msgSolicit, cid)) != nil || b.Count.Drops[stats.BadSource] != 1 {
			t.Errorf("from %s: drops %v", s, b.Count.Drops)
		}
	}
}

func TestChecksum(t *testing.T) {
	b := newBench(t)
	b.put(message(msgSolicit, cid))
	field := b.In.Bytes()[wire.EthLen+wire.IPv6Len+6:]
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
	if b.run() != nil || b.Count.Drops[stats.Malformed] != 2 {
		t.Error("took a message without checksum")
	}
}

func TestOff(t *testing.T) {
	b := newBench(t)
	b.conf.Off = true
	if b.input(t, message(msgSolicit, cid)) != nil || b.Count.Drops != [stats.NumReasons]uint64{} {
		t.Errorf("answers though it is off: %v", b.Count.Drops)
	}
	b.conf.Off, b.Rules.V6.On = false, false
	if b.input(t, message(msgSolicit, cid)) != nil || b.Count.Drops[stats.FamilyOff] != 1 {
		t.Errorf("answers though the family is off: %v", b.Count.Drops)
	}
}

func TestIs(t *testing.T) {
	h := wire.Headers{Proto: wire.ProtoUDP, DstPort: serverPort, V6: true, Dst: allServers}
	for _, c := range []struct {
		name   string
		change func(*wire.Headers)
		want   bool
	}{
		{"to all servers", func(*wire.Headers) {}, true},
		{"to us", func(h *wire.Headers) { h.Dst = ours }, true},
		{"to a server far away", func(h *wire.Headers) { h.Dst = other }, false},
		{"to another port", func(h *wire.Headers) { h.DstPort = clientPort }, false},
		{"TCP", func(h *wire.Headers) { h.Proto = wire.ProtoTCP }, false},
		{"IPv4", func(h *wire.Headers) { h.V6 = false }, false},
	} {
		h := h
		c.change(&h)
		if Handles(&h) != c.want {
			t.Error(c.name)
		}
	}
}

// full is a message that needs everything, and a Config that has it.
func full(b *bench) []byte {
	b.conf = Config{DNS: []wire.Addr{addr("2001:db8::53")}, Search: []string{"example.org", "example.net"}, FQDN: "box.example.org"}
	return message(msgRenew, cid, sid, na(1, other), na(2), ta(3), pd(4), opt(optFQDN, []byte{1}), opt(optRapidCommit))
}

func TestInputNoAlloc(t *testing.T) {
	b := newBench(t)
	b.put(full(b))
	b.NoAlloc(t, b.respond)
}

// FuzzInput: whatever comes, a reply is well-formed, fits, goes to the sender,
// and leases nothing but the guest's address.
func FuzzInput(f *testing.F) {
	b := newBench(f)
	f.Add(full(b))
	f.Add(message(msgSolicit, cid, na(1), ta(3), pd(4), opt(optRapidCommit)))
	f.Add(message(msgRequest, cid, sid, na(1, guest)))
	f.Add(message(msgConfirm, cid, na(1, guest)))
	f.Add(message(msgRebind, cid, na(1, other)))
	f.Add(message(msgRelease, cid, sid, na(1, guest)))
	f.Add(message(msgInformation, opt(optORO, []byte{0, 23, 0, 39})))
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
		if wire.Parse(reply, &h) != wire.OK || h.Src != ours || h.Dst != client || h.DstPort != clientPort || h.PayloadLen > maxMessage {
			t.Fatalf("reply %x", reply)
		}
		payload := reply[h.Payload : uint32(h.Payload)+h.PayloadLen]
		var d layers.DHCPv6
		if err := d.DecodeFromBytes(payload, gopacket.NilDecodeFeedback); err != nil {
			t.Errorf("%v in %x", err, payload)
		}
		checkLeases(t, payload[lenHeader:])
	})
}

// checkLeases finds no address with time but the guest's.
func checkLeases(t *testing.T, options []byte) {
	t.Helper()
	c := cursor{rest: options}
	for c.next() {
		if c.code != optIANA {
			continue
		}
		in := cursor{rest: c.v[lenIANA:]}
		for in.next() {
			if in.code == optIAAddr && wire.Addr6(in.v) != guest && !bytes.Equal(in.v[16:], make([]byte, 8)) {
				t.Errorf("leases %x", in.v)
			}
		}
		if !in.whole() {
			t.Errorf("association %x", c.v)
		}
	}
	if !c.whole() {
		t.Errorf("options %x", options)
	}
}
