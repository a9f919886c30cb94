package bed

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
)

// Server accepts connections, or receives datagrams, in a namespace until it is closed. It is bound before
// it is handed out: nobody needs to wait for it.
type Server struct {
	Addr net.Addr

	close func() error
	wg    sync.WaitGroup
}

// Close stops listening. Connections that are being served go on until their handler returns.
func (s *Server) Close() error { return s.close() }

// Wait waits for the handlers of a closed server.
func (s *Server) Wait() { s.wg.Wait() }

// Port is the port the server is bound to.
func (s *Server) Port() int {
	switch a := s.Addr.(type) {
	case *net.TCPAddr:
		return a.Port
	case *net.UDPAddr:
		return a.Port
	}
	return 0
}

// ServeTCP runs handle for every connection to addr ("ip:port", port 0 for any), each in a goroutine, and closes
// the connection when it returns.
func (n *NS) ServeTCP(addr string, handle func(*net.TCPConn)) (*Server, error) {
	l, err := n.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &Server{Addr: l.Addr(), close: l.Close}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // a connection reset while it waited
			}
			s.wg.Add(1)
			go func() {
				defer s.wg.Done()
				defer c.Close()
				handle(c.(*net.TCPConn))
			}()
		}
	}()
	return s, nil
}

// ServeUDP answers every datagram to addr with what answer returns, or not at all for nil.
func (n *NS) ServeUDP(addr string, answer func([]byte, net.Addr) []byte) (*Server, error) {
	c, err := n.ListenPacket("udp", addr)
	if err != nil {
		return nil, err
	}
	s := &Server{Addr: c.LocalAddr(), close: c.Close}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		buf := make([]byte, 1<<16)
		for {
			size, from, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // an ICMP error of an earlier answer
			}
			if b := answer(buf[:size], from); b != nil {
				c.WriteTo(b, from) // the client may have gone
			}
		}
	}()
	return s, nil
}

// Echo returns what it gets.
func Echo(b []byte, _ net.Addr) []byte { return b }

// EchoTCP sends back what it reads until the other side ends its direction, then ends its own.
func EchoTCP(c *net.TCPConn) {
	io.Copy(c, c)
	c.CloseWrite()
}

// Pattern is an endless stream of pseudorandom bytes; equal seeds give equal streams, however they are read.
type Pattern struct {
	state uint64
	word  uint64 // bytes already made
	left  int    // how many of them
}

// NewPattern starts a stream.
func NewPattern(seed uint64) *Pattern { return &Pattern{state: seed*2 + 1} }

// Read implements io.Reader; it always fills b.
func (p *Pattern) Read(b []byte) (int, error) {
	n := len(b)
	for ; len(b) > 0 && p.left > 0; b = b[1:] {
		p.pop(b)
	}
	for ; len(b) >= 8; b = b[8:] {
		binary.LittleEndian.PutUint64(b, p.next())
	}
	for ; len(b) > 0; b = b[1:] {
		if p.left == 0 {
			p.word, p.left = p.next(), 8
		}
		p.pop(b)
	}
	return n, nil
}

func (p *Pattern) pop(b []byte) {
	b[0] = byte(p.word)
	p.word >>= 8
	p.left--
}

// next is xorshift64* (Vigna, 2014): eight bytes at a time keep it faster than SHA-256.
func (p *Pattern) next() uint64 {
	p.state ^= p.state >> 12
	p.state ^= p.state << 25
	p.state ^= p.state >> 27
	return p.state * 0x2545f4914f6cdd1d
}

// PatternSum is the SHA-256, in hexadecimal, of the first n bytes of a stream.
func PatternSum(seed uint64, n int64) string {
	h := sha256.New()
	io.Copy(h, PatternReader(seed, n))
	return hex.EncodeToString(h.Sum(nil))
}

// PatternReader gives the first n bytes of a stream.
func PatternReader(seed uint64, n int64) io.Reader { return io.LimitReader(NewPattern(seed), n) }

// HostPort joins an address of either family and a port as net.Dial wants it.
func HostPort(ip, port string) string { return net.JoinHostPort(strings.Trim(ip, "[]"), port) }
