package portscan

import (
	"errors"
	"slices"
	"syscall"
	"testing"

	"penne/internal/sys"
)

// nlmsg makes a message with a header.
func nlmsg(typ uint16, seq uint32, body []byte) []byte {
	b := ne.AppendUint32(nil, uint32(sys.SizeofNlMsghdr+len(body)))
	b = ne.AppendUint16(b, typ)
	b = ne.AppendUint16(b, 2)
	b = ne.AppendUint32(b, seq)
	b = ne.AppendUint32(b, 0)
	b = append(b, body...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// sock makes a struct inet_diag_msg with attributes.
func sock(family byte, port uint16, ip []byte, attrs ...byte) []byte {
	m := make([]byte, sys.SizeofInetDiagMsg)
	m[0], m[4], m[5] = family, byte(port>>8), byte(port)
	copy(m[8:], ip)
	return append(m, attrs...)
}

var (
	done     = nlmsg(sys.NlmsgDone, 7, make([]byte, 4))
	v6onlyOn = []byte{5, 0, sys.InetDiagSKV6Only, 0, 1, 0, 0, 0}
	other    = []byte{8, 0, 15, 0, 1, 2, 3, 4}
	mapped   = []byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}
	global   = []byte{0x20, 1, 0xd, 0xb8, 15: 1}
)

func diagRow(body []byte) []byte { return nlmsg(sys.SockDiagByFamily, 7, body) }

func TestParse(t *testing.T) {
	eperm := nlmsg(sys.NlmsgError, 7, ne.AppendUint32(nil, ^uint32(syscall.EPERM)+1))
	lacking := nlmsg(sys.NlmsgDone, 7, ne.AppendUint32(nil, ^uint32(syscall.ENOENT)+1))
	tests := []struct {
		name   string
		msgs   [][]byte
		v4, v6 []uint16
		done   bool
		err    error
	}{
		{"empty", nil, nil, nil, false, nil},
		{"done", [][]byte{done}, nil, nil, true, nil},
		{"IPv4", [][]byte{diagRow(sock(sys.AF_INET, 80, nil)), done}, []uint16{80}, nil, true, nil},
		{"dual stack", [][]byte{diagRow(sock(sys.AF_INET6, 443, nil, other...)), done}, []uint16{443}, []uint16{443}, true, nil},
		{"IPv6 only", [][]byte{diagRow(sock(sys.AF_INET6, 443, nil, append(slices.Clone(other), v6onlyOn...)...)), done}, nil, []uint16{443}, true, nil},
		{"v4-mapped", [][]byte{diagRow(sock(sys.AF_INET6, 443, mapped))}, []uint16{443}, nil, false, nil},
		{"IPv6 address", [][]byte{diagRow(sock(sys.AF_INET6, 443, global))}, nil, []uint16{443}, false, nil},
		{"unbound", [][]byte{diagRow(sock(sys.AF_INET, 0, nil))}, nil, nil, false, nil},
		{"short row", [][]byte{diagRow(make([]byte, 71)), diagRow(sock(sys.AF_INET, 80, nil))}, []uint16{80}, nil, false, nil},
		{"earlier dump's row", [][]byte{nlmsg(sys.SockDiagByFamily, 6, sock(sys.AF_INET, 80, nil)), done}, nil, nil, true, nil},
		{"refused", [][]byte{eperm}, nil, nil, true, syscall.EPERM},
		{"done, nothing like it here", [][]byte{lacking}, nil, nil, true, syscall.ENOENT},
		{"done, and why is missing", [][]byte{nlmsg(sys.NlmsgDone, 7, nil)}, nil, nil, true, nil},
		{"refused with nothing", [][]byte{nlmsg(sys.NlmsgError, 7, nil)}, nil, nil, true, errMalformed},
		{"ack", [][]byte{nlmsg(sys.NlmsgError, 7, make([]byte, 4))}, nil, nil, true, errMalformed},
		{"length too long", [][]byte{{255, 0, 0, 0, 20, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0}}, nil, nil, false, errMalformed},
		{"length too short", [][]byte{{3, 0, 0, 0, 20, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0}}, nil, nil, false, errMalformed},
		{"attribute too long", [][]byte{diagRow(sock(sys.AF_INET6, 443, nil, 99, 0, sys.InetDiagSKV6Only, 0, 1))}, []uint16{443}, []uint16{443}, false, nil},
		{"attribute of nothing", [][]byte{diagRow(sock(sys.AF_INET6, 443, nil, 0, 0, 0, 0, 0))}, []uint16{443}, []uint16{443}, false, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var f Families
			done, err := parseDump(slices.Concat(tt.msgs...), 7, &f)
			if done != tt.done || !errors.Is(err, tt.err) {
				t.Errorf("done %v, error %v; want %v, %v", done, err, tt.done, tt.err)
			}
			if !slices.Equal(ports(&f.V4), tt.v4) || !slices.Equal(ports(&f.V6), tt.v6) {
				t.Errorf("ports %v and %v, want %v and %v", ports(&f.V4), ports(&f.V6), tt.v4, tt.v6)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(done)
	f.Add(slices.Concat(diagRow(sock(sys.AF_INET, 80, nil)), diagRow(sock(sys.AF_INET6, 443, global, v6onlyOn...)), done))
	f.Add(nlmsg(sys.NlmsgError, 7, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var fam Families
		done, err := parseDump(b, 7, &fam)
		if n := fam.V4.Len() + fam.V6.Len(); n > 2*len(b)/(sys.SizeofNlMsghdr+sys.SizeofInetDiagMsg) {
			t.Errorf("%d ports from %d bytes (done %v, error %v)", n, len(b), done, err)
		}
		if fam.V4.Has(0) || fam.V6.Has(0) {
			t.Error("found port 0")
		}
	})
}

const tcpTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 00000000:0050 0100007F:0000 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
 122: 00000000:FFFF 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   2: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0
   3: 00000000000000000000000001000000:0017 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0
`

// TestParseTable reads the table cut in two at each place.
func TestParseTable(t *testing.T) {
	for cut := range len(tcpTable) + 1 {
		var f Families
		first := []byte(tcpTable[:cut])
		rest := parseTable(first, sys.TCPListen, &f)
		rest = parseTable(append(slices.Clone(rest), tcpTable[cut:]...), sys.TCPListen, &f)
		if want := []uint16{0x16, 8080, 65535}; len(rest) != 0 || !slices.Equal(ports(&f.V4), want) {
			t.Fatalf("cut at %d: IPv4 ports %v, want %v; rest %q", cut, ports(&f.V4), want, rest)
		}
		if want := []uint16{0x16, 0x17}; !slices.Equal(ports(&f.V6), want) {
			t.Fatalf("cut at %d: IPv6 ports %v, want %v", cut, ports(&f.V6), want)
		}
	}
}

func FuzzParseTable(f *testing.F) {
	f.Add([]byte(tcpTable))
	f.Add([]byte("  1: 0100007F:1F90\n1: :0 0 0A\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var fam Families
		if rest := parseTable(b, sys.TCPListen, &fam); slices.Contains(rest, '\n') {
			t.Error("a whole line was left over")
		}
	})
}

// TestDumpGivenUp has the kernel's part played by a socket pair: an answer that
// makes no sense ends the dump, the rest of it is read away, and the next dump
// is served.
func TestDumpGivenUp(t *testing.T) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := &diag{fd: fds[0]}
	t.Cleanup(func() { d.close(); _ = syscall.Close(fds[1]) })
	send := func(msgs ...[]byte) {
		for _, m := range msgs {
			if _, err := syscall.Write(fds[1], m); err != nil {
				t.Fatal(err)
			}
		}
	}
	var f Families
	q := request{sys.AF_INET, sys.IPPROTO_TCP, sys.TCPListen}
	send(make([]byte, 20), nlmsg(sys.SockDiagByFamily, 1, sock(sys.AF_INET, 80, nil)))
	if err := d.dump(q, &f); !errors.Is(err, errMalformed) {
		t.Errorf("error %v, want %v", err, errMalformed)
	}
	send(nlmsg(sys.SockDiagByFamily, 1, sock(sys.AF_INET, 81, nil)), nlmsg(sys.SockDiagByFamily, 2, sock(sys.AF_INET, 82, nil)), nlmsg(sys.NlmsgDone, 2, nil))
	if err := d.dump(q, &f); err != nil || !slices.Equal(ports(&f.V4), []uint16{82}) {
		t.Errorf("error %v, ports %v; want 82", err, ports(&f.V4))
	}
	var req [100]byte
	n, err := syscall.Read(fds[1], req[:])
	if err != nil || n != len(d.out) || ne.Uint32(req[:]) != uint32(n) || req[16] != sys.AF_INET || req[17] != sys.IPPROTO_TCP || ne.Uint32(req[20:]) != 1<<sys.TCPListen {
		t.Errorf("request % x, error %v", req[:n], err)
	}
	if err := d.dump(q, &f); err == nil {
		t.Error("no error where the kernel does not answer")
	}
}
