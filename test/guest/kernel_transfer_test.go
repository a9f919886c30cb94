package guest_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"penne/tcpx"
	"penne/test/guest"
)

func TestKernelGuestIntegrity(t *testing.T) {
	for _, mtu := range []int{1500, 9000, 65520} {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("mtu=%d,v6=%t", mtu, v6), func(t *testing.T) {
				m := newMachine(t, mtu)
				in, out := pair(t, m.listen(v6))
				exchange(t, "out", in, out)
				exchange(t, "in", out, in)
				n := m.counters()
				t.Logf("tail frames %d, retransmits %d", n.TCPTailFrames, n.TCPRetransmits)
			})
		}
	}
}

// TestKernelGuestVariants goes the ways that a short path and a new kernel do
// not take: acknowledgments that wait for the remote's, and peeking without
// SO_PEEK_OFF.
func TestKernelGuestVariants(t *testing.T) {
	for name, cfg := range map[string]tcpx.Config{"reflect": {ShortPath: -1}, "no peek offset": {NoPeekOff: true}} {
		t.Run(name, func(t *testing.T) {
			m := newMachineOf(t, 1500, 2048, cfg)
			in, out := pair(t, m.listen(false))
			exchange(t, "out", in, out)
			exchange(t, "in", out, in)
			t.Logf("retransmits %d", m.counters().TCPRetransmits)
		})
	}
}

// exchange sends from a to b, ends that direction, and compares.
func exchange(t *testing.T, what string, a, b *net.TCPConn) {
	t.Helper()
	const size = 64 << 20
	chunk := make([]byte, 1<<20)
	for i := range chunk {
		chunk[i] = byte(i * 7 >> 3)
	}
	sum, sent := sha256.New(), make(chan error, 1)
	start := time.Now()
	go func() {
		var err error
		for n := 0; n < size && err == nil; n += len(chunk) {
			chunk[n>>20] ^= 0x5a
			sum.Write(chunk)
			_, err = a.Write(chunk)
		}
		sent <- errors.Join(err, a.CloseWrite())
	}()
	var buf bytes.Buffer
	buf.Grow(size + 512)
	_, err := io.Copy(&buf, b)
	took := time.Since(start)
	if err := errors.Join(err, <-sent); err != nil || buf.Len() != size {
		t.Fatalf("%s: %d octets, %v", what, buf.Len(), err)
	}
	if sha256.Sum256(buf.Bytes()) != [32]byte(sum.Sum(nil)) {
		t.Fatalf("%s: contents differ", what)
	}
	t.Logf("%s: %.1f Gbit/s with hashing", what, float64(size)*8/took.Seconds()/1e9)
}

// TestKernelGuestCrowd runs many connections over a pool that is far too small
// for what they would like to have in flight: windows shrink, nothing is lost.
func TestKernelGuestCrowd(t *testing.T) {
	for _, mtu := range []int{1500, 65520} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			m := newMachineOf(t, mtu, 192, tcpx.Config{})
			ln := m.listen(true)
			const conns, size = 8, 16 << 20
			data := make([]byte, size)
			for i := range data {
				data[i] = byte(i * 31 >> 5)
			}
			errs := make(chan error)
			full := make(chan struct{}) // closed when sockets have refused octets
			for range conns {
				in, out := pair(t, ln)
				go func() {
					<-full
					errs <- echo(out)
				}()
				go func() { errs <- send(in, data) }()
				go func() { errs <- compare(in, data) }()
			}
			for end := time.Now().Add(guest.Patience); m.counters().TCPTailFrames < 20; {
				if time.Now().After(end) {
					t.Fatal("the sockets take everything")
				}
			}
			close(full)
			for range 3 * conns {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
			n := m.counters()
			t.Logf("tail frames %d, retransmits %d, drops %v", n.TCPTailFrames, n.TCPRetransmits, n.Drops)
		})
	}
}

// echo sends back what it gets.
func echo(c *net.TCPConn) error {
	defer c.CloseWrite()
	buf := make([]byte, 100_000)
	for {
		n, err := c.Read(buf)
		if _, err := c.Write(buf[:n]); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func send(c *net.TCPConn, data []byte) error {
	if _, err := c.Write(data); err != nil {
		return err
	}
	return c.CloseWrite()
}

func compare(c *net.TCPConn, want []byte) error {
	got, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%d octets came back changed", len(got))
	}
	return nil
}
