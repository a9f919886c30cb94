package splice

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"penne/internal/sys"
	"penne/shard/flow"
	"penne/test/guest"
)

// pair opens a connection whose ends give up after a while.
func (b *bench) pair() (client, server *net.TCPConn) {
	client = b.open(port(b.back))
	server = b.serve()
	for _, c := range []*net.TCPConn{client, server} {
		if err := c.SetDeadline(time.Now().Add(guest.Patience)); err != nil {
			b.t.Fatal(err)
		}
	}
	return client, server
}

// poll steps the relay until done is closed, without ever waiting.
func (b *bench) poll(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
			b.g.Ready(b.r.Event)
			b.r.Flush()
			runtime.Gosched()
		}
	}
}

// exchange sends n octets each way at once, and compares.
func (b *bench) exchange(client, server *net.TCPConn, n int) {
	b.t.Helper()
	arrived, done := make(chan error, 2), make(chan struct{})
	for _, way := range [][2]*net.TCPConn{{client, server}, {server, client}} {
		data, got := make([]byte, n), make([]byte, n)
		rand.Read(data)
		go way[0].Write(data)
		go func() {
			_, err := io.ReadFull(way[1], got)
			if err == nil && !bytes.Equal(got, data) {
				err = errors.New("octets arrived changed")
			}
			arrived <- err
		}()
	}
	var errs [2]error
	go func() {
		defer close(done)
		errs[0], errs[1] = <-arrived, <-arrived
	}()
	b.poll(done)
	if err := errors.Join(errs[:]...); err != nil {
		b.t.Fatal(err)
	}
}

// finish ends both ways, and expects their ends to arrive and nothing else.
func (b *bench) finish(client, server *net.TCPConn) {
	b.t.Helper()
	client.CloseWrite()
	server.CloseWrite()
	b.run(nil)
	for _, c := range []*net.TCPConn{client, server} {
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			b.t.Errorf("after the last octet: %d octets, %v", n, err)
		}
	}
}

// exhaust leaves the process no descriptor to open, and the relay no pipe that
// it has already; the function it returns ends that.
func (b *bench) exhaust() (end func()) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		b.t.Fatal(err)
	}
	limit := func(l syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
			b.t.Fatal(err)
		}
	}
	b.t.Cleanup(func() { limit(before) })
	limit(syscall.Rlimit{Cur: 0, Max: before.Max})
	b.r.pipes.close()
	if p, ok := b.r.pipes.get(b.g.Env.Now); ok {
		p.close()
		b.t.Fatal("a pipe was made although no descriptor may be")
	}
	return func() { limit(before) }
}

func TestSurvivesExhaustedDescriptors(t *testing.T) {
	b := newBench(t)
	client, server := b.pair()
	b.exchange(client, server, 1<<20)
	for range 2 { // and back to pipes, and once more
		end := b.exhaust()
		b.exchange(client, server, 3<<20)
		if len(b.r.pipes.idle) > 0 {
			t.Error("there was a pipe after all")
		}
		end()
		b.g.Advance(retryDelay)
		b.exchange(client, server, 1<<20)
		if len(b.r.pipes.idle) == 0 {
			t.Error("no pipe was used again")
		}
	}
	b.finish(client, server)
}

func TestEndsWithoutDescriptors(t *testing.T) {
	b := newBench(t)
	client, server := b.pair()
	b.exhaust()
	b.exchange(client, server, 1000)
	b.finish(client, server)
}

func TestNarrowTargetWithoutPipe(t *testing.T) {
	b := newBench(t)
	client, server := b.pair()
	for _, fd := range b.r.conns[0].fd { // so that it never takes all that was peeked
		sys.SetInt(fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF, 4608)
	}
	b.exhaust()
	b.exchange(client, server, 1<<20)
	b.finish(client, server)
}

func TestUrgentOctetsPassInTheirPlace(t *testing.T) {
	for _, from := range []string{"client", "server"} {
		b := newBench(t)
		sender, receiver := b.pair()
		if from == "server" {
			sender, receiver = receiver, sender
		}
		b.exchange(sender, receiver, 100_000)
		var sent []byte
		for _, part := range []string{"before ", "!", " between ", "!!", " after"} {
			sent = append(sent, part...)
			flags := 0
			if part[0] == '!' {
				flags = syscall.MSG_OOB // the last octet of it is urgent
			}
			if err := syscall.Sendto(descriptor(t, sender), []byte(part), flags, nil); err != nil {
				t.Fatal(err)
			}
		}
		done, got := make(chan struct{}), make([]byte, len(sent))
		go func() {
			defer close(done)
			io.ReadFull(receiver, got)
		}()
		b.poll(done)
		if !bytes.Equal(got, sent) {
			t.Fatalf("%q arrived as %q", sent, got)
		}
		b.exchange(sender, receiver, 1<<20)
		b.finish(sender, receiver)
	}
}

// TestUrgentOctetBetweenEventAndRead has the urgent octet and the end of the stream arrive after the event on which the
// relay reads what came before: splice(2) then stops before the octet as it does at the end.
func TestUrgentOctetBetweenEventAndRead(t *testing.T) {
	b := newBench(t)
	client, server := b.pair()
	b.exchange(client, server, 1)
	client.Write([]byte("before "))
	done, late := make(chan struct{}), false
	go func() {
		defer close(done)
		if got, err := io.ReadAll(server); string(got) != "before ! after" || err != nil {
			t.Errorf("arrived: %q, %v", got, err)
		}
	}()
	for !late {
		b.g.Wait(func(tok flow.Token, bits uint32) {
			if !late && bits&sys.EPOLLIN != 0 {
				late = true
				if err := syscall.Sendto(descriptor(t, client), []byte("!"), syscall.MSG_OOB, nil); err != nil {
					t.Error(err)
				}
				client.Write([]byte(" after"))
				client.CloseWrite()
			}
			b.r.Event(tok, bits)
		})
	}
	b.poll(done)
}

func TestCopyAndFlushNoAlloc(t *testing.T) {
	b := newBench(t)
	client, server := b.pair()
	b.exchange(client, server, 1) // the connection is up
	b.exhaust()
	from, to := descriptor(t, client), descriptor(t, server)
	event := func(tok flow.Token, bits uint32) { b.r.Event(tok, bits) }
	buf, end := make([]byte, 1000), time.Now().Add(guest.Patience)
	if n := testing.AllocsPerRun(200, func() {
		sys.Write(from, buf)
		for got := 0; got < len(buf) && time.Now().Before(end); {
			b.g.Ready(event)
			if c := &b.r.conns[0]; !c.busy { // so that Flush has work
				c.busy, c.next, b.r.busy = true, b.r.busy, 0
			}
			b.r.Flush()
			if n, errno := sys.Read(to, buf[got:]); errno == 0 {
				got += n
			}
		}
	}); n != 0 {
		t.Fatalf("%v allocations a step", n)
	}
	if time.Now().After(end) {
		t.Fatal("octets did not arrive")
	}
}
