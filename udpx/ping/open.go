package ping

import (
	"fmt"

	"penne/internal/stats"
	"penne/internal/sys"
	"penne/ring"
	"penne/shard/flow"
)

// open makes the flow of f, or gets rid of f and returns -1.
func (p *Ping) open(f *ring.Frame, key *flow.Key, hash uint64) int32 {
	rules := p.env.Rules
	to, ok := rules.ToHost(&key.Remote, 0)
	switch {
	case rules.NoICMP, !rules.Of(&key.Remote).On:
		p.refuse(f, stats.FamilyOff)
		return -1
	case !key.Guest.IsUnicastHost():
		p.refuse(f, stats.BadSource)
		return -1
	case !ok:
		p.refuse(f, stats.BadDest)
		return -1
	}
	if !p.env.Claim(f, hash) {
		return -1
	}
	slot := p.table.Insert(key, hash)
	if slot < 0 {
		p.env.Release(hash)
		p.notice.Reject(p.env, f, sys.EACCES)
		p.refuse(f, stats.TableFull)
		return -1
	}
	p.rec[slot] = record{peer: to, last: p.env.Now, fd: -1}
	if why, errno := p.connect(slot, key.GuestPort); errno != 0 {
		p.forget(slot)
		p.notice.Reject(p.env, f, errno)
		p.refuse(f, why)
		return -1
	}
	p.env.Guest.SawAddr(&key.Guest)
	p.wheel.Set(slot, p.env.Now+int64(Lifetime))
	p.env.Count.PingOpened++
	p.env.Count.PingFlows = uint64(p.table.Len())
	return slot
}

// connect makes the socket of the flow at slot. On an error it returns the drop
// reason too, and leaves the socket to forget.
func (p *Ping) connect(slot int32, ident uint16) (stats.Reason, sys.Errno) {
	r := &p.rec[slot]
	v6 := !r.peer.Is4()
	fd, errno := sys.PingSocket(v6)
	if errno != 0 {
		r.fd = -1
		p.complain(errno)
		return stats.NoSocket, errno
	}
	r.fd = fd
	sys.QueueErrors(fd, v6)
	if errno := p.bind(r, ident); errno != 0 {
		return stats.NoSocket, errno
	}
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(&r.peer), !v6, 0, p.env.Rules.ScopeOf(&r.peer))
	if errno := sys.Connect(fd, &sa); errno != 0 {
		return stats.BadDest, errno
	}
	tok := flow.NewToken(flow.KindPing, p.table.Gen(slot), slot)
	return stats.NoSocket, p.env.Epoll.Add(fd, sys.EPOLLIN, uint64(tok))
}

// complain warns once that there will be no ping.
func (p *Ping) complain(errno sys.Errno) {
	if p.warn == nil || errno == sys.EMFILE || errno == sys.ENFILE {
		return
	}
	p.warn(fmt.Errorf("make ping socket: %w: the guest's ping is not forwarded; "+
		"let net.ipv4.ping_group_range include a group of this process", errno))
	p.warn = nil
}

// bind binds to the guest's identifier, which is a ping socket's port; or to one
// that the kernel chooses, if another socket has that or a policy forbids it.
func (p *Ping) bind(r *record, ident uint16) sys.Errno {
	addr, ok := p.env.Source(r.fd, &r.peer)
	if !ok {
		return sys.ENETUNREACH
	}
	var sa sys.Sockaddr
	scope := p.env.Rules.ScopeOf(&addr)
	sa.SetInet((*[16]byte)(&addr), addr.Is4(), ident, scope)
	errno := sys.Bind(r.fd, &sa)
	if errno == sys.EADDRINUSE || errno == sys.EACCES || errno == sys.EPERM {
		sa.SetInet((*[16]byte)(&addr), addr.Is4(), 0, scope)
		errno = sys.Bind(r.fd, &sa)
	}
	return errno
}
