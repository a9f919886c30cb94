package isolate

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"penne/internal/nl"
	"penne/internal/portscan"
	"penne/internal/sys"
)

// works are parts that succeed.
var works = map[string]func() error{
	"mixed work":      mixedWork,
	"root":            rootIsEmpty,
	"capabilities":    capabilities,
	"identity":        identityFlags,
	"worker":          workerCaps,
	"read files":      readFiles,
	"chroot fallback": func() error { return Engine(Config{ChrootFallback: true}) },
}

// refusals are calls that must fail with EPERM.
var refusals = map[string]func() error{
	"open":        func() error { _, err := os.Open("/etc/passwd"); return err },
	"stat":        func() error { _, err := os.Stat("/"); return err },
	"raw socket":  func() error { _, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, 255); return err },
	"UNIX socket": func() error { _, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0); return err },
	"dumpable":    func() error { return call(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 1) },
	"ioctl":       func() error { return call(syscall.SYS_IOCTL, 0, 0x5412) },
}

// deaths are calls that must not return.
var deaths = map[string]func() error{
	"execve":          func() error { return syscall.Exec("/proc/self/exe", nil, nil) },
	"fork":            func() error { _, err := syscall.ForkExec("/bin/true", nil, nil); return err },
	"ptrace":          func() error { return call(syscall.SYS_PTRACE, syscall.PTRACE_TRACEME) },
	"kill":            func() error { return syscall.Kill(os.Getppid(), 0) },
	"executable":      func() error { return mmap(syscall.PROT_READ|syscall.PROT_EXEC, syscall.MAP_ANON|syscall.MAP_PRIVATE) },
	"map a file":      func() error { return mmap(syscall.PROT_READ, syscall.MAP_SHARED) },
	"mount":           func() error { return syscall.Mount("none", "/", "tmpfs", 0, "") },
	"setns":           func() error { return sys.Setns(0, 0) },
	"unshare":         func() error { return syscall.Unshare(syscall.CLONE_NEWUSER) },
	"new filter":      func() error { return call(map[string]uintptr{"amd64": 317, "arm64": 277}[runtime.GOARCH], 1) },
	"signal a thread": func() error { return syscall.Tgkill(os.Getppid(), os.Getppid(), 0) },
	"capset":          func() error { return call(syscall.SYS_CAPSET) },
	"setuid":          func() error { return syscall.Setuid(1) },
}

func call(nr uintptr, args ...uintptr) error {
	var a [3]uintptr
	copy(a[:], args)
	if _, _, errno := syscall.Syscall(nr, a[0], a[1], a[2]); errno != 0 {
		return errno
	}
	return nil
}

func mmap(prot, flags int) error {
	_, err := syscall.Mmap(0, 0, 4096, prot, flags)
	return err
}

// child runs a part in a sandbox.
func child(name string) error {
	if f := works[name]; f != nil {
		return f()
	}
	if err := Engine(Config{}); err != nil {
		return err
	}
	if f := refusals[name]; f != nil {
		if err := f(); !errors.Is(err, syscall.EPERM) {
			return fmt.Errorf("error %v, want %v", err, syscall.EPERM)
		}
		return nil
	}
	return fmt.Errorf("still here: %v", deaths[name]())
}

// rootIsEmpty looks at what is left of the file system.
func rootIsEmpty() error {
	if err := Engine(Config{ReadFiles: true}); err != nil {
		return err
	}
	root, err := os.Open("/")
	if err != nil {
		return err
	}
	if info, err := root.Stat(); err != nil || info.Mode().Perm() != 0o555 {
		return fmt.Errorf("root is %v, error %v", info, err)
	}
	for _, name := range []string{"/etc", "/proc", "/tmp", "/../etc", "/dev/null"} {
		if _, err := os.Open(name); !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("open %s: %v", name, err)
		}
	}
	if err := os.WriteFile("/file", nil, 0o600); !errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("made a file: %v", err)
	}
	return nil
}

// capabilities are gone in all threads.
func capabilities() error {
	const n = 4
	var started sync.WaitGroup
	done, status := make(chan struct{}), make(chan string)
	for range n {
		started.Add(1)
		go func() {
			runtime.LockOSThread()
			f, err := os.Open("/proc/thread-self/status")
			started.Done()
			<-done
			text, rerr := io.ReadAll(f)
			status <- fmt.Sprint(string(text), err, rerr)
		}()
	}
	started.Wait()
	if err := Engine(Config{}); err != nil {
		return err
	}
	close(done)
	for range n {
		s := <-status
		for _, want := range []string{"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
			if !strings.Contains(s, want) {
				return fmt.Errorf("no %q in\n%s", want, s)
			}
		}
	}
	return nil
}

// workerCaps are in force on one thread; those that it starts come from
// others.
func workerCaps() error {
	type job struct {
		fn   func() error
		done chan error
	}
	jobs := make(chan job)
	go func() {
		runtime.LockOSThread()
		for j := range jobs {
			j.done <- j.fn()
		}
	}()
	worker := func(fn func() error) error {
		j := job{fn, make(chan error)}
		jobs <- j
		return <-j.done
	}
	proc, err := os.OpenRoot("/proc")
	if err != nil {
		return err
	}
	const want = sys.CapNetBindService | sys.CapNetAdmin
	err = Engine(Config{ReadFiles: true, WorkerCaps: want | 1<<63, Worker: worker})
	if err != nil {
		return err
	}
	has := func(want uint64) func() error {
		return func() error {
			status, err := proc.ReadFile("thread-self/status")
			if line := fmt.Sprintf("CapEff:\t%016x", want); err == nil && !strings.Contains(string(status), line) {
				err = fmt.Errorf("no %q in\n%s", line, status)
			}
			return err
		}
	}
	if err := worker(has(want)); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	others := make(chan error)
	err = worker(func() error {
		for range 8 {
			go func() {
				runtime.LockOSThread() // and never unlocked: a thread each
				others <- has(0)()
			}()
		}
		return nil
	})
	for range 8 {
		err = errors.Join(err, <-others)
	}
	return err
}

