package guest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/tcpx"
	"penne/test/guest"
)

// errno is the error number inside err.
func errno(err error) syscall.Errno {
	var e syscall.Errno
	errors.As(err, &e)
	return e
}

func TestKernelGuestConnectErrors(t *testing.T) {
	m := newMachine(t, 1500)
	for _, dst := range []string{
		"203.0.113.1:80", "192.0.2.9:80", "[2001:db8:2::1]:80", "[2001:db8:3::1]:80", "[2001:db8:9::1]:80",
	} {
		var want error
		m.onHost(func() error {
			var d net.Dialer
			_, want = d.Dial("tcp", dst)
			return nil
		})
		_, got := net.DialTimeout("tcp", dst, guest.Patience)
		t.Logf("%s: host %v, guest %v", dst, errno(want), errno(got))
		if errno(want) == 0 || errno(got) != errno(want) {
			t.Errorf("%s: host says %v, guest %v", dst, want, got)
		}
	}
	for _, v6 := range []bool{false, true} {
		ln := m.listen(v6)
		ln.Close()
		if _, err := net.Dial("tcp", gateway(ln)); errno(err) != syscall.ECONNREFUSED {
			t.Errorf("closed port: %v", err)
		}
	}
}

func TestKernelGuestEnds(t *testing.T) {
	m := newMachine(t, 1500)
	ln := m.listen(false)
	b := make([]byte, 16)

	in, out := pair(t, ln)
	in.Write([]byte("last words"))
	in.SetLinger(0)
	in.Close()
	if _, err := io.ReadAll(out); errno(err) != syscall.ECONNRESET {
		t.Errorf("host read %v after the guest's RST", err)
	}

	in, out = pair(t, ln)
	out.Write([]byte("last words"))
	in.Read(b)
	out.SetLinger(0)
	out.Close()
	if _, err := in.Read(b); errno(err) != syscall.ECONNRESET {
		t.Errorf("guest read %v after the host's RST", err)
	}

	in, out = pair(t, ln)
	in.CloseWrite()
	if rest, err := io.ReadAll(out); err != nil || len(rest) != 0 {
		t.Errorf("half-close: %v", err)
	}
	out.Write([]byte("answer"))
	out.Close()
	if rest, err := io.ReadAll(in); err != nil || string(rest) != "answer" {
		t.Errorf("half-close: %q %v", rest, err)
	}
}

func TestKernelGuestInbound(t *testing.T) {
	m := newMachine(t, 1500)
	gln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: guest.Addr4.Netip().AsSlice()})
	must(t, err)
	defer gln.Close()
	patient(t, gln)
	port := gln.Addr().(*net.TCPAddr).Port
	ln := m.listen(false)

	accept := func(port int) (peer net.Conn) {
		m.onHost(func() (err error) {
			if peer, err = net.Dial("tcp", ln.Addr().String()); err != nil {
				return err
			}
			h, err := ln.AcceptTCP()
			if err != nil {
				return err
			}
			f, err := h.File()
			if err != nil {
				return err
			}
			h.Close()
			fd, err := syscall.Dup(int(f.Fd()))
			f.Close()
			sys.SetNonblock(fd)
			from := peer.LocalAddr().(*net.TCPAddr)
			m.tcp.Accept(fd, tcpx.Inbound{Peer: guest.Gateway4, Guest: guest.Addr4,
				PeerPort: uint16(from.Port), GuestPort: uint16(port)})
			return err
		})
		patient(t, peer)
		return peer
	}
	peer := accept(port)
	c, err := gln.Accept()
	must(t, err)
	patient(t, c)
	exchange(t, "inbound", peer.(*net.TCPConn), c.(*net.TCPConn))
	exchange(t, "answer", c.(*net.TCPConn), peer.(*net.TCPConn))

	gln.Close()
	peer = accept(port)
	if _, err := peer.Read(make([]byte, 1)); errno(err) != syscall.ECONNRESET {
		t.Errorf("port closed inside: host client read %v", err)
	}
}

func TestKernelGuestManyShort(t *testing.T) {
	m := newMachine(t, 65520)
	ln := m.listen(false)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.Copy(c, c)
			c.Close()
		}
	}()
	for i := range 500 {
		c := dial(t, ln)
		msg := fmt.Appendf(nil, "message %d", i)
		c.Write(msg)
		c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, msg) {
			t.Fatalf("connection %d: %q %v", i, got, err)
		}
		c.Close()
	}
	n := m.counters()
	if n.TCPOpened != 500 || n.Drops[stats.NoFrame]+n.Drops[stats.TableFull]+n.Drops[stats.NoSocket] > 0 {
		t.Errorf("%d flows opened, drops %v", n.TCPOpened, n.Drops)
	}
}
