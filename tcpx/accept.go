package tcpx

import (
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
)

// Inbound is an accepted connection's addresses and ports as the guest sees them.
type Inbound struct {
	Peer, Guest         wire.Addr
	PeerPort, GuestPort uint16
	// Handed says that another shard has accepted the connection and handed it on.
	Handed bool
}

// Accept starts a flow for a connection that a listener has accepted, and takes
// fd over: without a flow it is closed with a RST. A flow of the same addresses and ports
// may be left, since a peer that uses its port again knows nothing of the guest's end: one
// in TIME-WAIT is removed, another awaited. If another shard has it, so does that shard.
func (t *TCP) Accept(fd int, in Inbound) {
	key := flow.Key{Guest: in.Guest, Remote: in.Peer, GuestPort: in.GuestPort, RemotePort: in.PeerPort, Proto: wire.ProtoTCP}
	hash := t.table.Hash(&key)
	if !in.Guest.IsUnicastHost() || !in.Peer.IsUnicastHost() || in.Guest.Is4() != in.Peer.Is4() {
		t.env.Count.Drop(stats.BadDest)
		sys.Reset(fd)
		return
	}
	if slot := t.table.Find(&key, hash); slot >= 0 {
		c := &t.conns[slot]
		if c.state != timeWait {
			t.await(c, fd)
			return
		}
		t.remove(c)
	}
	switch owner := t.env.ClaimFlow(hash); {
	case owner == t.env.Shard:
		t.openInbound(fd, &key, hash)
	case in.Handed:
		sys.Reset(fd)
	default:
		in.Handed = true
		t.handOn(fd, in, owner)
	}
}

// openInbound makes the flow of an accepted connection, and sends the guest a SYN.
func (t *TCP) openInbound(fd int, key *flow.Key, hash uint64) {
	mac := t.env.Guest.MAC()
	c := t.newConn(key, hash, &mac)
	if c == nil {
		sys.Reset(fd)
		return
	}
	c.fd = int32(fd)
	c.state, c.max, c.nxt = synSent, c.una+1, c.una+1
	t.setOptions(c)
	t.measureRTT(c)
	if t.watch(c) != 0 {
		t.env.Count.Drop(stats.NoSocket)
		t.endHost(c)
		return
	}
	t.sendSYN(c)
}

// await has the connection of fd, from the port that c's remote had, wait for c to end:
// the remote is through with c, the guest will be as soon as it has seen the end. One that
// has waited and is over as well, since its remote has reset it, gives way. If c's
// connection is not over, the guest could not tell the two apart, as when two ports of
// the host lead to one inside; then fd is closed with a RST.
func (t *TCP) await(c *conn, fd int) {
	if !sys.TCPOver(int(c.fd)) || c.heir >= 0 && !sys.TCPOver(int(c.heir)) {
		sys.Reset(fd)
		return
	}
	if c.heir >= 0 {
		sys.Close(int(c.heir))
	}
	c.heir = int32(fd)
}

// hasten repeats our SYN in the next pass, once. The guest answered it for the connection
// that had the same addresses and ports before, mostly one in TIME-WAIT, which the RST
// has ended; Linux repeats its SYN as soon.
func (t *TCP) hasten(c *conn) {
	if c.tries == 0 {
		c.rtxAt = t.env.Now
		t.queue(c)
	}
}

// inSynSent is RFC 9293 section 3.10.7.3.
func (t *TCP) inSynSent(c *conn, f *ring.Frame, s *segment) (kept bool) {
	if s.has(wire.ACK) && s.ack != c.max {
		if !s.has(wire.RST) {
			t.refuse(f, s)
			t.hasten(c)
		}
		return false
	}
	if s.has(wire.RST) {
		if s.has(wire.ACK) {
			t.endHost(c)
		}
		return false
	}
	if !s.has(wire.SYN) {
		return false
	}
	copy(c.hdr[:6], f.Bytes()[6:12]) // the answer tells the guest's Ethernet address
	t.readSYN(c, s)
	c.rcvNxt = s.seq + 1
	c.ackTo, c.rcvAck, c.edge = c.rcvNxt, c.rcvNxt, c.rcvNxt
	if s.has(wire.ACK) {
		t.establish(c, s)
		c.ackNow = true
		return false
	}
	c.state = synRcvd
	t.sendSYN(c)
	return false
}
