package tcpx

import (
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
)

// state is coarser than RFC 9293's: those from ESTABLISHED to LAST-ACK are open,
// told apart by what has become of the two FINs. See conn.phase.
type state uint8

const (
	unused     state = iota
	connecting       // the guest's SYN is here, the host socket connects
	synSent          // accepted on the host, our SYN is out
	synRcvd          // our SYN-ACK is out
	open             // data flows
	draining         // the guest is gone, but its whole stream is taken: the tail still goes into the socket
	timeWait         // both FINs are acknowledged, the socket is closed
)

// maxHeader is the length of the longest headers of a segment, TCP options aside.
const maxHeader = wire.EthLen + wire.IPv6Len + wire.TCPLen

// conn is one flow: an element, at its slot, of an array made at start. It owns
// its socket and the frames of its tail and out-of-order queue.
type conn struct {
	slot, fd int32
	next     int32 // the next in the work list, as slot+1; 0: none
	heir     int32 // the socket of the connection that Accept has wait for this flow's end; -1: none
	state    state
	queued   bool // in the work list

	// Of the host socket.
	bulk       bool // the last peek filled a frame
	readable   bool // there may be octets, or the end of the stream, to peek
	rdhup      bool // the remote's FIN or RST came (EPOLLRDHUP), behind what can be peeked
	urgent     bool // urgent data came: a short read may end at its mark
	blocked    bool // its send buffer is full: EPOLLOUT follows
	failed     bool // it failed: the guest gets what was readable, then a RST
	aborted    bool // it failed before the remote's FIN: the end of what is readable is no FIN
	partialSkb bool // part of a segment may be left at the front of its receive queue
	shut       bool // shutdown(SHUT_WR) was called: the guest's FIN is passed on
	lowRTT     bool // its path is shorter than shortPath: no reflecting

	// Of the guest.
	sackOK      bool
	scaled      bool // both ends offered a window scale
	guestFIN    bool // its FIN is taken, at rcvNxt-1
	finSent     bool // our FIN is out, at finSeq
	finFirst    bool // ours was first: the active close, which TIME-WAIT follows
	ackNow      bool // acknowledge at the end of this pass in any case
	inRecovery  bool // fast recovery, until una reaches recoverTo
	probeOut    bool // a keepalive probe is out and unanswered
	keepaliveOn bool // SO_KEEPALIVE is on, since the guest sends keepalives

	guestScale, scale uint8 // shift counts: the guest's, and ours if scaled
	dupAcks           uint8
	tries             uint8 // expiries of the retransmission timer in a row
	pingpong          int8  // confidence that answers carry acknowledgments: see ack.go
	probes            uint8 // keepalive probes unanswered in a row
	outOfOrderLen     uint8 // frames in outOfOrder; at most maxOutOfOrder
	deferrals         uint8 // passes since consume was last discarded

	mss   uint16 // payload of the largest segment the guest takes
	chunk uint16 // payload of the frames we build: a multiple of mss

	// From the guest. Everything before rcvNxt is taken. rcvAck is acknowledged,
	// and the next segment acknowledges up to ackTo:
	// rcvAck <= ackTo <= rcvNxt <= edge.
	rcvNxt, rcvAck, ackTo, edge uint32
	allowance                   uint32
	tailLen                     uint32 // octets in the tail
	tailSkip                    uint32 // octets of its first frame already sent
	tail, tailEnd               *ring.Frame
	outOfOrder                  *ring.Frame // sorted by sequence number

	// To the guest: SND.UNA, SND.NXT (which a timeout moves back), and the end
	// of what was ever sent: una <= nxt <= max.
	una, nxt, max uint32
	finSeq        uint32
	recoverTo     uint32 // RFC 6582 calls it recover
	wnd, maxWnd   uint32 // the guest's window, and the largest it ever advertised
	wl1, wl2      uint32 // SND.WL1 and WL2: seq and ack of the segment wnd came with
	cwnd          uint32 // congestion window after a timeout; 0: none
	consume       uint32 // acknowledged octets not yet discarded from the socket

	rtt  int64 // of the host's path, in nanoseconds
	held hold

	// Deadlines (Env.Now; 0: none). armed is what the wheel has.
	rtxAt, ackAt, idleAt, rttAt, armed int64
	delayedAt                          int64 // since when delayAck has held back an acknowledgment
	lastHeard                          int64 // when the guest last sent anything
	lastData                           int64 // when data last passed, either way
	lastTaken                          int64 // when data was last taken

	// Headers built with the flow: see setHeader.
	ipSum, l4Sum uint32
	hdrLen       uint8
	hdr          [maxHeader]byte
}

// reset clears c, except for its place in the work list.
func (c *conn) reset() {
	*c = conn{slot: c.slot, next: c.next, queued: c.queued, fd: -1, heir: -1}
}

// fail notes that the host socket has failed. EPIPE means that the reset came
// after the remote's FIN, which is still to be passed on.
func (c *conn) fail(errno sys.Errno) {
	c.failed, c.aborted = true, c.aborted || errno != sys.EPIPE
}

// v4 tells whether the flow is IPv4.
func (c *conn) v4() bool { return c.hdrLen == wire.EthLen+wire.IPv4Len+wire.TCPLen }

// flight is how many octets count as sent but not acknowledged.
func (c *conn) flight() uint32 { return c.nxt - c.una }

// inSocket is the sequence number after what the host socket has; the guest's
// FIN is in it after shutdown(2).
func (c *conn) inSocket() uint32 {
	seq := c.rcvNxt - c.tailLen
	if c.guestFIN && !c.shut {
		seq--
	}
	return seq
}

// finAcked tells whether the guest acknowledged our FIN.
func (c *conn) finAcked() bool { return c.finSent && c.una == c.finSeq+1 }

// phase is our state towards the guest in terms of RFC 9293 section 3.3.2. It is
// what tests check.
func (c *conn) phase() string {
	switch c.state {
	case unused, draining:
		return "CLOSED"
	case connecting:
		return "LISTEN"
	case synSent:
		return "SYN-SENT"
	case synRcvd:
		return "SYN-RECEIVED"
	case timeWait:
		return "TIME-WAIT"
	}
	switch {
	case c.guestFIN && c.finSent && c.finFirst:
		return "CLOSING"
	case c.guestFIN && c.finSent:
		return "LAST-ACK"
	case c.guestFIN:
		return "CLOSE-WAIT"
	case c.finAcked():
		return "FIN-WAIT-2"
	case c.finSent:
		return "FIN-WAIT-1"
	}
	return "ESTABLISHED"
}
