package portscan

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"syscall"
)

// table is a file such as /proc/net/tcp, kept open: it shows the namespace where it
// was opened, and can be read repeatedly.
type table struct {
	fd    int
	state byte // only sockets in this TCP state
	buf   []byte
}

// openTable opens a table of the calling thread's network namespace. The file
// is missing where the kernel lacks the family.
func openTable(name string, state byte, buf []byte) (*table, error) {
	path := "/proc/thread-self/net/" + name
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &table{fd: fd, state: state, buf: buf}, nil
}

// read adds to f the ports of all sockets in the table's state.
func (t *table) read(f *Families) error {
	var off int64
	kept := 0
	for {
		n, err := syscall.Pread(t.fd, t.buf[kept:], off)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("read port table: %w", err)
		}
		if n == 0 {
			return nil
		}
		off += int64(n)
		rest := parseTable(t.buf[:kept+n], t.state, f)
		kept = copy(t.buf, rest)
		if kept == len(t.buf) {
			return fmt.Errorf("read port table: %w", errMalformed)
		}
	}
}

// parseTable parses the complete lines of b and returns what follows the last one.
func parseTable(b []byte, state byte, f *Families) (rest []byte) {
	for {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			return b
		}
		addLine(b[:end], state, f)
		b = b[end+1:]
	}
}

// addLine adds the port of a line such as "  12: 0100007F:1F90 00000000:0000 0A ...":
// number, local and remote address and port, state, all hexadecimal; addresses are
// 32-bit words in the machine's byte order.
func addLine(line []byte, state byte, f *Families) {
	_, line, ok := bytes.Cut(line, []byte(": "))
	if !ok {
		return
	}
	local, line, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return
	}
	_, line, ok = bytes.Cut(line, []byte(" "))
	if !ok || len(line) < 2 {
		return
	}
	if st, ok := hex(line[:2]); !ok || byte(st) != state {
		return
	}
	addr, port, _ := bytes.Cut(local, []byte(":"))
	p, ok := hex(port)
	if !ok || p == 0 || p > 0xffff {
		return
	}
	switch len(addr) {
	case 8:
		f.V4.Add(uint16(p))
	case 32:
		if ip, ok := hexAddr(addr); ok {
			// The table does not show IPV6_V6ONLY: assume the default.
			f.add6(uint16(p), &ip, false)
		}
	}
}

// hexAddr reads an IPv6 address.
func hexAddr(b []byte) (ip [16]byte, ok bool) {
	for i := range 4 {
		w, ok := hex(b[i*8 : i*8+8])
		if !ok {
			return ip, false
		}
		binary.NativeEndian.PutUint32(ip[i*4:], w)
	}
	return ip, true
}

// hex reads a hexadecimal number of at most 32 bits.
func hex(b []byte) (v uint32, ok bool) {
	if len(b) == 0 || len(b) > 8 {
		return 0, false
	}
	for _, c := range b {
		d := strings.IndexByte("0123456789ABCDEF", c)
		if d < 0 {
			return 0, false
		}
		v = v<<4 | uint32(d)
	}
	return v, true
}

func (t *table) close() { _ = syscall.Close(t.fd) }
