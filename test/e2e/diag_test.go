package e2e

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"penne/test/bed"
	"penne/test/client"
)

// scratch is a file in a directory that pasta's user may write to.
func scratch(t *testing.T, b *bed.Bed, name string) string {
	t.Helper()
	dir, err := b.ScratchDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// wants fails the test unless a text has all of the parts.
func wants(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s: no %q in\n%s", what, p, text)
		}
	}
}

func TestWhatIsSaidAtTheStart(t *testing.T) {
	b := newBed(t)
	base := append([]string{"--config-net", "-f"}, noForward...)
	res := pasta(t, b, append(base, "--dns-forward", "169.254.1.1", "--dns-host", "192.0.2.53", "--", "true")...)
	wants(t, "by default", res.Stderr, "tap "+bed.Link+" with ",
		"IPv4 after "+bed.Link+": "+bed.HostIP4+"/24; router "+bed.GatewayIP4, "IPv6 after "+bed.Link+": "+bed.HostIP6+"/64",
		"169.254.1.1 leads to 192.0.2.53")
	if strings.Contains(res.Stderr, "steered") {
		t.Errorf("more than information by default:\n%s", res.Stderr)
	}
	res = pasta(t, b, append(base, "-d", "--queues", "2", "--", "true")...)
	wants(t, "-d", res.Stderr, "queues are steered by")
	res = pasta(t, b, append(base, "-q", "-e", "--", "true")...)
	if res.Stdout+res.Stderr != "" {
		t.Errorf("-q says %s%s", res.Stdout, res.Stderr)
	}
}

func TestTracedPackets(t *testing.T) {
	b := newBed(t)
	argv := append([]string{"--config-net", "-f", "--trace"}, noForward...)
	res := pasta(t, b, append(argv, "--", "ping", "-c1", bed.RemoteIP4)...)
	wants(t, "--trace", res.Stderr, "from guest: ICMP "+bed.HostIP4+" > "+bed.RemoteIP4+" type 8",
		"to guest: ICMP "+bed.RemoteIP4+" > "+bed.HostIP4+" type 0")
}

func TestLogFile(t *testing.T) {
	b := newBed(t)
	file := scratch(t, b, "log")
	argv := append([]string{"--config-net", "-f", "-l", file}, noForward...)
	res := pasta(t, b, append(argv, "--", "true")...)
	if res.Stderr != "" {
		t.Errorf("standard error beside a log file: %s", res.Stderr)
	}
	wants(t, "log file", readFile(t, file), "INFO: tap "+bed.Link)
	res = pasta(t, b, append(argv, "-i", "rigatoni", "--", "true")...)
	why := "template interface rigatoni does not exist: give one that ip-link(8) shows"
	if res.Status != 1 || res.Stderr != "pasta: "+why+"\n" {
		t.Errorf("failure with a log file: status %d, %q", res.Status, res.Stderr)
	}
	wants(t, "log file", readFile(t, file), "INFO: tap "+bed.Link, "ERROR: "+why)
	res = pasta(t, b, append(argv, "-l", "/rigatoni/log", "--", "true")...)
	if res.Status != 1 || strings.Count(res.Stderr, "\n") != 1 || !strings.Contains(res.Stderr, "/rigatoni/log") {
		t.Errorf("log file that cannot be: status %d, %q", res.Status, res.Stderr)
	}
}

// TestLogSize has a packet in each line, of which the last ones stay.
func TestLogSize(t *testing.T) {
	const limit = 4096
	b := newBed(t)
	file := scratch(t, b, "log")
	argv := append([]string{"--config-net", "-f", "--trace", "-l", file, "--log-size", strconv.Itoa(limit)}, noForward...)
	pasta(t, b, append(argv, "--", "sh", "-c", "ping -c100 -A -q "+bed.RemoteIP4+"; ping -c1 "+bed.GatewayIP6)...)
	text := readFile(t, file)
	if len(text) > limit || len(text) < limit/2 {
		t.Errorf("%d bytes in a file of at most %d", len(text), limit)
	}
	wants(t, "the last packets", text, "> "+bed.GatewayIP6+" type 128")
	if strings.Contains(text, "INFO: tap ") {
		t.Error("the first line is still there")
	}
}

