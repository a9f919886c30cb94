package sys

import (
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxPassed is how many descriptors [Conn.Recv] takes with one message.
const maxPassed = 8

// Conn is one end of a pair of connected sockets that preserve message boundaries
// and order (SOCK_SEQPACKET). When the last descriptor of the other end is
// closed, as by the end of its process, Recv returns io.EOF. Safe for one sender and one receiver at a time.
type Conn struct {
	f  *os.File
	rc syscall.RawConn
}

// ConnPair returns our end, and the other one as a descriptor, both
// close-on-exec. Waiting on ours does not block a thread.
func ConnPair() (*Conn, int, error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, os.NewSyscallError("socketpair", err)
	}
	c, err := NewConn(p[0])
	if err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return nil, -1, err
	}
	return c, p[1], nil
}

// NewConn takes over the descriptor of one end.
func NewConn(fd int) (*Conn, error) {
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), "message socket")
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Conn{f: f, rc: rc}, nil
}

// FD is the descriptor's number.
func (c *Conn) FD() int {
	fd := -1
	_ = c.rc.Control(func(n uintptr) { fd = int(n) })
	return fd
}

// Send sends one message, which must not be empty.
func (c *Conn) Send(b []byte) error {
	var err error
	werr := c.rc.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, unix.MSG_NOSIGNAL, nil)
		return err != unix.EAGAIN
	})
	if werr != nil {
		return werr
	}
	return os.NewSyscallError("send", err)
}

// Recv waits for a message and returns its length and the descriptors that
// came with it, which are the caller's. A message longer than b is truncated.
func (c *Conn) Recv(b []byte) (n int, fds []int, err error) {
	oob := make([]byte, unix.CmsgSpace(4*maxPassed))
	var oobn int
	rerr := c.rc.Read(func(fd uintptr) bool {
		for {
			n, oobn, _, _, err = unix.Recvmsg(int(fd), b, oob, unix.MSG_CMSG_CLOEXEC)
			// ECONNRESET, reported once and before what there is to
			// read, means that the other end did not read all of ours.
			if err != unix.ECONNRESET && err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	switch {
	case rerr != nil:
		return 0, nil, rerr
	case err != nil:
		return 0, nil, os.NewSyscallError("receive", err)
	case n == 0:
		return 0, nil, io.EOF
	}
	return n, passedFDs(oob[:oobn]), nil
}

func passedFDs(oob []byte) (fds []int) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		if got, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

// Close closes our end.
func (c *Conn) Close() error { return c.f.Close() }

// CloseWrite lets the other end read an end of file; ours still receives.
func (c *Conn) CloseWrite() {
	_ = c.rc.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) })
}
