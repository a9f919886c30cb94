package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv6"

	"penne/test/bed"
	"penne/test/client"
)

// forward starts pasta in a bed with just these options beside the forwarding ones.
func forward(t *testing.T, b *bed.Bed, options ...string) *bed.Session {
	t.Helper()
	s, err := b.Pasta(append(append([]string{pastaBinary(t)}, forwarding...), options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if status := s.Close(); status != 0 {
			t.Errorf("pasta ended with status %d: %s", status, s.Proc.Stderr)
		}
	})
	return s
}

// direct is an agent in one of the bed's own namespaces, for clients there.
func direct(t *testing.T, b *bed.Bed, n *bed.NS) *bed.Session {
	t.Helper()
	s, err := b.Direct(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// answer is what a "who" server tells a client: the addresses of both ends as the server sees them.
type answer struct {
	Local, Remote string
	Errno         int    // of the client's failure
	Text          string // of it
	From          string // the client's own address
}

// refused tells whether the client was told that nobody listens.
func (a answer) refused() bool { return syscall.Errno(a.Errno) == syscall.ECONNREFUSED }

func (a answer) localPort() int {
	ap, err := netip.ParseAddrPort(a.Local)
	if err != nil {
		return 0
	}
	return int(ap.Port())
}

// remoteIP and localIP are without port and zone.
func (a answer) remoteIP() string { return ipOf(a.Remote) }
func (a answer) localIP() string  { return ipOf(a.Local) }

func ipOf(addrPort string) string {
	ap, err := netip.ParseAddrPort(addrPort)
	if err != nil {
		return ""
	}
	return ap.Addr().Unmap().WithZone("").String()
}

var (
	_ = bed.Register("serve", serveTool)
	_ = bed.Register("ask", askTool)
	_ = bed.Register("askall", askAllTool)
)

// handlers are the TCP servers that serveTool offers.
var handlers = map[string]func(*net.TCPConn){
	"sink": client.Sink,
	"echo": bed.EchoTCP,
	// source's bytes are those of seed 2.
	"source": client.Source(2, transfer),
	// who ends its direction only when the client has, so that the client's port is not left in TIME-WAIT here.
	"who": func(c *net.TCPConn) {
		json.NewEncoder(c).Encode(answer{Local: c.LocalAddr().String(), Remote: c.RemoteAddr().String()})
		c.CloseWrite()
		io.Copy(io.Discard, c)
	},
	// reset waits for a byte and resets the connection.
	"reset": func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 1))
		c.SetLinger(0)
	},
	"parting": parting,
	"witness": witness,
	// early ends its direction at once and answers no byte, but reads on.
	"early": func(c *net.TCPConn) {
		c.CloseWrite()
		io.Copy(io.Discard, c)
	},
}

// transfer is how much the transfers of this file's servers move.
const transfer = 10 << 20

// serveTool serves in its namespace until it is ended: NETWORK KIND ADDR... It prints a line with the addresses
// once all are bound.
func serveTool(args []string) (any, error) {
	network, kind := args[0], args[1]
	var at []string
	for _, addr := range args[2:] {
		bound, err := serveAt(network, kind, addr)
		if err != nil {
			return nil, err
		}
		at = append(at, bound)
	}
	fmt.Println("ready", strings.Join(at, " "))
	return bed.Forever()
}

func serveAt(network, kind, addr string) (string, error) {
	if strings.HasPrefix(network, "udp") {
		c, err := net.ListenPacket(network, addr)
		if err != nil {
			return "", err
		}
		go serveDatagrams(c, kind)
		return c.LocalAddr().String(), nil
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return "", err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				continue
			}
			go func() {
				defer c.Close()
				handlers[kind](c.(*net.TCPConn))
			}()
		}
	}()
	return l.Addr().String(), nil
}

// serveDatagrams answers from the address that was written to: a machine with several would else choose one.
func serveDatagrams(c net.PacketConn, kind string) {
	p := ipv6.NewPacketConn(c)
	// An IPv4 socket refuses, and is bound to one address in these tests.
	wildcard := p.SetControlMessage(ipv6.FlagDst, true) == nil
	buf := make([]byte, 1<<16)
	for {
		n, back, from, err := readDatagram(c, p, wildcard, buf)
		if err != nil {
			continue
		}
		reply, local := buf[:n], *c.LocalAddr().(*net.UDPAddr)
		if back != nil {
			local.IP = back.Src
		}
		if kind == "who" {
			reply, _ = json.Marshal(answer{Local: local.String(), Remote: from.String()})
		}
		if back != nil {
			p.WriteTo(reply, back, from)
		} else {
			c.WriteTo(reply, from)
		}
	}
}

