package shard

import (
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/udpx/relay"
)

// maxSpread is the most UDP ports with a socket for each shard. The others, say
// of a large range, have one socket each, which one shard serves.
const maxSpread = 64

// spread gives each shard a socket of its own for the UDP ports of the host in
// ls, if they are not too many: the kernel assigns each peer to one of them, so
// that its datagrams stay in order and a busy port is served by all shards.
func (g *Group) spread(ls []*Listener) {
	n := 0
	for _, l := range ls {
		if l.spreads() {
			n++
		}
	}
	if len(g.shards) == 1 || g.spreadPorts+n > maxSpread {
		return
	}
	for _, l := range ls {
		if l.spreads() && l.openMembers(len(g.shards)-1) {
			g.spreadPorts++
		}
	}
}

// unspread closes l's members, which no shard uses any more.
func (g *Group) unspread(l *Listener) {
	if len(l.members) == 0 {
		return
	}
	l.closeMembers()
	g.spreadPorts--
}

// spreads tells whether l may have a socket for each shard. Inside it may not:
// only another process can make sockets there.
func (l *Listener) spreads() bool { return l.Proto == wire.ProtoUDP && !l.Inside }

// openMembers makes n members, or none where the kernel forbids it, as for low
// ports.
func (l *Listener) openMembers(n int) bool {
	for range n {
		fd, errno := sys.JoinReusePort(l.FD, l.Device)
		if errno != 0 {
			l.closeMembers()
			return false
		}
		l.members = append(l.members, fd)
	}
	return true
}

// closeMembers closes the members.
func (l *Listener) closeMembers() {
	for _, fd := range l.members {
		sys.Close(fd)
	}
	l.members = nil
	sys.LeaveReusePort(l.FD)
}

// socketOf is the UDP socket of l that a shard, of so many, serves; -1: none.
func (l *Listener) socketOf(shard, shards int) int {
	switch {
	case len(l.members) > 0 && shard > 0:
		return l.members[shard-1]
	case len(l.members) == 0 && relay.Owner(l.Target, shards) != shard:
		return -1
	}
	return l.FD
}
