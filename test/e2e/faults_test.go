package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"penne/test/bed"
	"penne/test/client"
)

// failing runs pasta with options and wants it to fail at once, with status 1 and one line that has all words.
func failing(t *testing.T, b *bed.Bed, options []string, words ...string) {
	t.Helper()
	res := pasta(t, b, append(append([]string{"--config-net", "-f", "-q"}, options...), "--", "true")...)
	wantOneLine(t, res, options)
	for _, w := range words {
		if !strings.Contains(res.Stderr, w) {
			t.Errorf("%v: no %q in %q", options, w, res.Stderr)
		}
	}
}

// TestMalformedPorts gives specifications that mean nothing, or two things.
func TestMalformedPorts(t *testing.T) {
	b := newBed(t)
	for _, spec := range []string{
		"", ",", "8000,", ",8000", "8000,,8001", "0", "65536", "-1", "x", "8000-", "-8000", "8001-8000", "8000-8001-8002",
		"8000:", ":8000", "8000:0", "8000:65536", "8000-8001:9000", "8000:9000-9001", "8000-8001:9001-9000",
		"8000:9000:9001", "~", "~x", "8000,~8000", "~1-65535", "~8001-8000", "/8000", "127.0.0.1/", "127.0.0.1", "127.0.0/8000",
		"127.0.0.256/8000", "[127.0.0.1]/8000", "[::1/8000", "::1]/8000", "::g/8000", "127.0.0.1//8000", "127.0.0.1%/8000",
		"%/8000", "%lo", "%lo/", "%averyverylongname/8000", "%l o/8000", "224.0.0.1/8000", "ff02::1/8000",
		"127.0.0.1/8000:[::1]/9000", "8000:0.0.0.0/9000", "none,8000", "8000,none", "auto,all", "all,all", "8000,8000",
		"8000-8002,8001", "8000-8002:9000-9002,8002:1", " 8000", "8000 ", "8 000", "+8000", "0x1f40", "8e3", "８０００",
	} {
		failing(t, b, []string{"-t", spec}, "-t")
		failing(t, b, []string{"-U", spec}, "-U")
	}
}

// TestConflictingPorts names both specifications.
func TestConflictingPorts(t *testing.T) {
	b := newBed(t)
	for _, c := range [][2]string{
		{"8000", "8000"}, {"8000-8010", "8005:9000"}, {"8000", "127.0.0.1/8000"}, {"127.0.0.1/8000", "0.0.0.0/8000"},
		{"%lo/8000", "8000"}, {"[::1]/8000-8001", "::/8001"}, {"all", "auto"}, {"all", "~8000"},
	} {
		failing(t, b, []string{"-t", c[0], "-t", c[1]}, "-t "+c[0], "-t "+c[1])
	}
}

// TestPortsThatCannotBeBound says which one, why, and for which option.
func TestPortsThatCannotBeBound(t *testing.T) {
	b := newBed(t)
	tcp, err := b.Host.Listen("tcp", "127.0.0.1:8005")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := b.Host.ListenPacket("udp", "127.0.0.1:8005")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, c := range []struct{ option, spec, want string }{
		{"-t", "8005", "Failed to bind port 8005 (Address already in use) for option '-t 8005'"},
		{"-t", "8000-8010", "Failed to bind port 8005 (Address already in use) for option '-t 8000-8010'"},
		{"-u", "127.0.0.1/8005:9000", "Failed to bind port 8005 (Address already in use) for option '-u 127.0.0.1/8005:9000'"},
		{"-t", "192.0.2.1/8000", "Failed to bind port 8000 (Cannot assign requested address) for option '-t 192.0.2.1/8000'"},
		{"-t", "2001:db8:f::1/8000", "Failed to bind port 8000 (Cannot assign requested address) for option '-t 2001:db8:f::1/8000'"},
		{"-t", "%nosuchlink/8000", "Failed to bind port 8000 (No such device) for option '-t %nosuchlink/8000'"},
		{"-u", "127.0.0.1%nosuchlink/8000", "Failed to bind port 8000 (No such device) for option '-u 127.0.0.1%nosuchlink/8000'"},
		{"-T", "%nosuchlink/8000", "Failed to bind port 8000 (No such device) for option '-T %nosuchlink/8000'"},
		{"-t", "80", "Failed to bind port 80 (Permission denied) for option '-t 80'"},
		{"-u", "53", "net.ipv4.ip_unprivileged_port_start"},
	} {
		failing(t, b, append(append([]string{}, noForward...), c.option, c.spec), c.want)
	}
}

