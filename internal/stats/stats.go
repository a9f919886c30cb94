// Package stats names what a shard counts. A Counters belongs to one shard,
// which alone writes and reads it, with plain loads and stores; others get a
// copy by asking the shard. Drops are counted by reason and never logged one by
// one, since a guest can cause them at will.
package stats

// Reason says why a frame, a datagram or a flow was dropped.
type Reason uint8

// Reasons. Each ends only the frame, datagram or flow it counts.
const (
	Truncated    Reason = iota // a frame shorter than its headers say
	Malformed                  // a header field contradicts another
	FragmentIn                 // an IP fragment from the guest
	UnknownProto               // an EtherType or IP protocol that is not ours
	BadSource                  // a source address no guest may use
	BadDest                    // a destination that cannot be reached from a socket
	FamilyOff                  // an address family or protocol that is switched off
	TableFull                  // no slot for a new flow
	NoSocket                   // the kernel refused a socket (EMFILE, ENOBUFS, ENOMEM)
	NoFrame                    // no free frame to keep bytes in
	HandoffFull                // the ring to the owning shard was full
	TapFull                    // the tap took no more
	TapError                   // the tap refused a frame
	NoFlow                     // a segment, datagram or reply of no flow (TCP answers with a RST)
	OutOfWindow                // a segment outside the window
	BadOption                  // malformed TCP options
	SocketFull                 // a datagram the socket did not take
	TooLong                    // a datagram longer than the path or the link carries
	Oversize                   // a frame longer than a slot
	Unanswered                 // a request we have no answer for
	NumReasons
)

var reasonNames = [NumReasons]string{
	"truncated", "malformed", "fragment", "unknown protocol", "bad source", "bad destination",
	"family off", "flow table full", "no socket", "no frame", "hand-off full", "tap full",
	"tap error", "no flow", "out of window", "bad option", "socket full", "too long", "oversize",
	"unanswered",
}

func (r Reason) String() string { return reasonNames[r] }

// Counters are one shard's. All count since start, but for the gauges.
type Counters struct {
	Wakeups uint64 // returns from a blocking wait

	TapRxFrames, TapRxBytes uint64 // from the guest; a superpacket is one frame
	TapTxFrames, TapTxBytes uint64 // to the guest

	TCPOpened, TCPClosed, TCPReset uint64
	TCPRetransmits                 uint64 // towards the guest
	TCPTailFrames                  uint64 // frames kept because a socket was full
	UDPOpened, UDPClosed           uint64
	UDPToHost, UDPToGuest          uint64 // datagrams
	PingOpened, PingClosed         uint64
	Spliced                        uint64 // connections and UDP flows that bypass the tap
	SplicedBytes                   uint64 // their octets, both ways

	HandedOut, HandedIn uint64 // frames of flows that other shards own

	TCPFlows, UDPFlows, PingFlows uint64 // gauges

	Drops [NumReasons]uint64
}

// Drop counts one drop.
func (c *Counters) Drop(r Reason) { c.Drops[r]++ }

// Add adds o to c, for totals over shards.
func (c *Counters) Add(o *Counters) {
	for _, p := range [...]struct{ to, from *uint64 }{
		{&c.Wakeups, &o.Wakeups},
		{&c.TapRxFrames, &o.TapRxFrames}, {&c.TapRxBytes, &o.TapRxBytes},
		{&c.TapTxFrames, &o.TapTxFrames}, {&c.TapTxBytes, &o.TapTxBytes},
		{&c.TCPOpened, &o.TCPOpened}, {&c.TCPClosed, &o.TCPClosed}, {&c.TCPReset, &o.TCPReset},
		{&c.TCPRetransmits, &o.TCPRetransmits}, {&c.TCPTailFrames, &o.TCPTailFrames},
		{&c.UDPOpened, &o.UDPOpened}, {&c.UDPClosed, &o.UDPClosed},
		{&c.UDPToHost, &o.UDPToHost}, {&c.UDPToGuest, &o.UDPToGuest},
		{&c.PingOpened, &o.PingOpened}, {&c.PingClosed, &o.PingClosed},
		{&c.Spliced, &o.Spliced},
		{&c.SplicedBytes, &o.SplicedBytes},
		{&c.HandedOut, &o.HandedOut}, {&c.HandedIn, &o.HandedIn},
		{&c.TCPFlows, &o.TCPFlows}, {&c.UDPFlows, &o.UDPFlows}, {&c.PingFlows, &o.PingFlows},
	} {
		*p.to += *p.from
	}
	for i := range c.Drops {
		c.Drops[i] += o.Drops[i]
	}
}
