package ping

import (
	"encoding/binary"

	"penne/csum"
	"penne/internal/icmp"
	"penne/internal/stats"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/ring"
	"penne/shard/flow"
)

// Event handles the epoll events of a flow's socket. Stale tokens, of a flow that
// has ended in this pass, are ignored.
func (p *Ping) Event(tok flow.Token, bits uint32) {
	if !p.table.Live(tok) {
		return
	}
	slot := tok.Slot()
	if bits&sys.EPOLLIN != 0 {
		p.receive(slot)
	}
	if bits&sys.EPOLLERR != 0 {
		p.report(slot)
	}
}

// receive sends the guest the replies that wait in the socket of the flow at slot.
func (p *Ping) receive(slot int32) {
	r, out := &p.rec[slot], p.env.Out
	for range maxRounds {
		if out.Room() < recvRow {
			out.Flush()
		}
		asked := min(recvRow, out.Room())
		for i := range asked {
			p.recv.SetBuf(i, message(out.Peek(i)))
		}
		n, errno := p.recv.Recv(r.fd, asked)
		if errno != 0 {
			return // EAGAIN, or an error that EPOLLERR reports as well
		}
		r.last = p.env.Now
		dropped := 0
		for i := range n {
			if !p.reply(slot, i, dropped) {
				dropped++
			}
		}
		if n < asked {
			return
		}
	}
}

// message is where f takes an ICMP message for the guest: all that an IPv4 datagram holds, which is more
// than ring.MaxPayload, since no transport header stands in front of it.
func message(f *ring.Frame) []byte {
	return f.Slot()[ring.PayloadOffset:][:65535-wire.IPv4Len]
}

// reply sends the i-th message of the receive row to the guest, and returns true, if
// it is a reply from the flow's peer. Its frame is the pos-th behind the committed
// ones.
func (p *Ping) reply(slot int32, i, pos int) bool {
	r, key, out := &p.rec[slot], p.table.Key(slot), p.env.Out
	ip, _, _, ok := p.recv.From(i).Inet()
	n := p.recv.Len(i)
	if !ok || wire.Addr(ip) != r.peer || n < wire.ICMPLen {
		p.env.Count.Drop(stats.NoFlow)
		return false
	}
	hdr := key.Remote.IPLen()
	if p.recv.Truncated(i) || hdr+n > p.env.Rules.MTU {
		p.env.Count.Drop(stats.TooLong)
		return false
	}
	f := out.Peek(pos)
	icmp := message(f)[:n]
	if icmp[0] != echoReply4 && icmp[0] != echoReply6 {
		p.env.Count.Drop(stats.NoFlow)
		return false
	}
	out.Swap(0, pos)
	b := f.Build(wire.EthLen+hdr, n)
	f.Offload = ring.Offload{}
	mac := p.env.Guest.MAC()
	wire.PutEth(b, &mac, &p.env.Rules.OurMAC, key.Remote.EtherType())
	wire.PutIP(b[wire.EthLen:], n, key.Proto, &key.Remote, &key.Guest)
	putIdent(icmp, key)
	out.Commit(1)
	return true
}

// putIdent writes the guest's identifier into an echo reply, and the checksum.
func putIdent(icmp []byte, key *flow.Key) {
	binary.BigEndian.PutUint16(icmp[4:], key.GuestPort)
	icmp[2], icmp[3] = 0, 0
	sum := uint32(0)
	if key.Proto == wire.ProtoICMPv6 {
		sum = wire.PseudoSum(&key.Remote, &key.Guest, key.Proto, len(icmp))
	}
	binary.BigEndian.PutUint16(icmp[2:], csum.Finish(csum.Sum(icmp, sum)))
}

// report sends the guest the ICMP errors in the error queue of the flow at slot.
func (p *Ping) report(slot int32) {
	r, key := &p.rec[slot], p.table.Key(slot)
	for range maxFaults {
		if !p.faults.Next(r.fd, &p.fault) {
			sys.SocketError(r.fd) // clears an error that is not in the queue
			return
		}
		m := &p.notice
		m.From, m.To = icmp.Reporter(p.env, &p.fault, &r.peer, &key.Remote), key.Guest
		if m.Relay(&p.fault) {
			m.Quote = p.requote(key, p.faults.Quote())
			m.Send(p.env)
		}
	}
}

// requote rebuilds the start of the guest's request from icmp, the request as it left
// the host, whose checksum it keeps.
func (p *Ping) requote(key *flow.Key, icmp []byte) []byte {
	b := p.quote[:]
	icmp = icmp[:min(len(icmp), len(b)-wire.IPv6Len)]
	l4 := wire.PutIP(b, len(icmp), key.Proto, &key.Guest, &key.Remote)
	n := copy(b[l4:], icmp)
	if n >= wire.ICMPLen {
		binary.BigEndian.PutUint16(b[l4+4:], key.GuestPort)
	}
	return b[:l4+n]
}
