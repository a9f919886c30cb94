package shard

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/tap/tun/tuntest"
)

// lone is a group of one shard, whose passes the test makes.
func lone(t *testing.T) *Shard {
	t.Helper()
	s := deadGroup(t, 1, false).shards[0]
	t.Cleanup(func() {
		s.close()
		s.free()
	})
	return s
}

// pass is one, without waiting.
func (s *Shard) pass() {
	n := s.env.Epoll.Poll(s.events)
	s.env.Now = sys.Now()
	s.takeMail()
	s.dispatch(s.events[:n])
	s.expire()
	s.flush()
}

// until makes passes until done.
func (s *Shard) until(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(tuntest.Patience); !done(); s.pass() {
		if time.Now().After(end) {
			t.Fatal("it does not come to that")
		}
	}
}

// listener serves a port of the loopback at a slot, for connections to port.
func (s *Shard) listener(t *testing.T, slot int32, inside bool, port uint16) (l *Listener, addr string) {
	t.Helper()
	fd, err := sys.Listener(sys.ListenOptions{Addr: netip.MustParseAddr("127.0.0.1").As16(), V4: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sys.Close(fd) })
	l = &Listener{FD: fd, Proto: wire.ProtoTCP, Inside: inside, Target: port}
	s.watch(l, slot)
	var sa sys.Sockaddr
	sys.Sockname(fd, &sa)
	_, at, _, _ := sa.Inet()
	return l, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at).String()
}