// TestCapture wants a file in which a reader finds what crossed the tap, whichever shard saw it.
func TestCapture(t *testing.T) {
	need(t, "tcpdump")
	need(t, "capinfos")
	b := newBed(t)
	file := scratch(t, b, "pcap")
	srv := serve(t, b.Remote, bed.RemoteIP4, bed.EchoTCP)
	s, err := b.Pasta(append(append([]string{pastaBinary(t)}, quiet...), "--queues", "2", "--pcap", file)...)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, "ping", "-c3", "-A", bed.RemoteIP4)
	if o := tool(t, s, "short", srv.Addr.String(), "20", "4"); o.Bytes != 20 {
		t.Fatalf("%+v", o)
	}
	wantBytes(t, tool(t, s, "echo", srv.Addr.String(), "1", "1000000"), 1, 1000000)
	if status := s.Close(); status != 0 {
		t.Fatalf("status %d: %s", status, s.Proc.Stderr)
	}
	inHost(t, b, "capinfos", file) // fails for a file that is cut
	for filter, want := range map[string]int{
		"icmp and src " + bed.HostIP4:                           3,
		"icmp and src " + bed.RemoteIP4:                         3,
		"tcp[tcpflags] == tcp-syn":                              21,
		"tcp[tcpflags] == tcp-syn|tcp-ack":                      21,
		"tcp[tcpflags] & tcp-rst != 0":                          0,
		"tcp[tcpflags] & tcp-fin != 0 and src " + bed.RemoteIP4: 21,
	} {
		out := inHost(t, b, "tcpdump", "-nttr", file, filter)
		if n := distinct(out); n != want {
			t.Errorf("%s: %d packets, want %d:\n%s", filter, n, want, out)
		}
	}
}

// TestCaptureOnASlowFile ends pasta before what it captured has been written: the capture is whole all the same.
func TestCaptureOnASlowFile(t *testing.T) {
	const size = 4 << 20
	const stall = 150 * time.Millisecond // of the disk, so to speak
	need(t, "capinfos")
	b := newBed(t)
	fifo, file := scratch(t, b, "fifo"), scratch(t, b, "pcap")
	if err := syscall.Mkfifo(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	written, goOn := make(chan error, 1), make(chan bool)
	go func() { written <- copyLater(file, fifo, goOn) }()
	srv := serve(t, b.Remote, bed.RemoteIP4, bed.EchoTCP)
	s, err := b.Pasta(append(append([]string{pastaBinary(t)}, quiet...), "--pcap", fifo)...)
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, tool(t, s, "echo", srv.Addr.String(), "1", strconv.Itoa(size/2)), 1, size/2)
	time.AfterFunc(stall, func() { close(goOn) })
	if status := s.Close(); status != 0 {
		t.Fatalf("status %d: %s", status, s.Proc.Stderr)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	inHost(t, b, "capinfos", file) // fails for a file that is cut
	if info, err := os.Stat(file); err != nil || info.Size() < size {
		t.Errorf("%v has fewer octets than crossed the tap: %d (%v)", info, size, err)
	}
}

// copyLater opens a pipe at once, but copies what is in it only after a while.
func copyLater(to, from string, goOn <-chan bool) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	<-goOn
	_, err = io.Copy(out, in)
	return err
}

// distinct counts the packets in tcpdump's lines, a repetition of a SYN or FIN by a machine that was kept waiting not
// counted: addresses, ports, and an echo's sequence number tell packets apart.
func distinct(lines string) int {
	seen := map[string]bool{}
	for line := range strings.Lines(lines) {
		words := strings.Fields(line)
		packet := strings.Join(words[1:5], " ") // without the time
		if i := slices.Index(words, "seq"); i > 0 && words[5] == "ICMP" {
			packet += words[i+1]
		}
		seen[packet] = true
	}
	return len(seen)
}

func TestCaptureThatCannotBe(t *testing.T) {
	b := newBed(t)
	res := pasta(t, b, append(quiet, "--pcap", "/rigatoni/pcap", "--", "echo", "ran")...)
	if res.Status != 1 || res.Stdout != "" || strings.Count(res.Stderr, "\n") != 1 || !strings.Contains(res.Stderr, "/rigatoni/pcap") {
		t.Errorf("status %d, %q, %q", res.Status, res.Stdout, res.Stderr)
	}
}

