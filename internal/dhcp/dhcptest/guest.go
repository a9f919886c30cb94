// Package dhcptest runs real DHCP clients against our servers: in a network
// namespace of the test's own, whose kernel is the guest behind a tap, with a
// loop in the shard's place.
package dhcptest

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"penne/internal/fwd"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/env"
	"penne/tap/tun"
	"penne/tap/tun/tuntest"
	"penne/test/needs"
)

// Interface is the guest's, MAC its address.
const Interface = "eth0"

// MAC is the guest's Ethernet address, LinkLocal its IPv6 one.
var (
	MAC       = wire.MAC{2, 0, 0, 0, 0, 7}
	LinkLocal = wire.Addr{0: 0xfe, 1: 0x80, 11: 0xff, 12: 0xfe, 15: 7}
)

// Responder answers a classified frame.
type Responder func(e *env.Env, f *ring.Frame)

// Guest is a namespace with a tap, and the loop that serves it.
type Guest struct {
	t       *testing.T
	dir     string
	reports *os.File // what the script writes
	lines   *bufio.Reader
	device  *tun.Device
	input   Responder

	first chan byte // of the payloads that went to a server

	mu  sync.Mutex // guards env between passes of the loop
	env env.Env
}

// New makes a Guest that goes with the test, which is skipped without the
// privilege for it.
func New(t *testing.T, r *fwd.Rules, input Responder) *Guest {
	t.Helper()
	tuntest.Enter(t)
	tuntest.Sysctl(t, "net/ipv6/conf/default/addr_gen_mode", "1") // none: see addLinkLocal
	d, err := tun.Open(tun.Options{Name: Interface})
	must(t, err)
	addLinkLocal(t, tuntest.SetUp(t, Interface, MAC))
	arena, err := ring.NewArena(64, 0)
	must(t, err)
	g := &Guest{t: t, dir: t.TempDir(), device: d, input: input, first: make(chan byte, 1000)}
	pool := ring.NewPool(arena)
	g.env = env.Env{Rules: r, Guest: &fwd.Guest{}, Pool: pool, Count: &stats.Counters{}, Out: ring.NewOut(pool, 8, d.Queue(0))}
	d.Queue(0).SetCounters(g.env.Count)
	g.openReports()
	g.start(arena)
	return g
}

// noDAD is IFA_F_NODAD of linux/if_addr.h.
const noDAD = 2

