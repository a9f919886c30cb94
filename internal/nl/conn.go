package nl

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"

	"penne/internal/sys"
)

// Conn is an rtnetlink socket, bound to one network namespace. It is used by
// one goroutine at a time.
type Conn struct {
	handle *nl.SocketHandle
	socks  map[int]*nl.SocketHandle
	// lingerers are what Apply has left in the namespace.
	lingerers []lingerer
}

// Dial opens a Conn in the network namespace of the calling thread; a caller
// that has entered another namespace holds the thread locked.
func Dial() (*Conn, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), sys.NetlinkRoute)
	if err != nil {
		return nil, fmt.Errorf("open route netlink socket: %w", err)
	}
	// Error messages in addition to the errno, since Linux 4.12.
	_ = s.SetExtAck(true)
	h := &nl.SocketHandle{Socket: s}
	return &Conn{handle: h, socks: map[int]*nl.SocketHandle{sys.NetlinkRoute: h}}, nil
}

// Close closes the socket.
func (c *Conn) Close() { c.handle.Close() }

// dump requests all objects of a kind and passes each message, without its nlmsghdr,
// to f, which must not retain it. If the table changes during the dump, the kernel
// says so, and dump tries again; the third result is used in any case, since a
// host whose network keeps changing must not keep us from starting. reset is
// called before each try.
func (c *Conn) dump(kind, want uint16, body []byte, reset func(), f func(msg []byte)) error {
	var err error
	for range 3 {
		reset()
		req := nl.NewNetlinkRequest(int(kind), sys.NlmDump)
		req.Sockets = c.socks
		req.AddRawData(body)
		err = req.ExecuteIter(sys.NetlinkRoute, want, func(msg []byte) bool { f(msg); return true })
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			return err
		}
	}
	return nil
}

// change sends a request that changes something and waits for the acknowledgement.
func (c *Conn) change(kind uint16, flags int, body []byte) error {
	req := nl.NewNetlinkRequest(int(kind), flags|sys.NlmAck)
	req.Sockets = c.socks
	req.AddRawData(body)
	_, err := req.Execute(sys.NetlinkRoute, 0)
	return err
}

// get requests one object.
func (c *Conn) get(kind uint16, body []byte) ([]byte, error) {
	req := nl.NewNetlinkRequest(int(kind), 0)
	req.Sockets = c.socks
	req.AddRawData(body)
	msgs, err := req.Execute(sys.NetlinkRoute, 0)
	if err != nil {
		return nil, err
	}
	if len(msgs) == 0 {
		return nil, errors.New("empty answer from the kernel")
	}
	return msgs[0], nil
}

var ne = binary.NativeEndian

// attr appends an attribute (struct rtattr: length, type, value, padding).
func attr(b []byte, typ uint16, val []byte) []byte {
	b = ne.AppendUint16(b, uint16(sys.SizeofRtAttr+len(val)))
	b = ne.AppendUint16(b, typ)
	b = append(b, val...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// attr32 appends a 32-bit attribute.
func attr32(b []byte, typ uint16, val uint32) []byte {
	return attr(b, typ, ne.AppendUint32(nil, val))
}

// attrs iterates over attributes up to the first malformed one. The nested and
// byte-order bits of the type are masked off.
func attrs(b []byte) func(yield func(typ uint16, val []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= sys.SizeofRtAttr {
			n := int(ne.Uint16(b))
			if n < sys.SizeofRtAttr || n > len(b) {
				return
			}
			if !yield(ne.Uint16(b[2:])&0x3fff, b[sys.SizeofRtAttr:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

// u32 reads a 32-bit value, zero if it is too short.
func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return ne.Uint32(b)
}