// TestCaptureOfAFailedStart leaves an older capture alone, and makes no new one.
func TestCaptureOfAFailedStart(t *testing.T) {
	b := newBed(t)
	file := scratch(t, b, "pcap")
	argv := append(quiet, "-t", "192.0.2.99/8000", "--pcap", file, "--", "true")
	res := pasta(t, b, argv...)
	if _, err := os.Stat(file); res.Status != 1 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("status %d, %q, file: %v", res.Status, res.Stderr, err)
	}
	if res := pasta(t, b, append(quiet, "--pcap", file, "--", "ping", "-c1", bed.RemoteIP4)...); res.Status != 0 {
		t.Fatal(res.Stderr)
	}
	before := readFile(t, file)
	pasta(t, b, argv...)
	if after := readFile(t, file); after != before {
		t.Errorf("%d of %d octets are left", len(after), len(before))
	}
}

func TestStatistics(t *testing.T) {
	b := newBed(t)
	s := attach(t, b, "--queues", "2", "--stats", "1")
	run(t, s, "ping", "-c3", "-A", bed.RemoteIP4)
	text := awaitStderr(t, s, "ping flows")
	wants(t, "--stats", text, "total", "shard 0", "shard 1", "frames from guest")
}

// TestStatisticsBySignal asks the engine of a quiet pasta.
func TestStatisticsBySignal(t *testing.T) {
	b := newBed(t)
	s := attach(t, b)
	run(t, s, "ping", "-c1", bed.RemoteIP4)
	if err := syscall.Kill(serving(t, s), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	awaitStderr(t, s, "ping flows")
}

// awaitStderr waits for pasta to say something.
func awaitStderr(t *testing.T, s *bed.Session, part string) string {
	t.Helper()
	for end := time.Now().Add(client.Patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if text := s.Proc.Stderr.String(); strings.Contains(text, part) {
			return text
		}
	}
	t.Fatalf("no %q in the end: %s", part, s.Proc.Stderr)
	return ""
}

// serving finds the process of pasta that forwards.
func serving(t *testing.T, s *bed.Session) int {
	t.Helper()
	for _, pid := range s.Processes() {
		if line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.HasPrefix(string(line), "penne: engine") {
			return pid
		}
	}
	t.Fatal("no process is the engine")
	return 0
}

// TestOneThreadMayConfigure reads the capabilities of all threads of the engine: one keeps what following the host
// takes, and which -T and -U need for low ports.
func TestOneThreadMayConfigure(t *testing.T) {
	b := newBed(t)
	for _, c := range []struct {
		name    string
		options []string
		want    string
	}{
		{"configures", quiet, "0000000000001400"},
		{"does not", append([]string{"-f", "-q"}, noForward...), "0000000000000400"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, b, c.options...)
			counts := map[string]int{}
			tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", serving(t, s)))
			for _, file := range tasks {
				_, rest, _ := strings.Cut(readFile(t, file), "CapEff:\t")
				counts[rest[:16]]++
			}
			if counts[c.want] != 1 || counts["0000000000000000"] != len(tasks)-1 || len(tasks) < 3 {
				t.Errorf("capabilities of threads: %v, want one of %s", counts, c.want)
			}
		})
	}
}

func asRoot(t *testing.T, n *bed.NS, argv ...string) {
	t.Helper()
	if res, err := n.Run(bed.Spec{Argv: argv, Root: true}); err != nil || res.Status != 0 {
		t.Fatalf("%v: %s, %v", argv, res.Stderr, err)
	}
}