// readDatagram reads from c, and how to answer from where it was written to if that can be told.
func readDatagram(c net.PacketConn, p *ipv6.PacketConn, wildcard bool, buf []byte) (int, *ipv6.ControlMessage, net.Addr, error) {
	if !wildcard {
		n, from, err := c.ReadFrom(buf)
		return n, nil, from, err
	}
	n, cm, from, err := p.ReadFrom(buf)
	if err != nil || cm == nil {
		return n, nil, from, err
	}
	return n, &ipv6.ControlMessage{Src: cm.Dst}, from, nil
}

// askTool asks a "who" server: NETWORK ADDR [LOCAL]. UDP that gets no answer in the given time fails with
// EAGAIN: the datagram went nowhere.
func askTool(args []string) (any, error) {
	network, addr := args[0], args[1]
	d := net.Dialer{Timeout: client.Patience}
	if len(args) > 2 {
		local := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(args[2]))
		d.LocalAddr = local
		if network == "udp" {
			d.LocalAddr = &net.UDPAddr{IP: local.IP, Port: local.Port, Zone: local.Zone}
		}
	}
	c, err := d.Dial(network, addr)
	if err != nil {
		return failure(err), nil
	}
	defer c.Close()
	patience := client.Patience
	if network == "udp" {
		patience = 5 * time.Second
		if _, err := c.Write([]byte("who?")); err != nil {
			return failure(err), nil
		}
	}
	c.SetDeadline(time.Now().Add(patience))
	a := answer{}
	if err := json.NewDecoder(c).Decode(&a); err != nil {
		return failure(err), nil
	}
	a.From = c.LocalAddr().String()
	return a, nil
}

// askAllTool asks at several addresses: NETWORK ADDR...
func askAllTool(args []string) (any, error) {
	all := map[string]any{}
	for _, addr := range args[1:] {
		a, err := askTool([]string{args[0], addr})
		if err != nil {
			return nil, err
		}
		all[addr] = a
	}
	return all, nil
}

func failure(err error) answer {
	a := answer{Text: err.Error()}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		a.Errno = int(errno)
	}
	return a
}

// serveIn starts a server in a session's namespace, which the test may stop before its end.
func serveIn(t *testing.T, s *bed.Session, network, kind string, addrs ...string) (stop func()) {
	t.Helper()
	end, err := s.BackgroundTool("^ready ", "serve", append([]string{network, kind}, addrs...)...)
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() { end() })
	t.Cleanup(stop)
	return stop
}

// ask asks a "who" server from a session's namespace.
func ask(t *testing.T, s *bed.Session, network, addr string, local ...string) answer {
	t.Helper()
	var a answer
	if err := s.Tool(&a, "ask", append([]string{network, addr}, local...)...); err != nil {
		t.Fatal(err)
	}
	return a
}

// askAll is ask at several addresses, by one process.
func askAll(t *testing.T, s *bed.Session, network string, addrs []string) map[string]answer {
	t.Helper()
	all := map[string]answer{}
	if len(addrs) == 0 {
		return all
	}
	if err := s.Tool(&all, "askall", append([]string{network}, addrs...)...); err != nil {
		t.Fatal(err)
	}
	return all
}

// anyPort are the addresses ":port" for a range of ports.
func anyPort(first, last int) []string {
	var all []string
	for p := first; p <= last; p++ {
		all = append(all, ":"+strconv.Itoa(p))
	}
	return all
}

func at(ip string, port int) string { return bed.HostPort(ip, strconv.Itoa(port)) }

var _ = bed.Register("await", awaitTool)

// awaitTool asks a "who" server until it is reached, or, with a third argument "refused", until nobody listens:
// NETWORK ADDR [refused]. Nothing tells an outsider of a bind, so it asks again and again.
func awaitTool(args []string) (any, error) {
	network, addr := args[0], args[1]
	refused := len(args) > 2
	var last answer
	for end := time.Now().Add(client.Patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		last = attempt(network, addr)
		if last.refused() == refused && (refused || last.Local != "") {
			return last, nil
		}
	}
	return nil, fmt.Errorf("%s by %s in the end: %+v", addr, network, last)
}

func attempt(network, addr string) answer {
	c, err := net.DialTimeout(network, addr, time.Second)
	if err != nil {
		return failure(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	if network == "udp" {
		c.Write([]byte("who?")) // a refusal shows at the read
	}
	a := answer{}
	if err := json.NewDecoder(c).Decode(&a); err != nil {
		return failure(err)
	}
	return a
}

// await asks again until the server answers.
func await(t *testing.T, s *bed.Session, network, addr string) answer {
	t.Helper()
	var a answer
	if err := s.Tool(&a, "await", network, addr); err != nil {
		t.Fatal(err)
	}
	return a
}

// awaitRefusal waits until nobody listens.
func awaitRefusal(t *testing.T, s *bed.Session, network, addr string) {
	t.Helper()
	var a answer
	if err := s.Tool(&a, "await", network, addr, "refused"); err != nil {
		t.Fatal(err)
	}
}
