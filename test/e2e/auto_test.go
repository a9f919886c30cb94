package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"penne/test/bed"
)

// listens tells whether something listens on a port in a session's namespace.
func listens(t *testing.T, s *bed.Session, network string, port int) bool {
	t.Helper()
	out := run(t, s, "ss", "-Hln", "--"+network, "sport = :"+strconv.Itoa(port))
	return strings.TrimSpace(out) != ""
}

// TestAutoFollowsTheNamespace has servers come and go inside, with no option given at all.
func TestAutoFollowsTheNamespace(t *testing.T) {
	b, host, remote := portsBed(t)
	s := forward(t, b)
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			stop := serveIn(t, s, network, "who", anyPort(8100, 8102)...)
			for _, ip := range []string{lo4, lo6, net4, net6} {
				for port := 8100; port <= 8102; port++ {
					if a := await(t, clientOf(host, remote, ip), network, at(ip, port)); a.localPort() != port {
						t.Errorf("port %d by %s led to %+v", port, ip, a)
					}
				}
			}
			stop()
			for _, ip := range []string{lo4, lo6, net4, net6} {
				awaitRefusal(t, clientOf(host, remote, ip), network, at(ip, 8101))
			}
		})
	}
}

// TestAutoServesBothFamilies has servers of one family inside: ports bound for IPv6 are forwarded for IPv4 too,
// and the other way around, though nobody answers there.
func TestAutoServesBothFamilies(t *testing.T) {
	b, host, _ := portsBed(t)
	s := forward(t, b)
	serveIn(t, s, "tcp6", "who", "[::]:8111")
	serveIn(t, s, "tcp4", "who", "0.0.0.0:8112")
	await(t, host, "tcp", at(lo6, 8111))
	await(t, host, "tcp", at(lo4, 8112))
	if a := ask(t, host, "tcp", at(lo4, 8111)); a.refused() {
		t.Errorf("a port bound for IPv6 is not forwarded for IPv4: %+v", a)
	}
}

// TestAutoFollowsTheHost has servers come and go on the host's loopback.
func TestAutoFollowsTheHost(t *testing.T) {
	b, host, _ := portsBed(t)
	s := forward(t, b)
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			stop := serveIn(t, host, network, "who", "127.0.0.1:8200", "[::1]:8200")
			await(t, s, network, at(lo4, 8200))
			await(t, s, network, at(lo6, 8200))
			stop()
			awaitRefusal(t, s, network, at(lo4, 8200))
			awaitRefusal(t, s, network, at(lo6, 8200))
		})
	}
}

// TestAutoBeforeTheCommand finds ports that are bound already when pasta starts: the command need not wait.
func TestAutoBeforeTheCommand(t *testing.T) {
	b, host, _ := portsBed(t)
	serveIn(t, host, "tcp", "who", "127.0.0.1:8210")
	serveIn(t, host, "udp", "who", "127.0.0.1:8211")
	s := forward(t, b)
	for network, port := range map[string]int{"tcp": 8210, "udp": 8211} {
		if a := ask(t, s, network, at(lo4, port)); a.localPort() != port {
			t.Errorf("%s: %+v", network, a)
		}
	}
}

// TestAutoMakesNoLoops wants listeners of pasta's own never to be led back: neither explicit ones, nor those of
// "auto", whose reason to be would then be themselves.
func TestAutoMakesNoLoops(t *testing.T) {
	b, host, _ := portsBed(t)
	s := forward(t, b, "-t", "8400,auto", "-u", "8400,auto", "-T", "8401,auto", "-U", "8401,auto")
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			stopIn := serveIn(t, s, network, "who", ":8402")
			stopOut := serveIn(t, host, network, "who", "127.0.0.1:8403")
			await(t, host, network, at(lo4, 8402))
			await(t, s, network, at(lo4, 8403))
			if listens(t, s, network, 8400) {
				t.Error("an explicit port of the host is led back")
			}
			if listens(t, host, network, 8401) {
				t.Error("an explicit port inside is led back")
			}
			stopIn()
			stopOut()
			awaitRefusal(t, host, network, at(lo4, 8402))
			awaitRefusal(t, s, network, at(lo4, 8403))
		})
	}
}

