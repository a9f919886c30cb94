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
	// firstAllowance is a new flow's: the largest window of a SYN-ACK.
	firstAllowance = 65535
	// defaultMaxTail is the largest allowance, unless Config.MaxTail says otherwise.
	defaultMaxTail = 4 << 20
)

// offer is the window to advertise with acknowledgment ack when there is room for
// room octets from next on: the header's field, and the edge it stands for. The
// window never shrinks: the edge is not left of old, the last one advertised (RFC
// 9293 section 3.8.6), and is rounded up to a unit of the scaled field.
func offer(ack, next, room, old uint32, scale uint8) (field uint16, edge uint32) {
	edge = next + room
	if floor := old + 1<<scale - 1; wire.SeqLT(edge, floor) {
		edge = floor
	}
	units := min((edge-ack)>>scale, 65535)
	return uint16(units), ack + units<<scale
}

// worthUpdate tells whether a window that moved from edge to fresh calls for a
// window update: by RFC 9293 section 3.8.6.2.2 (silly window avoidance), and when
// the old one was less than a segment.
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

// poolShare is the largest window of one flow when the pool has so many free
// frames, reserve of them kept for the tap: an eighth of the others, at half a slot
// each, which a tail fills at least (see keep).
func poolShare(free, reserve int) uint32 {
	return uint32(max(0, free-reserve)/8) * (ring.SlotSize / 2)
}

// sendRoom is how many octets may go out now: wnd is the guest's window, flight
// what it has not acknowledged, maxWnd the largest window it ever advertised.
// Less than a segment waits for more room (RFC 9293 section 3.8.6.2.1).
func sendRoom(wnd, flight, maxWnd uint32, mss uint16) uint32 {
	if flight >= wnd {
		return 0
	}
	room := wnd - flight
	if flight > 0 && room < uint32(mss) && room < maxWnd/2 {
		return 0
	}
	return room
}

// ackSeq is the sequence number of an acknowledgment without payload: max, unless
// the guest has shrunk its window, as Linux does when its receive buffer is full.
// It then drops what is beyond the new edge, acknowledgments as well (RFC 9293
// section 3.10.7.4), and if its reader waits for room to send, neither side would
// ever go on. An edge that is off by less than a unit of the window field is only
// rounded (RFC 7323 section 2.4).
func (c *conn) ackSeq() uint32 {
	if edge := c.una + c.wnd; wire.SeqLE(edge+1<<c.guestScale, c.max) {
		return edge
	}
	return c.max
}
