package netns

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"penne/internal/sys"
)

// newNetNS makes a network namespace, which lasts as long as its file is open.
func newNetNS(t *testing.T) *os.File {
	t.Helper()
	type made struct {
		fd  int
		err error
	}
	c := make(chan made)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
			c <- made{-1, err}
			return
		}
		fd, err := sys.ThreadNetNS()
		c <- made{fd, err}
	}()
	m := <-c
	if errors.Is(m.err, syscall.EPERM) {
		t.Skip("making a network namespace needs root")
	}
	if m.err != nil {
		t.Fatal(m.err)
	}
	f := os.NewFile(uintptr(m.fd), "netns")
	t.Cleanup(func() { f.Close() })
	return f
}

// threadInode tells which network namespace the calling thread is in.
func threadInode() (uint64, error) {
	fd, err := sys.ThreadNetNS()
	if err != nil {
		return 0, err
	}
	defer sys.Close(fd)
	_, ino, err := sys.Inode(fd)
	return ino, err
}

func inode(t *testing.T, f *os.File) uint64 {
	t.Helper()
	_, ino, err := sys.Inode(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return ino
}

func TestDo(t *testing.T) {
	ns := newNetNS(t)
	own, err := threadInode()
	if err != nil {
		t.Fatal(err)
	}
	sentinel := errors.New("sentinel")
	var inside uint64
	err = Do(ns, func() (err error) {
		inside, err = threadInode()
		return errors.Join(err, sentinel)
	})
	if !errors.Is(err, sentinel) || inside != inode(t, ns) {
		t.Errorf("in %d, %v, want %d", inside, err, inode(t, ns))
	}
	// Every thread that goes on is back where it was.
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if now, err := threadInode(); err != nil || now != own {
				t.Errorf("a thread is in %d (%v), not in %d", now, err, own)
			}
		})
	}
	wg.Wait()
}

func TestDoRefused(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = Do(f, func() error { t.Error("ran"); return nil })
	if err == nil {
		t.Error("entered /dev/null")
	}
	if _, err := NewWorker(f); err == nil {
		t.Error("a worker lives in /dev/null")
	}
}

func TestWorker(t *testing.T) {
	ns := newNetNS(t)
	w, err := NewWorker(ns)
	if err != nil {
		t.Fatal(err)
	}
	want := inode(t, ns)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			var got uint64
			err := w.Do(func() (err error) { got, err = threadInode(); return })
			if err != nil || got != want {
				t.Errorf("in %d, %v, want %d", got, err, want)
			}
		})
	}
	wg.Wait()
	w.Close()
	if err := w.Do(func() error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("closed, it answers %v", err)
	}
}

func TestPool(t *testing.T) {
	ns := newNetNS(t)
	w, err := NewWorker(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	p, err := NewPool(w, sys.AF_INET, sys.SOCK_STREAM, 4, func() {})
	if err != nil {
		t.Fatal(err)
	}
	want := inode(t, ns)
	for taken := 0; taken < 40; {
		fd, ok := p.Take()
		if !ok {
			runtime.Gosched()
			continue
		}
		taken++
		got, err := socketNetNS(fd)
		if err != nil || got != want {
			t.Fatalf("a socket is in %d, %v, want %d", got, err, want)
		}
		sys.Close(fd)
	}
	p.Close()
}

// Each Take that finds none is told when there are some again, even if they
// came while it looked.
func TestPoolTellsOfRefill(t *testing.T) {
	w, err := NewWorker(newNetNS(t))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	refilled := make(chan struct{}, 1)
	p, err := NewPool(w, sys.AF_INET, sys.SOCK_STREAM, 2, func() { refilled <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	hangs := time.After(time.Minute)
	for misses := 0; misses < 1000; {
		fd, ok := p.Take()
		if ok {
			sys.Close(fd)
			continue
		}
		misses++
		select {
		case <-refilled:
		case <-hangs:
			t.Fatalf("miss %d: never told", misses)
		}
	}
}

// socketNetNS tells which network namespace a socket is in (SIOCGSKNS).
func socketNetNS(fd int) (uint64, error) {
	const siocgskns = 0x894c
	ns, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), siocgskns, 0)
	if errno != 0 {
		return 0, errno
	}
	defer sys.Close(int(ns))
	_, ino, err := sys.Inode(int(ns))
	return ino, err
}