// TestAutoWithPorts combines "auto" with ports, exclusions and an address.
func TestAutoWithPorts(t *testing.T) {
	b, host, remote := portsBed(t)
	s := forward(t, b, "-t", "127.0.0.1/auto,8500:8600,~8501", "-u", "none", "-T", "none", "-U", "none")
	serveIn(t, s, "tcp", "who", append(anyPort(8500, 8502), ":8600")...)
	if a := await(t, host, "tcp", at(lo4, 8500)); a.localPort() != 8600 {
		t.Errorf("an explicit port beside auto led to %+v", a)
	}
	// A scan binds in the order of ports: once 8502 is there, 8501 would be.
	await(t, host, "tcp", at(lo4, 8502))
	if a := ask(t, host, "tcp", at(lo4, 8501)); !a.refused() {
		t.Errorf("an excluded port led to %+v", a)
	}
	if a := ask(t, remote, "tcp", at(net4, 8502)); !a.refused() {
		t.Errorf("a port for loopback alone led to %+v", a)
	}
}

// TestAutoLeavesOthersPortsAlone has the host's own server keep its port while one inside wants the same, and
// takes it over once it is free.
func TestAutoLeavesOthersPortsAlone(t *testing.T) {
	b, host, _ := portsBed(t)
	s := forward(t, b, "-T", "none", "-U", "none")
	stop := serveIn(t, host, "tcp", "source", ":8700")
	serveIn(t, s, "tcp", "who", ":8700", ":8701")
	await(t, host, "tcp", at(lo4, 8701))
	stop()
	await(t, host, "tcp", at(lo4, 8700))
}

var _ = bed.Register("speak", speakTool)

// speakTool sends a datagram from a port before it serves there: PEER ADDR.
func speakTool(args []string) (any, error) {
	c, err := net.ListenPacket("udp", args[1])
	if err != nil {
		return nil, err
	}
	if _, err := c.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(args[0]))); err != nil {
		return nil, err
	}
	go serveDatagrams(c, "who")
	fmt.Println("ready")
	return bed.Forever()
}

// TestAutoWithAServerThatSpeaksFirst has one that sends from its port before that can have been found: others than
// its peer are let in too, and let in again when it comes back while they are still remembered.
func TestAutoWithAServerThatSpeaksFirst(t *testing.T) {
	b, host, remote := portsBed(t)
	s := forward(t, b, "-t", "none", "-T", "none", "-U", "none")
	eachFamily(t, func(t *testing.T, f family) {
		serveIn(t, remote, "udp", "who", at(f.remote, 8900))
		for range 2 {
			stop, err := s.BackgroundTool("^ready", "speak", at(f.remote, 8900), ":8901")
			if err != nil {
				t.Fatal(err)
			}
			for _, client := range []*bed.Session{host, remote} {
				for range 2 {
					if a := await(t, client, "udp", at(f.host, 8901)); a.localPort() != 8901 {
						t.Errorf("led to %+v", a)
					}
				}
			}
			stop()
			awaitRefusal(t, remote, "udp", at(f.host, 8901))
		}
	})
}

// TestAutoWithALocalServerThatSpeaksFirst is the same for one whose peer is local on the other side, either way: its
// datagram goes past the tap.
func TestAutoWithALocalServerThatSpeaksFirst(t *testing.T) {
	b, host, remote := portsBed(t)
	s := forward(t, b, "-t", "none", "-T", "none", "-u", "8905,auto", "-U", "8902,auto")
	speak := func(from, peer *bed.Session, to, port int) {
		t.Helper()
		serveIn(t, peer, "udp", "who", at(lo4, to))
		if _, err := from.BackgroundTool("^ready", "speak", at(lo4, to), fmt.Sprint(":", port)); err != nil {
			t.Fatal(err)
		}
	}
	speak(s, host, 8902, 8903)
	for _, ip := range []string{lo4, net4} {
		if a := await(t, clientOf(host, remote, ip), "udp", at(ip, 8903)); a.localPort() != 8903 {
			t.Errorf("%s led to %+v", ip, a)
		}
	}
	speak(host, s, 8905, 8906)
	if a := await(t, s, "udp", at(lo4, 8906)); a.localPort() != 8906 {
		t.Errorf("led to %+v", a)
	}
}