// identityFlags reads back what prctl set, from a file opened before.
func identityFlags() error {
	status, err := os.Open("/proc/self/status")
	if err != nil {
		return err
	}
	if err := Engine(Config{}); err != nil {
		return err
	}
	text, err := io.ReadAll(status)
	if err != nil {
		return err
	}
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapInh:\t0000000000000000", "CapAmb:\t0000000000000000"} {
		if !strings.Contains(string(text), want) {
			return fmt.Errorf("no %q in\n%s", want, text)
		}
	}
	return nil
}

// readFiles opens a file below a directory that is still open.
func readFiles() error {
	dir, err := os.OpenRoot("/etc")
	if err != nil {
		return err
	}
	if err := Engine(Config{ReadFiles: true}); err != nil {
		return err
	}
	f, err := dir.Open("passwd")
	if err != nil {
		return err
	}
	_, err = io.ReadAll(f)
	if _, lerr := dir.Readlink("passwd"); !errors.Is(lerr, syscall.EINVAL) {
		return fmt.Errorf("read link that is none: %v", lerr)
	}
	if _, werr := dir.Create("penne-test"); !errors.Is(werr, syscall.EPERM) {
		return fmt.Errorf("made a file: %v", werr)
	}
	return err
}

// mixedWork is two seconds of all that an engine and Go's runtime do.
func mixedWork() error {
	h, err := openHandles()
	if err != nil {
		return err
	}
	if err := Engine(Config{}); err != nil {
		return err
	}
	deadline := time.Now().Add(2 * time.Second)
	parts := []func() error{tcpEcho, udpEcho, pipes, threads, preempt, garbage, h.control, h.logs, timers}
	errs := make(chan error, len(parts))
	for _, part := range parts {
		go func() {
			var err error
			for err == nil && time.Now().Before(deadline) {
				err = part()
			}
			errs <- err
		}()
	}
	for range parts {
		err = errors.Join(err, <-errs)
	}
	return err
}

func tcpEcho() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(c, c) // splice(2)
			c.Close()
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer c.Close()
	return echo(c)
}

func udpEcho() error {
	l, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		return err
	}
	defer l.Close()
	c, err := net.Dial("udp6", l.LocalAddr().String())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, _, err = l.ReadFrom(make([]byte, 10))
	return err
}

func echo(c io.ReadWriter) error {
	b := make([]byte, 1000)
	if _, err := c.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(c, b)
	return err
}

func pipes() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	if _, err = w.Write([]byte("x")); err != nil {
		return err
	}
	_, err = r.Read(make([]byte, 1))
	return err
}

// threads makes new ones, which end.
func threads() (err error) {
	done := make(chan error)
	for range 8 {
		go func() {
			runtime.LockOSThread()
			sys.SetThreadName("short-lived")
			done <- sys.SetSlice(time.Millisecond)
		}()
	}
	for range 8 {
		err = errors.Join(err, <-done)
	}
	return err
}

// preempt keeps all CPUs busy in loops that only a signal interrupts.
func preempt() error {
	for range 2 * runtime.GOMAXPROCS(0) {
		go func() {
			for i := 0; i < 1e8; i++ { //nolint:revive // empty on purpose
			}
		}()
	}
	runtime.Gosched()
	return nil
}

var sink []byte

func garbage() error {
	for range 100 {
		sink = make([]byte, 1<<20)
		sink[0] = 1
	}
	runtime.GC()
	debug.FreeOSMemory()
	return nil
}

func timers() error {
	t := time.NewTimer(time.Millisecond)
	defer t.Stop()
	<-t.C
	_ = time.Now().Local().Format(time.RFC3339Nano)
	return nil
}

// handles are what an engine opens before.
type handles struct {
	conn *nl.Conn
	scan *portscan.Scanner
	file *os.File
	sigs chan os.Signal
}

func openHandles() (h handles, err error) {
	if h.conn, err = nl.Dial(); err != nil {
		return h, err
	}
	if h.scan, err = portscan.Open(portscan.Options{TCP: true, UDP: true}); err != nil {
		return h, err
	}
	if h.file, err = os.CreateTemp("", "isolate"); err != nil {
		return h, err
	}
	h.sigs = make(chan os.Signal, 1)
	signal.Notify(h.sigs, syscall.SIGTERM)
	return h, os.Remove(h.file.Name())
}

// control is the control plane's: netlink, port scans, signals.
func (h *handles) control() error {
	_, err := h.conn.Snapshot()
	if err != nil {
		return err
	}
	var r portscan.Result
	if err := h.scan.Scan(&r); err != nil {
		return err
	}
	if err := syscall.Tgkill(os.Getpid(), os.Getpid(), syscall.SIGTERM); err != nil {
		return err
	}
	<-h.sigs
	return nil
}

func (h *handles) logs() error {
	if err := syscall.Flock(int(h.file.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	if _, err := h.file.WriteAt([]byte("line\n"), 0); err != nil {
		return err
	}
	if _, err := h.file.Stat(); err != nil {
		return err
	}
	if _, err := h.file.ReadAt(make([]byte, 5), 0); err != nil {
		return err
	}
	return errors.Join(h.file.Truncate(0), h.file.Sync())
}