// greeter is a server on the loopback that says hello to each client.
func greeter(t *testing.T) (port uint16) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// dialAndRead connects to addr and returns at once; what comes until the end of
// the connection, and its error, come later.
func dialAndRead(t *testing.T, addr string) (text <-chan string, failure <-chan error) {
	t.Helper()
	c, err := net.Dial("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	texts, failures := make(chan string, 1), make(chan error, 1)
	go func() {
		defer c.Close()
		b, err := io.ReadAll(c)
		texts <- string(b)
		failures <- err
	}()
	return texts, failures
}

// TestConnectionsWaitForASocket: the first one is parked while there is none
// inside, others stay in their backlogs, and all are served when there are some.
func TestConnectionsWaitForASocket(t *testing.T) {
	s := lone(t)
	sockets := 0
	s.group.bypass = Bypass{ToLoopback: true, Socket: func(bool, uint8) (int, sys.Errno) {
		if sockets == 0 {
			return -1, sys.EAGAIN
		}
		sockets--
		return sys.Socket(sys.AF_INET, sys.SOCK_STREAM, 0)
	}}
	port := greeter(t)
	_, one := s.listener(t, 0, false, port)
	_, two := s.listener(t, 1, false, port)
	var texts []<-chan string
	for _, addr := range []string{one, one, one, two} {
		text, _ := dialAndRead(t, addr)
		texts = append(texts, text)
	}
	s.until(t, func() bool { return len(s.listen.paused) == 2 })
	if s.listen.parked.l == nil || s.splice.Len() > 0 {
		t.Errorf("parked: %+v; %d joined", s.listen.parked, s.splice.Len())
	}
	sockets = 4
	s.group.SocketsReady()
	for _, text := range texts {
		s.until(t, func() bool { return len(text) > 0 })
		if got := <-text; got != "hello" {
			t.Errorf("a client got %q", got)
		}
	}
	if s.listen.retrying() || s.count.Drops[stats.NoSocket] != 0 {
		t.Errorf("%+v, %d drops", s.listen, s.count.Drops[stats.NoSocket])
	}
}

// TestNoSocketEver: a connection that can never be served is reset, and the next
// one is served.
func TestNoSocketEver(t *testing.T) {
	s := lone(t)
	s.group.bypass = Bypass{ToLoopback: true, Socket: func(v4 bool, _ uint8) (int, sys.Errno) {
		if !v4 {
			return -1, sys.EAFNOSUPPORT
		}
		return sys.Socket(sys.AF_INET, sys.SOCK_STREAM, 0)
	}}
	l, addr := s.listener(t, 0, false, greeter(t))
	l.ToAddr = wire.AddrFrom(netip.MustParseAddr("2001:db8::7"))
	_, failure := dialAndRead(t, addr)
	s.until(t, func() bool { return len(failure) > 0 })
	if err := <-failure; !errors.Is(err, syscall.ECONNRESET) || s.count.Drops[stats.NoSocket] != 1 || s.listen.retrying() {
		t.Errorf("%v, %d drops, %+v", err, s.count.Drops[stats.NoSocket], s.listen)
	}
	l.ToAddr = wire.Addr{}
	text, _ := dialAndRead(t, addr)
	s.until(t, func() bool { return len(text) > 0 })
}

// TestNoAddressInside: a client of a family that the guest has no address of is
// connected to the other one's, and never to its loopback.
func TestNoAddressInside(t *testing.T) {
	s := lone(t)
	s.group.bypass.Socket = func(bool, uint8) (int, sys.Errno) {
		t.Error("a socket to connect to nowhere")
		return -1, sys.EAFNOSUPPORT
	}
	_, addr := s.listener(t, 0, false, greeter(t))
	_, failure := dialAndRead(t, addr)
	s.until(t, func() bool { return len(failure) > 0 })
	if err := <-failure; !errors.Is(err, syscall.ECONNRESET) || s.count.Drops[stats.BadDest] != 1 {
		t.Errorf("%v, %d drops", err, s.count.Drops[stats.BadDest])
	}
	v4, v6 := wire.AddrFrom(netip.MustParseAddr("192.0.2.5")), wire.AddrFrom(netip.MustParseAddr("::1"))
	s.env.Rules = &fwd.Rules{V4: fwd.Family{On: true, Guest: v4}, V6: fwd.Family{On: true}}
	if to := s.insideAddr(&v6); to != v4 {
		t.Errorf("%s is connected to %s", v6, to)
	}
}

// TestNoDescriptorForTheHost: with one descriptor left, which a connection from
// inside takes, all wait for others, and none is reset.
func TestNoDescriptorForTheHost(t *testing.T) {
	s := lone(t)
	_, addr := s.listener(t, 0, true, greeter(t))
	var texts []<-chan string
	for range 5 {
		text, _ := dialAndRead(t, addr)
		texts = append(texts, text)
	}
	more := leave(t, 1)
	s.until(t, func() bool { return s.listen.parked.l != nil && len(s.listen.paused) == 1 })
	for range 2 {
		s.env.Now = s.listen.retryAt
		s.expireListeners()
	}
	if s.listen.parked.l == nil || len(s.listen.paused) != 1 {
		t.Errorf("in vain: %+v", s.listen)
	}
	more()
	for _, text := range texts {
		s.until(t, func() bool { return len(text) > 0 })
		if got := <-text; got != "hello" {
			t.Errorf("a client got %q", got)
		}
	}
}

// leave lets the process open n descriptors more, until it is told otherwise.
func leave(t *testing.T, n int) (more func()) {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	limit := before
	for range n + 1 { // the lowest free numbers
		fd, err := syscall.Dup(0)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(fd)
		limit.Cur = uint64(fd)
	}
	set := func(l syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
			t.Fatal(err)
		}
	}
	set(limit)
	more = func() { set(before) }
	t.Cleanup(more)
	return more
}

// TestPausedListeners: one that cannot be watched again is tried again, and one
// that goes leaves its slot to others.
func TestPausedListeners(t *testing.T) {
	s := lone(t)
	l, _ := s.listener(t, 0, false, 1)
	s.listener(t, 1, false, 1)
	s.pauseListener(0)
	s.pauseListener(1)
	good := l.FD
	l.FD = -1 // epoll_ctl refuses
	s.retryListeners()
	if !slices.Equal(s.listen.paused, []int32{0}) || s.listen.retryAt != s.env.Now+retryDelay {
		t.Fatalf("%+v", s.listen)
	}
	l.FD = good
	s.retryListeners()
	if len(s.listen.paused) > 0 || s.env.Epoll.Del(good) != 0 {
		t.Errorf("%+v", s.listen)
	}
	s.pauseListener(1)
	s.unwatch(1)
	if s.listen.retrying() {
		t.Errorf("%+v", s.listen)
	}
}