// TestPortsInUseInside joins a namespace where a port of -T is in use by one family: the other alone will not do.
func TestPortsInUseInside(t *testing.T) {
	need(t, "socat")
	b := newBed(t)
	program := staged(t, b)
	for _, c := range []struct{ option, proto, listen, ready string }{
		{"-T", "TCP", "TCP4-LISTEN:8000,bind=127.0.0.1", "listening on"},
		{"-T", "TCP", "TCP6-LISTEN:8000,bind=[::1]", "listening on"},
		{"-U", "UDP", "UDP4-RECV:8000,bind=127.0.0.1", "starting data transfer"},
	} {
		target, err := b.Host.Start(bed.Spec{
			Argv:  []string{"unshare", "-Urn", "sh", "-c", "ip link set lo up; exec socat -u -d -d -d " + c.listen + " STDOUT"},
			Ready: c.ready,
		})
		if err != nil {
			t.Fatal(err)
		}
		join := func(spec string, status int, says string) {
			t.Helper()
			argv := append(append([]string{program, "-q", "--splice-only"}, noForward...), c.option, spec, strconv.Itoa(target.PID()))
			res, err := b.Host.Run(bed.Spec{Argv: argv})
			if err != nil || res.Status != status || !strings.Contains(res.Stderr, says) {
				t.Errorf("%s %s beside %s: status %d, %q, %v", c.option, spec, c.listen, res.Status, res.Stderr, err)
			}
		}
		join("8000", 1, "Failed to bind port 8000 (Address already in use) for option '"+c.option+" 8000'")
		join("all,~1-1023,~3000-7999,~8001-65535", 0, "leaves out "+c.proto+" port 8000 (Address already in use)")
		target.Kill()
	}
}

