package ring

import "penne/internal/wire"

// Layout of a slot. A frame for the guest has its payload at PayloadOffset and
// its headers, however long, right before it, so that recvmsg can fill many
// frames before their headers are known. A frame read from the tap starts at
// HeadRoom.
const (
	// SlotSize holds 64 KiB of payload, the headers, and payload appended to a
	// frame in a flow's tail. An arena rounds it up to pages.
	SlotSize = 72 << 10
	// PayloadOffset is where the payload of a built frame starts.
	PayloadOffset = 192
	// HeadRoom is the space before the Ethernet header of a received frame,
	// for the virtio-net header.
	HeadRoom = 64
	// MaxPayload bounds the payload of a frame for the guest: with the longest
	// headers the IP length is at most 65535 in both families.
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

// Offload is what struct virtio_net_hdr says of a frame, in host byte order: the
// checksum and the segmentation that are left to the receiver.
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
	// touched: the slot's pages may be resident.
	touched bool
	// Handed: another shard handed the frame over. It is not handed over again.
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

// Home is the number of the shard whose arena the frame belongs to.
func (f *Frame) Home() uint8 { return f.home }

// SetBounds makes the frame slot[off:off+n].
func (f *Frame) SetBounds(off, n int) { f.off, f.len = uint32(off), uint32(n) }

// Build makes the frame hdr octets of headers, Ethernet included, followed by
// payload octets at PayloadOffset, and returns the headers to be filled in.
func (f *Frame) Build(hdr, payload int) []byte {
	f.off, f.len = uint32(PayloadOffset-hdr), uint32(hdr+payload)
	return f.slot[f.off:PayloadOffset]
}

// PayloadArea is where the payload of a frame for the guest goes.
func (f *Frame) PayloadArea() []byte { return f.slot[PayloadOffset : PayloadOffset+MaxPayload] }

// L4Payload is the L4 payload of a classified frame.
func (f *Frame) L4Payload() []byte {
	start := f.off + uint32(f.H.Payload)
	return f.slot[start : start+f.H.PayloadLen]
}

// TailRoom is the rest of the slot behind the L4 payload of a classified frame,
// where a flow may append the payload of the next one.
func (f *Frame) TailRoom() []byte {
	return f.slot[f.off+uint32(f.H.Payload)+f.H.PayloadLen:]
}
