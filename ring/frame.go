package ring

import "penne/internal/wire"

// Geometry of a slot. A frame that is built for the guest has its payload at
// PayloadOffset, whatever its headers' length, and the headers right before it,
// so that recvmsg can fill many frames before their headers are known. A frame
// read from the tap starts at HeadRoom, so that its payload is on a cache line
// in the usual case as well.
const (
	// SlotSize is room for 64 KiB of payload, headers and tails. An arena
	// rounds it up to pages.
	SlotSize = 72 << 10
	// PayloadOffset is where the payload of a built frame starts.
	PayloadOffset = 192
	// HeadRoom is what a back-end may put before the Ethernet header of a
	// frame it received (the virtio-net header).
	HeadRoom = 64
	// MaxPayload bounds the payload of a built frame: with the longest
	// headers the IP length stays at or below 65535 in both families.
	MaxPayload = 65535 - wire.IPv6Len - 60
)

// GSO types of Offload, numbered as in struct virtio_net_hdr (virtio 1.2,
// section 5.1.6).
const (
	GSONone  = 0
	GSOTCPv4 = 1
	GSOTCPv6 = 4
	GSOUDPL4 = 5
)

// Offload says what the receiver of a frame must still do to it, or need not.
// It carries the meaning of struct virtio_net_hdr, not its layout.
type Offload struct {
	GSOType    uint8  // GSONone, or how to cut the payload
	NeedsCsum  bool   // the L4 checksum field holds the pseudo-header sum only
	GSOSize    uint16 // payload octets of each segment, if GSOType is set
	CsumStart  uint16 // from the Ethernet header: where the L4 header starts
	CsumOffset uint16 // from CsumStart: where the checksum field is
}

// Frame is one Ethernet frame and the slot it lies in. It is owned by one
// shard at a time, and by one list (Next is the list's).
type Frame struct {
	slot []byte
	off  uint32
	len  uint32
	// Offload is set by the back-end that received the frame, or by the
	// builder of a frame for the guest.
	Offload Offload
	// home is the shard whose arena the slot belongs to.
	home uint8
	// touched tells that the slot's pages may be resident.
	touched bool
	// Handed tells that another shard passed the frame on: it is not passed
	// on twice.
	Handed bool
	// H is filled by wire.Parse when the frame is classified.
	H wire.Headers
	// Next links the frame into the one list that holds it.
	Next *Frame
}

// Bytes is the frame from the Ethernet header on.
func (f *Frame) Bytes() []byte { return f.slot[f.off : f.off+f.len] }

// Len is the frame's length from the Ethernet header on, in octets.
func (f *Frame) Len() int { return int(f.len) }

// Slot is the whole slot, for back-ends that read into it or that put a
// virtio-net header before the frame.
func (f *Frame) Slot() []byte { return f.slot }

// Offset is where the Ethernet header starts in the slot.
func (f *Frame) Offset() int { return int(f.off) }

// SetBounds says that the frame is slot[off:off+n].
func (f *Frame) SetBounds(off, n int) { f.off, f.len = uint32(off), uint32(n) }

// Build makes the frame one of hdr octets of headers, the Ethernet header
// included, and payload octets of payload, which lies or will lie at
// PayloadOffset, and returns the header part for filling.
func (f *Frame) Build(hdr, payload int) []byte {
	f.off, f.len = uint32(PayloadOffset-hdr), uint32(hdr+payload)
	return f.slot[f.off:PayloadOffset]
}

// PayloadArea is the room for payload of a frame that is being built.
func (f *Frame) PayloadArea() []byte { return f.slot[PayloadOffset : PayloadOffset+MaxPayload] }

// L4Payload is the L4 payload of a classified frame.
func (f *Frame) L4Payload() []byte {
	start := f.off + uint32(f.H.Payload)
	return f.slot[start : start+f.H.PayloadLen]
}

// TailRoom is the free part of the slot after the L4 payload of a classified
// frame: where a flow may append bytes it has to keep.
func (f *Frame) TailRoom() []byte {
	return f.slot[f.off+uint32(f.H.Payload)+f.H.PayloadLen:]
}
