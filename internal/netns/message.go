package netns

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"penne/internal/sys"
)

// Kinds of notes, see [sys.Note]. None has the first byte of a failure, and
// none is a script's own.
const (
	// noteCommand comes from the holder with the command's pidfd.
	noteCommand = iota + 1
	// noteHolder comes from the holder's script, where that joins a user
	// namespace, with the holder's pid in A.
	noteHolder
	// noteEngine comes from the engine's script with its pid in A.
	noteEngine
	// noteReady comes from the engine: forwarding works.
	noteReady
	// noteSignal comes from the engine: it got the signal in A.
	noteSignal
	// noteRelease goes to the engine: be a daemon.
	noteRelease
)

// failureMark starts a message that is not a note but the engine's error.
const failureMark = 'E'

// proceed is what the launcher writes for a script to continue.
var proceed = []byte{1}

// PrivilegedPort is a socket bound to a port below ip_unprivileged_port_start, by the
// launcher with capabilities of the caller's, which the engine does not have.
type PrivilegedPort struct {
	// FD is the socket, listening if it is a stream. In the engine it
	// belongs to whoever takes it from [Handles].
	FD int
	// TCP tells TCP from UDP.
	TCP bool
	// Addr is the address it is bound to; the zero address means any one
	// of both families.
	Addr netip.Addr
	Port uint16
	// Iface is the interface it is bound to, if any.
	Iface string
}

// handover is what the engine gets besides the command line. Descriptors are -1 if
// there is none. It is sent in one or more messages, which differ in their ports
// only: More says that another one follows.
type handover struct {
	NetNS  int
	Target int
	// Watch is an inotify instance; its watch WatchID is for the directory
	// that WatchName is in, unless that is open as Dir instead.
	Watch, WatchID int
	Dir            int
	WatchName      string
	// Log and Capture are files that the launcher opened.
	Log, Capture int
	// Mounted says that NetNS was opened by a path: as long as it is open,
	// that cannot be unmounted.
	Mounted bool
	// Attended says that the launcher stays.
	Attended bool
	// Command says that there is a command, which ends the engine.
	Command bool
	Ports   []PrivilegedPort
	More    bool
}

// portsPerMessage keeps a message below half the smallest socket buffer.
const portsPerMessage = 256

func (h *handover) send(c *sys.Conn) error {
	part, rest := *h, h.Ports
	for {
		n := min(len(rest), portsPerMessage)
		part.Ports, rest = rest[:n], rest[n:]
		part.More = len(rest) > 0
		b, err := json.Marshal(&part)
		if err != nil {
			return fmt.Errorf("encode hand-over: %w", err)
		}
		if err := c.Send(b); err != nil {
			return fmt.Errorf("hand over to engine: %w", err)
		}
		if !part.More {
			return nil
		}
	}
}

func receiveHandover(c *sys.Conn) (*handover, error) {
	var ports []PrivilegedPort
	b := make([]byte, 64<<10)
	for {
		n, _, err := c.Recv(b)
		if err != nil {
			return nil, fmt.Errorf("receive hand-over: %w", err)
		}
		h := &handover{}
		if err := json.Unmarshal(b[:n], h); err != nil {
			return nil, fmt.Errorf("decode hand-over: %w", err)
		}
		ports = append(ports, h.Ports...)
		if !h.More {
			h.Ports = ports
			return h, nil
		}
	}
}