// TestPortsLeftOut forwards what can be had where no port was asked for by itself, and warns of the rest in one line.
func TestPortsLeftOut(t *testing.T) {
	b := newBed(t)
	tcp, err := b.Host.Listen("tcp", "127.0.0.1:2005")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	for _, addr := range []string{"127.0.0.1:2006", "[::1]:2008"} {
		udp, err := b.Host.ListenPacket("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer udp.Close()
	}
	for _, c := range []struct {
		options []string
		want    string
	}{
		{[]string{"-t", "2006"}, "option '-t 2006' leaves out UDP port 2006 (Address already in use)\n"},
		{[]string{"-t", "2006-2010"}, "option '-t 2006-2010' leaves out 2 UDP ports from 2006 to 2008 (Address already in use)\n"},
		{[]string{"-t", "~3000-65535", "-u", "none"}, "option '-t ~3000-65535' leaves out TCP port 2005 (Address already in use)\n"},
		{[]string{"-t", "none", "-u", "all,~3000-65535,~2006-2008"}, ""},
	} {
		argv := append(append([]string{}, forwarding...), "-T", "none", "-U", "none")
		res := pasta(t, b, append(append(argv, c.options...), "--", "true")...)
		if res.Status != 0 || res.Stderr != c.want {
			t.Errorf("%v: status %d, %q, want %q", c.options, res.Status, res.Stderr, c.want)
		}
	}
}

// TestPortsBeyondTheLimit forwards as many ports of "all" as the limit of open files allows, and tells by protocol where
// that ends. Of a range it forwards all ports or none.
func TestPortsBeyondTheLimit(t *testing.T) {
	b := newBed(t)
	limited := func(spec string, status int) string {
		t.Helper()
		argv := []string{"prlimit", "--nofile=4000:4000", staged(t, b), "-q", "--splice-only", "-T", "none", "-U", "none", "-t", spec, "--", "true"}
		res, err := b.Host.Run(bed.Spec{Argv: argv})
		if err != nil || res.Status != status {
			t.Fatalf("-t %s: status %d, %v: %s", spec, res.Status, err, res.Stderr)
		}
		return res.Stderr
	}
	said := limited("~1-1023,~5000-65535", 0)
	for _, proto := range []string{"TCP", "UDP"} {
		if strings.Count(said, "option '-t ~1-1023,~5000-65535' forwards "+proto+" ports below ") != 1 {
			t.Errorf("no line for %s: %s", proto, said)
		}
	}
	said = limited("2000-9000", 1)
	if !strings.HasSuffix(said, " (Too many open files) for option '-t 2000-9000': raise the limit of open files, ulimit -n\n") {
		t.Errorf("range: %s", said)
	}
}

// TestFreebind listens on an address that does not exist yet.
func TestFreebind(t *testing.T) {
	b, _, remote := portsBed(t)
	const later = "198.51.100.78"
	var options []string
	for _, o := range []string{"-t", "-u"} {
		options = append(options, o, later+"/8000", o, "[2001:db8:1::78]/8000")
	}
	s := forward(t, b, append(append(options, "--freebind"), noForward[4:]...)...)
	inHost(t, b, "ip", "addr", "add", later+"/24", "dev", bed.Link)
	inHost(t, b, "ip", "addr", "add", "2001:db8:1::78/64", "dev", bed.Link, "nodad")
	for _, network := range []string{"tcp", "udp"} {
		serveIn(t, s, network, "who", ":8000")
		for _, ip := range []string{later, "2001:db8:1::78"} {
			for range 8 { // by all shards
				if a := ask(t, remote, network, at(ip, 8000)); a.localPort() != 8000 {
					t.Errorf("%s by %s: %+v", ip, network, a)
				}
			}
		}
	}
}

// TestLowPorts binds ports below 1024, allowed by the capability on the file or by the sysctl.
func TestLowPorts(t *testing.T) {
	need(t, "setcap")
	b, host, remote := portsBed(t)
	options := append(append([]string{}, noForward...), "-t", "80,8000", "-u", "53:5353", "-t", "127.0.0.1/443")
	try := func(t *testing.T, program string) {
		// env(1) keeps the bed from running a copy, which would lack the capability.
		s, err := b.Pasta(append(append([]string{"/usr/bin/env", program}, forwarding...), options...)...)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		serveIn(t, s, "tcp", "who", ":80", ":8000")
		serveIn(t, s, "udp", "who", ":5353")
		for _, ip := range []string{net4, net6} {
			if a := ask(t, remote, "tcp", at(ip, 80)); a.localPort() != 80 {
				t.Errorf("TCP by %s: %+v", ip, a)
			}
		}
		// Who has the capability only binds listeners with it: a peer from afar has no socket of its own on the port.
		// The second time it is known.
		for _, ip := range []string{lo4, lo6, net4, net6, net4, net6} {
			if a := ask(t, clientOf(host, remote, ip), "udp", at(ip, 53)); a.localPort() != 5353 {
				t.Errorf("UDP by %s: %+v", ip, a)
			}
		}
	}
	t.Run("capability", func(t *testing.T) {
		try(t, withCapability(t, b))
	})
	t.Run("all", func(t *testing.T) {
		program := withCapability(t, b)
		s, err := b.Pasta(append(append([]string{"/usr/bin/env", program}, forwarding...),
			"-t", "all,~90,~2000-65535", "-t", "100:200", "-u", "none", "-T", "none", "-U", "none")...)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		serveIn(t, s, "tcp", "who", ":80", ":90", ":200", ":1500")
		wantPorts(t, host, remote, "tcp", merge(everywhere(80, 80), everywhere(90, 0), everywhere(100, 200), everywhere(1500, 1500)))
	})
	t.Run("in use", func(t *testing.T) {
		serveIn(t, host, "tcp", "source", ":8000")
		inHost(t, b, "sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=8001")
		defer inHost(t, b, "sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=1024")
		res, err := b.Host.Run(bed.Spec{Argv: append(append([]string{"/usr/bin/env", withCapability(t, b)}, options...), "true")})
		const want = "pasta: Failed to bind port 8000 (Address already in use) for option '-t 80,8000'\n"
		if err != nil || res.Status != 1 || res.Stderr != want {
			t.Errorf("status %d, %q, %v", res.Status, res.Stderr, err)
		}
	})
	t.Run("sysctl", func(t *testing.T) {
		inHost(t, b, "sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=53")
		try(t, staged(t, b))
	})
}

// withCapability is a copy of the program that may bind low ports.
func withCapability(t *testing.T, b *bed.Bed) string {
	t.Helper()
	dir, err := b.ScratchDir()
	if err != nil {
		t.Fatal(err)
	}
	program := dir + "/pasta"
	inHost(t, b, "cp", staged(t, b), program)
	inHost(t, b, "setcap", "cap_net_bind_service=+ep", program)
	inHost(t, b, "chmod", "755", dir)
	return program
}

// TestRestart binds the ports of a predecessor that has just been told to end, with connections open.
func TestRestart(t *testing.T) {
	b, _, remote := portsBed(t)
	options := append(append([]string{}, noForward...), "-t", "8000-8009", "-u", "8000-8009")
	for range 5 {
		s, err := b.Pasta(append(append([]string{pastaBinary(t)}, forwarding...), options...)...)
		if err != nil {
			t.Fatal(err)
		}
		serveIn(t, s, "tcp", "who", ":8000")
		stop, err := remote.BackgroundTool("^holding", "hold", at(net4, 8000), "50")
		if err != nil {
			t.Fatal(err)
		}
		s.Terminate()
		stop()
	}
}

// TestDyingHolder starts while the predecessor still holds the port: it has been signalled and no more.
func TestDyingHolder(t *testing.T) {
	b := newBed(t)
	options := append(append([]string{}, noForward...), "-t", "8000-8009:80-89", "-t", "8010", "-u", "8000-8009:80-89")
	argv := append(append([]string{pastaBinary(t)}, forwarding...), options...)
	old, err := b.Pasta(argv...)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		old.Proc.Signal(syscall.SIGTERM)
		next, err := b.Pasta(argv...)
		if err != nil {
			t.Fatal(err)
		}
		old.Close()
		old = next
	}
	old.Close()
}

