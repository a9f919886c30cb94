package tcpx

import (
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
)

// state says how far the handshake or the end of a flow is. The states of RFC
// 9293 after ESTABLISHED are open with what has become of the two FINs: see
// conn.phase.
type state uint8

const (
	unused     state = iota
	connecting       // the guest's SYN is here, the host socket connects
	synSent          // accepted on the host, our SYN is out
	synRcvd          // our SYN-ACK is out
	open             // data flows
	draining         // the guest is gone, but its whole stream is taken: the tail goes on into the socket
	timeWait         // both FINs are acknowledged, the socket is closed
)

// maxHeader is the longest header a flow sends, TCP options aside.
const maxHeader = wire.EthLen + wire.IPv6Len + wire.TCPLen

// conn is one flow. It lies at its slot in an array made at start and holds no
// memory of its own but the frames of its tail and strays.
type conn struct {
	slot, fd int32
	next     int32 // the next in the work list, as slot+1; 0 ends it
	state    state
	queued   bool // in the work list

	// Of the host socket.
	readable   bool // octets or the end may be there to peek
	rdhup      bool // the end of the stream is there, behind what can be peeked
	urgent     bool // urgent data: short reads do not mean that all was read
	blocked    bool // it refused octets: EPOLLOUT follows
	failed     bool // it failed, and the guest must be told: what was readable goes first
	cut        bool // it failed without a FIN before that: its end is none
	partialSkb bool // when octets last left it, others remained, maybe of one segment
	shut       bool // our FIN went to it: shutdown(SHUT_WR)
	lowRTT     bool // its path is so short that reflecting is not worth while

	// Of the guest.
	sackOK      bool
	scaled      bool // both ends offered a window scale
	guestFIN    bool // its FIN is taken: it lies just before rcvNxt
	finSent     bool // our FIN is out, at finSeq
	finFirst    bool // it went out before the guest's was taken
	ackNow      bool // acknowledge at the end of this pass, whatever else
	inRecovery  bool // fast retransmission lasts until una passes recoverTo
	probeOut    bool // a keepalive probe is out and unanswered
	keepaliveOn bool // SO_KEEPALIVE is on, as the guest's own probes asked

	guestScale, scale uint8 // shift counts: the guest's, and ours if scaled
	dupAcks           uint8
	tries             uint8 // expiries of the retransmission timer in a row
	pingpong          int8  // how sure it is that answers carry acknowledgments: see ack.go
	probes            uint8 // keepalive probes unanswered in a row
	strayLen          uint8 // frames in strays
	deferrals         uint8 // how often consume was left alone

	mss   uint16 // payload of the largest segment the guest takes
	chunk uint16 // payload of the frames we build: many segments

	// From the guest. Everything before rcvNxt is taken. ackTo is how far we
	// are ready to acknowledge, rcvAck how far we did:
	// rcvAck <= ackTo <= rcvNxt <= edge.
	rcvNxt, rcvAck, ackTo, edge uint32
	allowance                   uint32
	tailLen                     uint32 // octets in the tail
	tailSkip                    uint32 // octets of its first frame already sent
	tail, tailEnd               *ring.Frame
	strays                      *ring.Frame // by sequence number

	// To the guest. una is acknowledged, nxt the next to send, max the
	// highest ever sent: una <= nxt <= max.
	una, nxt, max uint32
	finSeq        uint32
	recoverTo     uint32 // RFC 6582 calls it recover
	wnd, maxWnd   uint32 // the guest's window, and the greatest it ever gave
	wl1, wl2      uint32 // seq and ack of the segment wnd came with
	cwnd          uint32 // after a timeout, how much may be in flight; 0: wnd
	consume       uint32 // acknowledged octets still in the socket

	rtt  int64 // of the host's path, in nanoseconds
	held hold

	// Deadlines (Env.Now; 0: none). armed is what the wheel has.
	rtxAt, ackAt, idleAt, rttAt, armed int64
	delayedAt                          int64 // since when an acknowledgment waits for an answer to ride on
	lastHeard                          int64 // when the guest last sent anything
	lastData                           int64 // when data last moved, either way
	lastTaken                          int64 // when data was last taken

	// Headers made with the flow: see header.go.
	ipSum, l4Sum uint32
	hdrLen       uint8
	hdr          [maxHeader]byte
}

// reset makes c an unused record, but leaves it where it is in the work list.
func (c *conn) reset() {
	*c = conn{slot: c.slot, next: c.next, queued: c.queued, fd: -1}
}

// fail notes that the host socket has failed. EPIPE stands for a reset behind
// the remote's FIN, which is still to be passed on.
func (c *conn) fail(errno sys.Errno) {
	c.failed, c.cut = true, c.cut || errno != sys.EPIPE
}

// v4 tells the family on the guest's side.
func (c *conn) v4() bool { return c.hdrLen == wire.EthLen+wire.IPv4Len+wire.TCPLen }

// flight is how much the guest has not acknowledged of what is counted as sent.
func (c *conn) flight() uint32 { return c.nxt - c.una }

// inSocket is the sequence number behind what the host socket took. The
// guest's FIN is taken with shutdown.
func (c *conn) inSocket() uint32 {
	seq := c.rcvNxt - c.tailLen
	if c.guestFIN && !c.shut {
		seq--
	}
	return seq
}

// finAcked tells whether the guest acknowledged our FIN.
func (c *conn) finAcked() bool { return c.finSent && c.una == c.finSeq+1 }

// phase is the state of RFC 9293 section 3.3.2, seen from the remote's end, as
// which we act towards the guest: what tests speak of.
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
