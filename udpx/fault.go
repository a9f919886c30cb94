package udpx

import (
	"encoding/binary"

	"penne/internal/icmp"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
)

// maxFaults bounds the errors that one call takes from a socket's queue; EPOLLERR
// stays for the others.
const maxFaults = 32

// tooLong tells the guest that its datagram f is longer than the path's MTU.
func (u *UDP) tooLong(r *record, f *ring.Frame) {
	if mtu, errno := sys.PathMTU(r.fd, !r.peer.Is4()); errno == 0 {
		u.notice.RejectLong(u.env, f, mtu)
	}
}

// report sends the guest the ICMP errors in the error queue of the flow at slot.
func (u *UDP) report(slot int32) {
	r, key := &u.rec[slot], u.table.Key(slot)
	for range maxFaults {
		if !u.faults.Next(r.fd, &u.fault) {
			sys.SocketError(r.fd) // clears an error that is not in the queue
			return
		}
		m := &u.notice
		m.From, m.To = icmp.Reporter(u.env, &u.fault, &r.peer, &key.Remote), key.Guest
		if m.Relay(&u.fault) {
			m.Quote = u.requote(key, u.faults.Quote())
			m.Send(u.env)
		}
	}
}

// requote rebuilds the start of the guest's datagram from payload, as much of it as
// the error queue has. Its true length and checksum are not known.
func (u *UDP) requote(key *flow.Key, payload []byte) []byte {
	b := u.quote[:]
	n := min(len(payload), len(b)-wire.IPv6Len-wire.UDPLen)
	l4 := wire.PutIP(b, wire.UDPLen+n, wire.ProtoUDP, &key.Guest, &key.Remote)
	binary.BigEndian.PutUint16(b[l4:], key.GuestPort)
	binary.BigEndian.PutUint16(b[l4+2:], key.RemotePort)
	binary.BigEndian.PutUint32(b[l4+4:], uint32(wire.UDPLen+n)<<16)
	return b[:l4+wire.UDPLen+copy(b[l4+wire.UDPLen:], payload[:n])]
}