// TestSpliceOnly has no interface inside, yet forwards between the loopbacks.
func TestSpliceOnly(t *testing.T) {
	b := newBed(t)
	s := start(t, b, "-f", "-q", "--splice-only", "-t", "7000", "-u", "7000", "-T", "7001", "-U", "7001")
	if links := addresses(t, s); len(links) != 1 {
		t.Errorf("interfaces inside: %v", links)
	}
	host, remote := direct(t, b, b.Host), direct(t, b, b.Remote)
	for _, network := range []string{"tcp", "udp"} {
		serveIn(t, s, network, "who", "127.0.0.1:7000", "[::1]:7000")
		serveIn(t, host, network, "who", "127.0.0.1:7001", "[::1]:7001")
		for _, ip := range []string{"127.0.0.1", "::1"} {
			if a := ask(t, host, network, at(ip, 7000)); a.localIP() != ip {
				t.Errorf("%s in to %s: %+v", network, ip, a)
			}
			if a := ask(t, s, network, at(ip, 7001)); a.localIP() != ip {
				t.Errorf("%s out to %s: %+v", network, ip, a)
			}
		}
	}
	if a := ask(t, remote, "tcp", at(bed.HostIP4, 7000)); a.Errno == 0 {
		t.Errorf("a client that is not local: %+v", a)
	}
	// Its datagrams make no flow. That nobody answers them is told by nothing but the counters.
	engine := serving(t, s)
	before := countFDs(engine, "socket:")
	c, err := b.Remote.Dial("udp", at(bed.HostIP4, 7000))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("who?")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(engine, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	wants(t, "counters", awaitStderr(t, s, "wake-ups"), "dropped: bad source")
	if n := countFDs(engine, "socket:") - before; n != 0 {
		t.Errorf("%d sockets for clients that are not local", n)
	}
}

// TestDHCP lets a DHCP client configure IPv4.
func TestDHCP(t *testing.T) {
	need(t, "udhcpc")
	b := newBed(t)
	script := filepath.Join(b.Dir(), "lease")
	writeFile(t, script, "#!/bin/sh\n[ \"$1\" = bound ] && set\nexit 0\n")
	if err := os.Chmod(script, 0o755); err != nil {
		t.Fatal(err)
	}
	s := start(t, b, append([]string{"-f", "-q", "-m", "9000", "-D", "192.0.2.53", "-D", "2001:db8::53", "--dhcp-dns",
		"-S", "a.example b.example", "--dhcp-search", "-H", "penne"}, noForward...)...)
	run(t, s, "ip", "link", "set", bed.Link, "up")
	wants(t, "lease", run(t, s, "udhcpc", "-i", bed.Link, "-nqf", "-O", "search", "-O", "mtu", "-s", script),
		"ip='"+bed.HostIP4+"'", "mask='24'", "router='"+bed.GatewayIP4+"'", "dns='192.0.2.53'", "mtu='9000'",
		"search='a.example b.example'", "hostname='penne'")
}

// TestDHCPv6 lets a DHCPv6 client have an address, resolvers and search domains.
func TestDHCPv6(t *testing.T) {
	need(t, "dhclient")
	b := newBed(t)
	script := filepath.Join(b.Dir(), "lease6")
	writeFile(t, script, "#!/bin/sh\n[ \"$reason\" = BOUND6 ] && env\nexit 0\n")
	if err := os.Chmod(script, 0o755); err != nil {
		t.Fatal(err)
	}
	s := start(t, b, append([]string{"-f", "-q", "-D", "192.0.2.53", "-D", "2001:db8::53", "--dhcp-dns",
		"-S", "a.example b.example", "--dhcp-search"}, noForward...)...)
	run(t, s, "ip", "link", "set", bed.Link, "up")
	run(t, s, "ip", "addr", "add", "fe80::6/64", "dev", bed.Link, "nodad") // the client needs one at once
	wants(t, "lease", run(t, s, "dhclient", "-6", "-1", "-q", "-cf", "/dev/null", "-sf", script, "-lf", "/dev/null", "-pf", "/dev/null", bed.Link),
		"new_ip6_address="+bed.HostIP6, "new_dhcp6_name_servers=2001:db8::53", "new_dhcp6_domain_search=a.example. b.example.")
}

// TestTermClosesListenersForASuccessor stops pasta under many connections, and binds its port at once.
func TestTermClosesListenersForASuccessor(t *testing.T) {
	b := newBed(t)
	host := direct(t, b, b.Host)
	for range 3 {
		s, err := b.Pasta(append(append([]string{pastaBinary(t)}, forwarding...), "-t", "7000", "-u", "none", "-T", "none", "-U", "none")...)
		if err != nil {
			t.Fatal(err)
		}
		serveIn(t, s, "tcp", "who", "0.0.0.0:7000")
		if a := ask(t, host, "tcp", "127.0.0.1:7000"); a.Local == "" {
			t.Errorf("%+v", a)
		}
		s.Terminate()
	}
}
