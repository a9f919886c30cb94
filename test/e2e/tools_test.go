package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"penne/test/bed"
)

// patience turns a stall into a failure that tells where it happened; nothing here takes a second by design.
const patience = 60 * time.Second

// outcome is what a client inside reports.
type outcome struct {
	Bytes int64
	Sum   string // SHA-256, hexadecimal
	Errno int    // of the failed call, 0 if none
	Text  string // of the failure
	Fails int
}

// failed puts an error into an outcome.
func failed(o outcome, err error) (any, error) {
	o.Text = err.Error()
	var errno syscall.Errno
	if errors.As(err, &errno) {
		o.Errno = int(errno)
	}
	return o, nil
}

var (
	_ = bed.Register("dial", dialTool)
	_ = bed.Register("upload", uploadTool)
	_ = bed.Register("download", downloadTool)
	_ = bed.Register("echo", echoTool)
	_ = bed.Register("udpecho", udpEchoTool)
	_ = bed.Register("udpsend", udpSendTool)
	_ = bed.Register("short", shortTool)
)

func dial(network, addr string) (net.Conn, error) {
	c, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(patience))
}

// dialTool connects by TCP and reports how that failed: ADDR.
func dialTool(args []string) (any, error) {
	c, err := dial("tcp", args[0])
	if err != nil {
		return failed(outcome{}, err)
	}
	return outcome{}, c.Close()
}

// uploadTool sends BYTES of pattern SEED to ADDR, ends its direction, and reads the sum the server computed.
func uploadTool(args []string) (any, error) {
	seed, n, err := seedAndSize(args[1:])
	if err != nil {
		return nil, err
	}
	c, err := dial("tcp", args[0])
	if err != nil {
		return failed(outcome{}, err)
	}
	defer c.Close()
	sent, err := io.Copy(c, bed.PatternReader(seed, n))
	if err != nil {
		return failed(outcome{Bytes: sent}, err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return nil, err
	}
	sum, err := io.ReadAll(c)
	if err != nil {
		return failed(outcome{Bytes: sent}, err)
	}
	return outcome{Bytes: sent, Sum: string(sum)}, nil
}

// downloadTool reads from ADDR until the end.
func downloadTool(args []string) (any, error) {
	c, err := dial("tcp", args[0])
	if err != nil {
		return failed(outcome{}, err)
	}
	defer c.Close()
	h := sha256.New()
	n, err := io.Copy(h, c)
	if err != nil {
		return failed(outcome{Bytes: n}, err)
	}
	return outcome{Bytes: n, Sum: hex.EncodeToString(h.Sum(nil))}, nil
}

// echoTool sends BYTES of pattern SEED to ADDR and reads what comes back at the same time.
func echoTool(args []string) (any, error) {
	seed, n, err := seedAndSize(args[1:])
	if err != nil {
		return nil, err
	}
	c, err := dial("tcp", args[0])
	if err != nil {
		return failed(outcome{}, err)
	}
	defer c.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, bed.PatternReader(seed, n))
		sent <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
	}()
	h := sha256.New()
	got, err := io.Copy(h, c)
	if err := errors.Join(err, <-sent); err != nil {
		return failed(outcome{Bytes: got}, err)
	}
	return outcome{Bytes: got, Sum: hex.EncodeToString(h.Sum(nil))}, nil
}

func seedAndSize(args []string) (uint64, int64, error) {
	seed, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return 0, 0, err
	}
	n, err := strconv.ParseInt(args[1], 10, 64)
	return seed, n, err
}

// udpEchoTool sends one datagram of each size to ADDR, in turn, and wants each back as it was.
func udpEchoTool(args []string) (any, error) {
	c, err := dial("udp", args[0])
	if err != nil {
		return failed(outcome{}, err)
	}
	defer c.Close()
	var o outcome
	for i, arg := range args[1:] {
		_, size, err := seedAndSize([]string{"0", arg})
		if err != nil {
			return nil, err
		}
		if err := echoDatagram(c, uint64(i), size); err != nil {
			return failed(o, fmt.Errorf("datagram of %d bytes: %w", size, err))
		}
		o.Bytes += size
	}
	return o, nil
}

func echoDatagram(c net.Conn, seed uint64, size int64) error {
	sent := make([]byte, size)
	bed.NewPattern(seed).Read(sent)
	if _, err := c.Write(sent); err != nil {
		return err
	}
	got := make([]byte, 1<<16)
	n, err := c.Read(got)
	if err != nil {
		return err
	}
	if string(got[:n]) != string(sent) {
		return fmt.Errorf("%d other bytes came back", n)
	}
	return nil
}

// udpSendTool sends a datagram to ADDR where nobody is and reports the error that comes back.
func udpSendTool(args []string) (any, error) {
	c, err := dial("udp", args[0])
	if err != nil {
		return failed(outcome{}, err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("anybody?")); err != nil {
		return failed(outcome{}, err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return failed(outcome{}, err)
	}
	return outcome{}, nil
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
		o  outcome
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
