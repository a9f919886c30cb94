package steer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"penne/internal/sys"
	"penne/shard/flow"
)

// onThread runs f on a thread of its own, which ends with it, so that f may change what belongs to a
// thread: namespaces, identity, affinity.
func onThread(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	done := make(chan bool)
	go func() {
		ok := false
		defer func() { done <- ok }()
		runtime.LockOSThread() // never unlocked
		f(t)
		ok = true
	}()
	switch ok := <-done; {
	case t.Skipped():
		t.SkipNow()
	case !ok:
		t.FailNow() // f has said why
	}
}

// newNetNS moves the calling thread into a new network namespace.
func newNetNS(t *testing.T) {
	t.Helper()
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		t.Skipf("cannot make a network namespace: %v", err)
	}
}

// becomeNobody takes the calling thread's identity and with it its capabilities.
func becomeNobody(t *testing.T) {
	t.Helper()
	const nobody = 65534
	if os.Geteuid() != 0 {
		return
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
		t.Fatal(errno)
	}
}

// tapQueues makes a multi-queue tap, up, and returns its queues and a packet socket on the other
// side, with which the namespace sends.
func tapQueues(t *testing.T, queues int) (taps []int, send func([]byte) error) {
	t.Helper()
	const name = "steer0"
	for range queues {
		fd, err := sys.OpenTun()
		if err == nil {
			_, err = sys.TunSetIff(fd, name, sys.IFF_TAP|sys.IFF_NO_PI|sys.IFF_MULTI_QUEUE)
		}
		if err != nil {
			t.Skipf("cannot make a tap: %v", err)
		}
		t.Cleanup(func() { syscall.Close(fd) })
		taps = append(taps, fd)
	}
	link, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	setUp(t, link.Index)
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	to := &syscall.SockaddrLinklayer{Ifindex: link.Index, Halen: 6}
	return taps, func(frame []byte) error { return syscall.Sendto(fd, frame, 0, to) }
}

// setUp is `ip link set INDEX up`.
func setUp(t *testing.T, index int) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	m := binary.NativeEndian.AppendUint32(nil, syscall.SizeofNlMsghdr+syscall.SizeofIfInfomsg)
	m = binary.NativeEndian.AppendUint16(m, syscall.RTM_NEWLINK)
	m = binary.NativeEndian.AppendUint16(m, syscall.NLM_F_REQUEST|syscall.NLM_F_ACK)
	m = append(m, make([]byte, 8+4)...) // sequence, port, family
	m = binary.NativeEndian.AppendUint32(m, uint32(index))
	m = binary.NativeEndian.AppendUint32(m, syscall.IFF_UP)
	m = binary.NativeEndian.AppendUint32(m, syscall.IFF_UP)
	if err := syscall.Sendto(fd, m, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 4096)
	if n, _, err := syscall.Recvfrom(fd, answer, 0); err != nil || n < 20 || binary.NativeEndian.Uint32(answer[16:]) != 0 {
		t.Fatalf("set link up: %v, answer % x", err, answer[:max(n, 0)])
	}
}

// pollable makes files of the queues, so that reads wait in the runtime and not in a loop.
func pollable(t *testing.T, taps []int) []*os.File {
	t.Helper()
	var files []*os.File
	for _, fd := range taps {
		dup, err := syscall.Dup(fd) // the file closes what it is given
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(dup), "tap queue")
		t.Cleanup(func() { f.Close() })
		if err := f.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// arrivals sends frames one after the other and returns the queue on which each of them arrived. Other
// frames of the namespace (neighbour discovery) are passed over.
func arrivals(t *testing.T, files []*os.File, send func([]byte) error, frames [][]byte) []int {
	t.Helper()
	type arrival struct {
		queue int
		frame []byte
		err   error
	}
	got := make(chan arrival)
	quit := make(chan struct{})
	defer close(quit)
	for q, f := range files {
		go func() {
			for {
				buf := make([]byte, 4096)
				n, err := f.Read(buf)
				select {
				case got <- arrival{q, buf[:n], err}:
				case <-quit:
					return
				}
				if err != nil {
					return
				}
			}
		}()
	}
	queues := make([]int, len(frames))
	for i, f := range frames {
		if err := send(f); err != nil {
			t.Fatalf("send frame %d: %v", i, err)
		}
		for {
			a := <-got
			if a.err != nil {
				t.Fatalf("frame %d (%x) did not arrive: %v", i, f, a.err)
			}
			if bytes.Equal(a.frame, f) {
				queues[i] = a.queue
				break
			}
		}
	}
	return queues
}

// TestAttach sends frames of every shape and many flows through a tap, each three times, among those of
// others, and finds each on the predicted queue.
func TestAttach(t *testing.T) {
	onThread(t, func(t *testing.T) {
		newNetNS(t)
		const queues = 4
		taps, send := tapQueues(t, queues)
		seed := flow.NewSeed()
		mode, err := Attach(taps[0], queues, &seed)
		if err != nil {
			t.Fatal(err)
		}
		if mode != EBPF {
			t.Skip("this process may not load eBPF programs")
		}
		r := rand.New(rand.NewPCG(7, 8))
		var all [][]byte
		for range 40 {
			for _, f := range frames(r) {
				all = append(all, f)
			}
		}
		all = append(all, append(all, all...)...)
		used := [queues]int{}
		for i, q := range arrivals(t, pollable(t, taps), send, all) {
			if want := predict(&seed, all[i], queues); q != want {
				t.Fatalf("frame %x: queue %d, want %d", all[i], q, want)
			}
			used[q]++
		}
		for q, n := range used {
			if n == 0 {
				t.Errorf("queue %d unused: %v", q, used)
			}
		}
	})
}

// TestAttachWithoutPrivilege is the usual case: no program may be loaded, and the tap works on.
func TestAttachWithoutPrivilege(t *testing.T) {
	if b, err := os.ReadFile("/proc/sys/kernel/unprivileged_bpf_disabled"); err != nil || b[0] == '0' {
		t.Skip("here everybody may load eBPF programs")
	}
	onThread(t, func(t *testing.T) {
		newNetNS(t)
		const queues = 2
		taps, _ := tapQueues(t, queues)
		becomeNobody(t)
		seed := flow.NewSeed()
		if mode, err := Attach(taps[0], queues, &seed); mode != Learning || err != nil {
			t.Fatalf("got %v and %v, want learning and no error", mode, err)
		}
		if err := sys.TunSetSteering(taps[0], -1); err != nil {
			t.Errorf("the request itself needs privilege: %v", err)
		}
	})
}

func TestAttachRefusals(t *testing.T) {
	seed := flow.NewSeed()
	if mode, err := Attach(-1, 1, &seed); mode != Learning || err != nil {
		t.Errorf("one queue: %v, %v; want learning, untried", mode, err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if mode, err := Attach(int(r.Fd()), 2, &seed); mode != Learning || err != nil {
		t.Errorf("no tap: %v, %v; want learning", mode, err)
	}
	fd, err := sys.OpenTun()
	if err != nil {
		t.Skipf("cannot open the tun device: %v", err)
	}
	defer syscall.Close(fd)
	mode, err := Attach(fd, 2, &seed)
	if os.Geteuid() == 0 && !errors.Is(err, syscall.EBADFD) || mode != Learning {
		t.Errorf("a queue of no interface: %v, %v; want learning and EBADFD", mode, err)
	}
}