// TestAutoOnSeveralAddresses gives "auto" once for each of two places.
func TestAutoOnSeveralAddresses(t *testing.T) {
	b, host, remote := portsBed(t)
	for _, c := range []struct {
		specs     []string
		led, left []string
	}{
		{[]string{"127.0.0.1/auto", "::1/auto"}, []string{lo4, lo6}, []string{net4, net6}},
		{[]string{"%lo/auto", "%" + bed.Link + "/auto"}, []string{lo4, lo6, net4, net6}, nil},
	} {
		t.Run(strings.Join(c.specs, " "), func(t *testing.T) {
			s := forward(t, b, specs("-t", c.specs)...)
			serveIn(t, s, "tcp", "who", ":8950")
			for _, ip := range c.led {
				if a := await(t, clientOf(host, remote, ip), "tcp", at(ip, 8950)); a.localPort() != 8950 {
					t.Errorf("%s led to %+v", ip, a)
				}
			}
			for _, ip := range c.left {
				if a := ask(t, remote, "tcp", at(ip, 8950)); !a.refused() {
					t.Errorf("%s led to %+v", ip, a)
				}
			}
		})
	}
}

// TestAutoTakesTheOtherAddress has a port of one loopback address inside in use by another program: that of the
// other leads out, and once the program has ended both do.
func TestAutoTakesTheOtherAddress(t *testing.T) {
	b, host, _ := portsBed(t)
	s := forward(t, b, "-t", "none", "-u", "none", "-U", "none")
	for addr, other := range map[string]string{lo4: lo6, lo6: lo4} {
		stop := serveIn(t, s, "tcp", "source", at(addr, 8960))
		stopHost := serveIn(t, host, "tcp", "who", at(lo4, 8960), at(lo6, 8960))
		await(t, s, "tcp", at(other, 8960))
		stop()
		await(t, s, "tcp", at(addr, 8960))
		stopHost()
		awaitRefusal(t, s, "tcp", at(addr, 8960))
	}
}

// TestAutoReachesTheStubResolver has COMMAND resolve names by the resolv.conf that it shares with the host, where
// the resolver is on an address of loopback, as that of systemd-resolved.
func TestAutoReachesTheStubResolver(t *testing.T) {
	need(t, "curl")
	b, file := withResolver(t, "nameserver 127.0.0.53\n")
	dnsmasq(t, b.Host, bed.RemoteIP4, "127.0.0.53", "127.0.0.54")
	remote := direct(t, b, b.Remote)
	serveIn(t, remote, "tcp", "early", at(bed.RemoteIP4, 8080))
	for _, options := range [][]string{nil, {"--no-map-gw"}, {"-t", "none", "-u", "none"}} {
		s := forward(t, b, options...)
		// The server says nothing (52, an empty reply), but it has been found by its name.
		if res, err := s.Run("curl", "-sS", "--noproxy", "*", "http://penne.example:8080/"); err != nil || res.Status != 52 {
			t.Errorf("%v: status %d, %v: %s", options, res.Status, err, res.Stderr)
		}
		dig(t, s, "127.0.0.53", bed.RemoteIP4)
	}
	s := forward(t, b)
	writeFile(t, file, "nameserver 127.0.0.54\n")
	run(t, s, "timeout", "60", "sh", "-c", "until dig +tries=1 +time=5 penne.example A | grep -F '(127.0.0.54)'; do :; done")
	awaitRefusal(t, s, "tcp", at("127.0.0.53", 53))
	dig(t, s, "127.0.0.54", bed.RemoteIP4)
}
