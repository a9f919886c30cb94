package portscan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"penne/internal/sys"
)

var ne = binary.NativeEndian

// bufferSize fits any message of a dump: the kernel fills at most 32 KiB per read
// (netlink_dump).
const bufferSize = 32 << 10

// request is one dump: sockets of a family and a protocol in a TCP state.
type request struct {
	family, proto, state byte
}

// marshal writes the message: struct nlmsghdr (length u32, type u16, flags u16,
// sequence u32, port id u32), then struct inet_diag_req_v2 (family, protocol,
// extensions, pad, states u32, socket id), without extensions.
func (q request) marshal(b *[sys.SizeofNlMsghdr + sys.SizeofInetDiagReq]byte, seq uint32) {
	*b = [len(b)]byte{}
	ne.PutUint32(b[0:], uint32(len(b)))
	ne.PutUint16(b[4:], sys.SockDiagByFamily)
	ne.PutUint16(b[6:], 1|sys.NlmDump) // NLM_F_REQUEST
	ne.PutUint32(b[8:], seq)
	b[16], b[17] = q.family, q.proto
	ne.PutUint32(b[20:], 1<<q.state)
}

var errMalformed = errors.New("malformed answer from the kernel")

// parseDump parses the messages of one read of the dump with sequence number seq,
// and adds their ports to f. done says that the dump is complete. Messages of
// earlier dumps, which were abandoned, are skipped.
func parseDump(b []byte, seq uint32, f *Families) (done bool, err error) {
	for len(b) >= sys.SizeofNlMsghdr {
		n := uint64(ne.Uint32(b))
		if n < sys.SizeofNlMsghdr || n > uint64(len(b)) {
			return false, errMalformed
		}
		msg := b[:n]
		b = b[min((n+3)&^3, uint64(len(b))):]
		if ne.Uint32(msg[8:]) != seq {
			continue
		}
		switch body := msg[sys.SizeofNlMsghdr:]; ne.Uint16(msg[4:]) {
		case sys.NlmsgDone:
			return true, doneError(body)
		case sys.NlmsgError:
			return true, netlinkError(body)
		case sys.SockDiagByFamily:
			addSocket(body, f)
		}
	}
	return false, nil
}

// netlinkError reads struct nlmsgerr, whose first word is a negative errno.
func netlinkError(body []byte) error {
	if len(body) < 4 {
		return errMalformed
	}
	if e := int32(ne.Uint32(body)); e < 0 {
		return syscall.Errno(-e)
	}
	return errMalformed
}

// doneError reads the status of NLMSG_DONE: 0, or a negative errno. A kernel without
// sock_diag for a protocol reports ENOENT here (__inet_diag_dump), not in an
// NLMSG_ERROR.
func doneError(body []byte) error {
	if len(body) < 4 || int32(ne.Uint32(body)) >= 0 {
		return nil
	}
	return netlinkError(body)
}

// addSocket adds the port of one struct inet_diag_msg: family, state, timer,
// retransmissions, then the socket id, which starts with source port and
// destination port in network order, and the source address.
func addSocket(m []byte, f *Families) {
	if len(m) < sys.SizeofInetDiagMsg {
		return
	}
	port := binary.BigEndian.Uint16(m[4:])
	if port == 0 {
		return
	}
	if m[0] == sys.AF_INET {
		f.V4.Add(port)
		return
	}
	f.add6(port, (*[16]byte)(m[8:24]), v6Only(m[sys.SizeofInetDiagMsg:]))
}

// add6 adds a port of an IPv6 socket. One bound to a v4-mapped address serves
// IPv4 alone.
func (f *Families) add6(port uint16, ip *[16]byte, v6only bool) {
	hi, lo := binary.BigEndian.Uint64(ip[:8]), binary.BigEndian.Uint64(ip[8:])
	if hi == 0 && lo>>32 == 0xffff {
		f.V4.Add(port)
		return
	}
	f.V6.Add(port)
	if hi|lo == 0 && !v6only {
		f.V4.Add(port)
	}
}

// v6Only reads INET_DIAG_SKV6ONLY among the attributes b (struct rtattr: length
// u16, type u16, value, padding to four bytes).
func v6Only(b []byte) bool {
	for len(b) > sys.SizeofRtAttr {
		n := int(ne.Uint16(b))
		if n <= sys.SizeofRtAttr || n > len(b) {
			return false
		}
		if ne.Uint16(b[2:]) == sys.InetDiagSKV6Only {
			return b[sys.SizeofRtAttr] != 0
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return false
}

// diag is a sock_diag socket with its buffers.
type diag struct {
	fd  int
	seq uint32
	out [sys.SizeofNlMsghdr + sys.SizeofInetDiagReq]byte
	in  [bufferSize]byte
}

func openDiag() (*diag, error) {
	fd, err := sys.DiagSocket()
	if err != nil {
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	return &diag{fd: fd}, nil
}

// dump adds to f the ports of all sockets that match q.
func (d *diag) dump(q request, f *Families) error {
	d.seq++
	q.marshal(&d.out, d.seq)
	if _, err := retryEINTR(syscall.Write, d.fd, d.out[:]); err != nil {
		return err
	}
	for {
		n, err := retryEINTR(syscall.Read, d.fd, d.in[:])
		if err != nil {
			return err
		}
		if done, err := parseDump(d.in[:n], d.seq, f); done || err != nil {
			return d.drain(done, err)
		}
	}
}

// drain reads the rest of a dump that is abandoned; otherwise the next one would
// fail (EBUSY).
func (d *diag) drain(done bool, err error) error {
	for !done {
		n, rerr := retryEINTR(syscall.Read, d.fd, d.in[:])
		if n == 0 || rerr != nil {
			break
		}
	}
	return err
}

// retryEINTR repeats a call that a signal has interrupted.
func retryEINTR(call func(int, []byte) (int, error), fd int, b []byte) (int, error) {
	for {
		n, err := call(fd, b)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

func (d *diag) close() { _ = syscall.Close(d.fd) }
