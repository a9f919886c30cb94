package steer

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"penne/internal/sys"
)

const soReuseport = 15 // SO_REUSEPORT of linux/socket.h; package syscall has it on some machines only

// group makes n sockets of one SO_REUSEPORT group on a port of 127.0.0.1.
func group(t *testing.T, n, kind int) (fds []int, port int) {
	t.Helper()
	for range n {
		fd, err := syscall.Socket(syscall.AF_INET, kind|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Close(fd) })
		if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, soReuseport, 1); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
		sa, err := syscall.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		port = sa.(*syscall.SockaddrInet4).Port
		if kind == syscall.SOCK_STREAM {
			if err := syscall.Listen(fd, 1024); err != nil {
				t.Fatal(err)
			}
		}
		fds = append(fds, fd)
	}
	return fds, port
}

// files makes Go's own objects of sockets, with a deadline, so that waiting is the runtime's business.
func files[T interface {
	io.Closer
	SetDeadline(time.Time) error
}](t *testing.T, fds []int, wrap func(*os.File) T) []T {
	t.Helper()
	var all []T
	for _, fd := range fds {
		dup, err := syscall.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(dup), "socket")
		v := wrap(f) // has a descriptor of its own
		f.Close()
		t.Cleanup(func() { v.Close() })
		if err := v.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

// accepting accepts on all sockets of a group and tells on which.
func accepting(t *testing.T, fds []int) <-chan int {
	listeners := files(t, fds, func(f *os.File) *net.TCPListener {
		l, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		return l.(*net.TCPListener)
	})
	got := make(chan int)
	for i, l := range listeners {
		go func() {
			for {
				c, err := l.Accept()
				if errors.Is(err, net.ErrClosed) {
					return // the test is over
				}
				if err != nil {
					t.Errorf("accept on socket %d: %v", i, err)
					close(got)
					return
				}
				c.Close()
				got <- i
			}
		}()
	}
	return got
}

// connect makes one connection after the other and counts on which socket they are accepted.
func connect(t *testing.T, accepted <-chan int, port, sockets, connections int) []int {
	t.Helper()
	counts := make([]int, sockets)
	for range connections {
		c, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = syscall.Connect(c, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
		if err != nil {
			t.Fatal(err)
		}
		i, ok := <-accepted
		if !ok {
			t.FailNow()
		}
		counts[i]++
		syscall.Close(c)
	}
	return counts
}

// TestReuseportRandomTCP spreads connections, without privilege.
func TestReuseportRandomTCP(t *testing.T) {
	onThread(t, func(t *testing.T) {
		becomeNobody(t)
		fds, port := group(t, 4, syscall.SOCK_STREAM)
		if got, err := Reuseport(fds[0], len(fds), ByRandom); got != ByRandom || err != nil {
			t.Fatalf("got %v, %v", got, err)
		}
		counts := connect(t, accepting(t, fds), port, len(fds), 400)
		for i, n := range counts {
			if n == 0 { // chance 4 * 0.75^400
				t.Errorf("socket %d got no connection: %v", i, counts)
			}
		}
	})
}

// receiving reads from all sockets of a group and tells on which.
func receiving(t *testing.T, fds []int) <-chan int {
	conns := files(t, fds, func(f *os.File) *net.UDPConn {
		c, err := net.FilePacketConn(f)
		if err != nil {
			t.Fatal(err)
		}
		return c.(*net.UDPConn)
	})
	got := make(chan int)
	for i, c := range conns {
		go func() {
			for {
				_, err := c.Read(make([]byte, 8))
				if errors.Is(err, net.ErrClosed) {
					return // the test is over
				}
				if err != nil {
					t.Errorf("read on socket %d: %v", i, err)
					close(got)
					return
				}
				got <- i
			}
		}()
	}
	return got
}

// reached sends datagrams of one source and returns how many sockets they reached.
func reached(t *testing.T, received <-chan int, port, datagrams int) int {
	t.Helper()
	c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	used := map[int]bool{}
	for range datagrams {
		if _, err := c.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		i, ok := <-received
		if !ok {
			t.FailNow()
		}
		used[i] = true
	}
	return len(used)
}

// TestReuseportRandomIsNotTheHash sends datagrams of one source, which the default would all give to one
// socket: only the program spreads them.
func TestReuseportRandomIsNotTheHash(t *testing.T) {
	onThread(t, func(t *testing.T) {
		becomeNobody(t)
		fds, port := group(t, 3, syscall.SOCK_DGRAM)
		received := receiving(t, fds)
		if n := reached(t, received, port, 100); n != 1 {
			t.Fatalf("by hash, one source reached %d sockets", n)
		}
		if _, err := Reuseport(fds[0], len(fds), ByRandom); err != nil {
			t.Fatal(err)
		}
		if n := reached(t, received, port, 200); n != len(fds) { // chance to miss one: 3 * (2/3)^200
			t.Fatalf("by random, one source reached %d of %d sockets", n, len(fds))
		}
	})
}

// TestReuseportByCPU connects from one CPU after the other: on the loopback the sender's CPU handles
// the SYN.
func TestReuseportByCPU(t *testing.T) {
	cpus, err := sys.UsableCPUs()
	if err != nil {
		t.Fatal(err)
	}
	onThread(t, func(t *testing.T) {
		becomeNobody(t)
		fds, port := group(t, 3, syscall.SOCK_STREAM)
		if got, err := Reuseport(fds[0], len(fds), ByCPU); got != ByCPU || err != nil {
			t.Fatalf("got %v, %v", got, err)
		}
		accepted := accepting(t, fds)
		for _, cpu := range cpus {
			if err := sys.PinThread(cpu); err != nil {
				t.Fatal(err)
			}
			for i, n := range connect(t, accepted, port, len(fds), 30) {
				if want := map[bool]int{true: 30}[i == cpu%len(fds)]; n != want {
					t.Errorf("from CPU %d: %d of 30 connections on socket %d, want %d", cpu, n, i, want)
				}
			}
		}
	})
}

func TestReuseportFallback(t *testing.T) {
	fds, _ := group(t, 1, syscall.SOCK_STREAM)
	for _, sockets := range []int{0, 1} {
		if got, err := Reuseport(fds[0], sockets, ByRandom); got != ByHash || err != nil {
			t.Errorf("%d sockets: %v, %v; want hash", sockets, got, err)
		}
	}
	if got, err := Reuseport(-1, 2, ByHash); got != ByHash || err != nil {
		t.Errorf("by hash: %v, %v; want nothing done", got, err)
	}
	if got, err := Reuseport(-1, 2, ByCPU); got != ByHash || !errors.Is(err, syscall.EBADF) {
		t.Errorf("bad descriptor: %v, %v; want hash and EBADF", got, err)
	}
	plain, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(plain)
	if got, err := Reuseport(plain, 2, ByCPU); got != ByHash || !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a socket of no group: %v, %v; want hash and EINVAL", got, err)
	}
}