var _ = bed.Register("hold", holdTool)

// holdTool opens COUNT connections to ADDR and holds them until it is ended. It prints "holding" and how many there
// are once every one has succeeded or failed, for which a third argument "echo" wants a byte to come back. With "watch"
// it ends with an error when one of them ends.
func holdTool(args []string) (any, error) {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, err
	}
	how := append(args, "")[2]
	held, ended := make([]net.Conn, 0, n), make(chan error)
	for range n {
		c, err := net.DialTimeout("tcp", args[0], client.Patience)
		if err == nil && how == "echo" {
			err = echoByte(c)
		}
		if err == nil && how == "watch" {
			go func() {
				_, err := c.Read(make([]byte, 1))
				ended <- fmt.Errorf("a connection has ended: %w", err)
			}()
		}
		if err == nil {
			held = append(held, c)
		}
	}
	fmt.Println("holding", len(held))
	if how == "watch" {
		return nil, <-ended
	}
	return bed.Forever()
}

func echoByte(c net.Conn) error {
	c.SetDeadline(time.Now().Add(client.Patience))
	b := []byte{'x'}
	if _, err := c.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(c, b)
	return err
}

// engineOf is the process that serves, and nothing else of the tree: the one with a tap.
func engineOf(t *testing.T, s *bed.Session) int {
	t.Helper()
	for _, pid := range s.Processes() {
		if n := countFDs(pid, "anon_inode:[eventpoll]"); n > 0 && countFDs(pid, "/dev/net/tun") > 0 {
			return pid
		}
	}
	t.Fatal("no engine among ", s.Processes())
	return 0
}

func countFDs(pid int, target string) (n int) {
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if to, _ := os.Readlink(dir + e.Name()); strings.HasPrefix(to, target) {
			n++
		}
	}
	return n
}

var (
	_ = bed.Register("keep", keepTool)
	_ = bed.Register("abort", abortTool)
)

// keepTool keeps an echoing connection to ADDR busy until it is ended, and says "kept" once it works. It ends
// with an error when the connection fails.
func keepTool(args []string) (any, error) {
	c, err := net.Dial("tcp", args[0])
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 5)
	for i := 0; ; i++ {
		if _, err := c.Write([]byte("still")); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			return nil, err
		}
		if i == 0 {
			fmt.Println("kept")
		}
	}
}

// abortTool makes COUNT connections to ADDR, sends BYTES by each, if they are given, and resets it at once.
func abortTool(args []string) (any, error) {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, err
	}
	var o client.Outcome
	for range n {
		c, err := net.DialTimeout("tcp", args[0], client.Patience)
		if err != nil {
			return nil, err
		}
		if len(args) > 2 {
			size, err := strconv.Atoi(args[2])
			if err != nil {
				return nil, err
			}
			c.Write(make([]byte, size))
		}
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
		o.Bytes++
	}
	return o, nil
}