// addLinkLocal adds the link-local address that clients send from. The kernel's
// own could not be used before it has looked for duplicates.
func addLinkLocal(t *testing.T, link netlink.Link) {
	t.Helper()
	ip := &net.IPNet{IP: LinkLocal.Netip().AsSlice(), Mask: net.CIDRMask(64, 128)}
	must(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: ip, Flags: noDAD}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start runs the loop until the test ends.
func (g *Guest) start(arena *ring.Arena) {
	ep, err := sys.NewEpoll(4)
	must(g.t, err)
	wake, err := sys.NewEventFD()
	must(g.t, err)
	for token, fd := range []int{wake, g.device.Queue(0).FD()} {
		if errno := ep.Add(fd, sys.EPOLLIN, uint64(token)); errno != 0 {
			g.t.Fatal(errno)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.loop(ep)
	}()
	g.t.Cleanup(func() {
		sys.Signal(wake)
		<-done
		sys.Close(wake)
		ep.Close()
		g.device.Close()
		arena.Close()
	})
}

// loop serves the tap until the token of wake comes.
func (g *Guest) loop(ep *sys.Epoll) {
	var ev [4]sys.Event
	for {
		for _, e := range ev[:ep.Wait(ev[:], -1)] {
			if e.Token == 0 {
				return
			}
			g.pass()
		}
	}
}

func (g *Guest) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	var b ring.Batch
	if _, errno := g.device.Queue(0).Receive(&b, g.env.Pool); errno != 0 {
		g.t.Errorf("read from the tap: %v", errno)
	}
	for _, f := range b.Frames() {
		if wire.Parse(f.Bytes(), &f.H) == wire.OK {
			g.note(f)
			g.input(&g.env, f)
		}
		g.env.Pool.Put(f)
	}
	g.env.Out.Flush()
}

func (g *Guest) note(f *ring.Frame) {
	if p := f.H.DstPort; f.H.Proto == wire.ProtoUDP && (p == 67 || p == 547) && f.H.PayloadLen > 0 {
		g.first <- f.L4Payload()[0]
	}
}

// Change lets fn change the rules between two passes of the loop.
func (g *Guest) Change(fn func(r *fwd.Rules)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	fn(g.env.Rules)
}

// messages returns the first octets of the messages that went to a server since
// the last call; it waits until there are n.
func (g *Guest) messages(n int) (first []byte, err error) {
	for len(first) < n {
		select {
		case b := <-g.first:
			first = append(first, b)
		case <-time.After(patience):
			return first, fmt.Errorf("only %d messages of %d came", len(first), n)
		}
	}
	for len(g.first) > 0 {
		first = append(first, <-g.first)
	}
	return first, nil
}

// Path is a file in the test's own directory.
func (g *Guest) Path(name string) string { return filepath.Join(g.dir, name) }

// Write makes a file in the test's own directory.
func (g *Guest) Write(name, text string) string {
	g.t.Helper()
	must(g.t, os.WriteFile(g.Path(name), []byte(text), 0o700))
	return g.Path(name)
}

// openReports makes the pipe that the clients' script writes to. It is open for
// writing here as well, so that no end of file comes between two runs.
func (g *Guest) openReports() {
	g.t.Helper()
	path := g.Path("reports")
	must(g.t, syscall.Mkfifo(path, 0o600))
	var err error
	g.reports, err = os.OpenFile(path, os.O_RDWR, 0)
	must(g.t, err)
	g.t.Cleanup(func() { g.reports.Close() })
	g.lines = bufio.NewReader(g.reports)
	g.Write("script", fmt.Sprintf("#!/bin/sh\n{ echo reason=$1; env; echo END; } >%s\n", path))
}

// Script is what a client is to run on its events.
func (g *Guest) Script() string { return g.Path("script") }

// Client says how a client is run.
type Client struct {
	// Reason is the event to wait for: as a report of the script names it.
	Reason string
	// Done is what the client says when it has also written its lease to
	// disk; empty does not wait for that.
	Done string
	// Messages is how many it is to send at least.
	Messages int
	Argv     []string
}

// Run starts a client and returns the variables of its first report with the
// reason, and the first octet of each message that it sent: with DHCPv6 the
// type. The client is then killed.
func (g *Guest) Run(c Client) (vars map[string]string, messages []byte) {
	g.t.Helper()
	needs.Program(g.t, c.Argv[0])
	said := listener{want: c.Done, heard: make(chan struct{})}
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Stdout, cmd.Stderr = &said, &said
	must(g.t, cmd.Start()) // in the namespace, from the test's own thread
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
		if g.t.Failed() {
			g.t.Logf("%s", said.all)
		}
	}()
	vars, err := g.wait(c.Reason)
	if err == nil && c.Done != "" {
		err = said.wait()
	}
	if err == nil {
		messages, err = g.messages(c.Messages)
	}
	if err != nil {
		g.t.Errorf("wait for %s of %s: %v", c.Reason, c.Argv[0], err)
	}
	return vars, messages
}

// patience bounds the wait for a client, whose own timers are of seconds.
const patience = tuntest.Patience

// listener keeps what a client says, and notices one thing.
type listener struct {
	all   []byte
	want  string
	heard chan struct{}
	once  sync.Once
}

func (l *listener) Write(b []byte) (int, error) {
	l.all = append(l.all, b...)
	if bytes.Contains(l.all, []byte(l.want)) {
		l.once.Do(func() { close(l.heard) })
	}
	return len(b), nil
}

func (l *listener) wait() error {
	select {
	case <-l.heard:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("it never said %q", l.want)
	}
}

// wait returns the first report with the reason.
func (g *Guest) wait(reason string) (map[string]string, error) {
	if err := g.reports.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	var seen []string
	for {
		r, err := g.report()
		if err != nil {
			return nil, fmt.Errorf("%w after reports of %q", err, seen)
		}
		if r["reason"] == reason {
			return r, nil
		}
		seen = append(seen, r["reason"])
	}
}

// report reads one report.
func (g *Guest) report() (map[string]string, error) {
	r := map[string]string{}
	for {
		line, err := g.lines.ReadString('\n')
		if err != nil {
			return nil, err
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "END" {
			return r, nil
		}
		if k, v, ok := strings.Cut(line, "="); ok {
			r[k] = v
		}
	}
}
