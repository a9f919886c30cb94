package client

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"penne/test/bed"
)

// Patience turns a stall into a failure that tells where it happened, before those lose theirs who wait for a client.
// Nothing here takes a second by design.
const Patience = bed.Patience / 2

// Outcome is what a client reports.
type Outcome struct {
	Bytes int64  // moved, or connections that worked
	Sum   string // SHA-256, hexadecimal
	Errno int    // of the failed call, 0 if none
	Text  string // of the failure, or of the last of several
	Fails int
}

// failed puts an error into an Outcome.
func failed(o Outcome, err error) (any, error) {
	o.Text = err.Error()
	var errno syscall.Errno
	if errors.As(err, &errno) {
		o.Errno = int(errno)
	}
	return o, nil
}

var (
	_ = bed.Register("dial", dialTool)
	_ = bed.Register("poke", pokeTool)
	_ = bed.Register("upload", uploadTool)
	_ = bed.Register("leave", leaveTool)
	_ = bed.Register("download", downloadTool)
	_ = bed.Register("echo", echoTool)
	_ = bed.Register("short", shortTool)
)

func dial(network, addr string) (net.Conn, error) {
	c, err := net.DialTimeout(network, addr, Patience)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(Patience))
}

// dialTool connects by TCP and reports how that failed: ADDR.
func dialTool(args []string) (any, error) {
	c, err := dial("tcp", args[0])
	if err != nil {
		return failed(Outcome{}, err)
	}
	return Outcome{}, c.Close()
}

// pokeTool sends a byte to ADDR and waits for what the server does about it. A reset may be here before the byte is
// sent, and is then the write's error.
func pokeTool(args []string) (any, error) {
	c, err := dial("tcp", args[0])
	if err != nil {
		return failed(Outcome{}, err)
	}
	defer c.Close()
	if _, err := c.Write([]byte{1}); err != nil {
		return failed(Outcome{}, err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return failed(Outcome{}, err)
	}
	return Outcome{}, nil
}

// uploadTool sends BYTES of pattern SEED to ADDR, ends its direction, and reads the sum the server computed.
func uploadTool(args []string) (any, error) {
	seed, n, err := seedAndSize(args[1:])
	if err != nil {
		return nil, err
	}
	c, err := dial("tcp", args[0])
	if err != nil {
		return failed(Outcome{}, err)
	}
	defer c.Close()
	sent, err := copyPattern(c, seed, n)
	if err != nil {
		return failed(Outcome{Bytes: sent}, err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return nil, err
	}
	sum, err := io.ReadAll(c)
	if err != nil {
		return failed(Outcome{Bytes: sent}, err)
	}
	return Outcome{Bytes: sent, Sum: string(sum)}, nil
}

// leaveTool sends BYTES of pattern SEED to ADDR, closes, and waits until the kernel has forgotten the connection.
func leaveTool(args []string) (any, error) {
	seed, n, err := seedAndSize(args[1:])
	if err != nil {
		return nil, err
	}
	c, err := dial("tcp", args[0])
	if err != nil {
		return failed(Outcome{}, err)
	}
	local := fmt.Sprintf(":%04X ", c.LocalAddr().(*net.TCPAddr).Port)
	sent, err := copyPattern(c, seed, n)
	if err := errors.Join(err, c.Close()); err != nil {
		return failed(Outcome{Bytes: sent}, err)
	}
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		v4, err4 := os.ReadFile("/proc/net/tcp")
		v6, err6 := os.ReadFile("/proc/net/tcp6")
		if err := errors.Join(err4, err6); err != nil {
			return nil, err
		}
		if !strings.Contains(string(v4)+string(v6), local) {
			return Outcome{Bytes: sent}, nil
		}
	}
	return nil, errors.New("the kernel does not forget the connection")
}

// downloadTool reads from ADDR until the end.
func downloadTool(args []string) (any, error) {
	c, err := dial("tcp", args[0])
	if err != nil {
		return failed(Outcome{}, err)
	}
	defer c.Close()
	h := sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{c}, make([]byte, 1<<18))
	if err != nil {
		return failed(Outcome{Bytes: n}, err)
	}
	return Outcome{Bytes: n, Sum: hex.EncodeToString(h.Sum(nil))}, nil
}

// echoTool sends BYTES of pattern SEED to ADDR and reads what comes back at the same time.
func echoTool(args []string) (any, error) {
	seed, n, err := seedAndSize(args[1:])
	if err != nil {
		return nil, err
	}
	c, err := dial("tcp", args[0])
	if err != nil {
		return failed(Outcome{}, err)
	}
	defer c.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := copyPattern(c, seed, n)
		sent <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
	}()
	h := sha256.New()
	got, err := io.Copy(h, c)
	if err := errors.Join(err, <-sent); err != nil {
		return failed(Outcome{Bytes: got}, err)
	}
	return Outcome{Bytes: got, Sum: hex.EncodeToString(h.Sum(nil))}, nil
}

func seedAndSize(args []string) (uint64, int64, error) {
	seed, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return 0, 0, err
	}
	n, err := strconv.ParseInt(args[1], 10, 64)
	return seed, n, err
}

// shortTool makes COUNT connections to ADDR, WORKERS at a time, each for one line and its echo.
func shortTool(args []string) (any, error) {
	count, workers, err := seedAndSize(args[1:])
	if err != nil {
		return nil, err
	}
	jobs := make(chan struct{}, count)
	for range count {
		jobs <- struct{}{}
	}
	close(jobs)
	var (
		mu sync.Mutex // guards o
		o  Outcome
		wg sync.WaitGroup
	)
	for range workers {
		wg.Go(func() {
			for range jobs {
				err := shortConnection(args[0])
				mu.Lock()
				if err != nil {
					o.Fails++
					o.Text = err.Error()
				} else {
					o.Bytes++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return o, nil
}

func shortConnection(addr string) error {
	c, err := dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "ping\n"); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "ping\n" {
		return fmt.Errorf("echo is %q: %w", got, err)
	}
	return nil
}

// Sink is the server of "upload": it reads to the end and answers with the SHA-256 of what it read. The client
// has ended its direction by then and must still be able to read.
func Sink(c *net.TCPConn) {
	h := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{c}, make([]byte, 1<<18)); err == nil {
		io.WriteString(c, hex.EncodeToString(h.Sum(nil)))
	}
}

// Source gives a server of "download": n bytes of a pattern.
func Source(seed uint64, n int64) func(*net.TCPConn) {
	return func(c *net.TCPConn) { copyPattern(c, seed, n) }
}

// copyPattern is io.Copy with a buffer that makes system calls few.
func copyPattern(w io.Writer, seed uint64, n int64) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{w}, bed.PatternReader(seed, n), make([]byte, 1<<18))
}
