package tcpx

import (
	"penne/internal/wire"
	"penne/ring"
)

// ourScale is the window scale we announce: windows of up to 16 MiB in steps of
// 256 octets.
const ourScale = 8

// Bounds of a flow's allowance, in octets.
const (
	// firstAllowance is what a new flow may send ahead of what we took: the
	// most a SYN-ACK can say.
	firstAllowance = 65535
	// defaultMaxTail is the most any flow may.
	defaultMaxTail = 4 << 20
)

// offer is the window to advertise with acknowledgment ack, when room octets
// beyond next may come: the header's field, and the edge it stands for. The
// edge is never left of old, the one advertised before (RFC 9293 section
// 3.8.6); where scaling cannot say that exactly it goes right by a step.
func offer(ack, next, room, old uint32, scale uint8) (field uint16, edge uint32) {
	edge = next + room
	if floor := old + 1<<scale - 1; wire.SeqLT(edge, floor) {
		edge = floor
	}
	units := min((edge-ack)>>scale, 65535)
	return uint16(units), ack + units<<scale
}

// worthUpdate tells whether the guest should hear of a window that moved from
// edge to fresh without anything else to say: RFC 9293 section 3.8.6.2.2
// against silly windows, and whenever the old one was all but closed.
func worthUpdate(next, edge, fresh, allowance uint32, mss uint16) bool {
	gain := fresh - edge
	if int32(gain) <= 0 {
		return false
	}
	if edge-next < uint32(mss) {
		return gain >= min(uint32(mss), allowance/2)
	}
	return gain >= max(2*uint32(mss), allowance/8)
}

// poolShare is how many octets one flow may be offered when free frames of the
// pool are free, reserve of them kept for the tap: an eighth of the rest, at
// half a slot for each frame, which is the least that a tail fills on average.
func poolShare(free, reserve int) uint32 {
	return uint32(max(0, free-reserve)/8) * (ring.SlotSize / 2)
}

// sendRoom is how many octets may go out now: wnd is the window of the guest,
// flight what it has not acknowledged, most the greatest window it ever gave.
// Small pieces of a large window wait for more (RFC 9293 section 3.8.6.2.1).
func sendRoom(wnd, flight, most uint32, mss uint16) uint32 {
	if flight >= wnd {
		return 0
	}
	room := wnd - flight
	if flight > 0 && room < uint32(mss) && room < most/2 {
		return 0
	}
	return room
}
