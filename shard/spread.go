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
// ls, if they are not too many: the kernel leads each peer to one of them, so
// that the order of its datagrams is kept and a busy port is served by all
// shards.
func (g *Group) spread(ls []*Listener) {
	n := 0
	for _, l := range ls {
		if l.spreads() {
			n++
		}
	}
	if len(g.shards) == 1 || g.nspread+n > maxSpread {
		return
	}
	for _, l := range ls {
		if l.spreads() && l.multiply(len(g.shards)-1) {
			g.nspread++
		}
	}
}

// unspread closes l's twins, which no shard uses any more.
func (g *Group) unspread(l *Listener) {
	if len(l.twins) == 0 {
		return
	}
	l.single()
	g.nspread--
}

// spreads tells whether l may have a socket for each shard. Inside it may not:
// sockets are made there by others.
func (l *Listener) spreads() bool { return l.Proto == wire.ProtoUDP && !l.Inside }

// multiply makes n twins, or none where that is not allowed, as with low ports.
func (l *Listener) multiply(n int) bool {
	for range n {
		fd, errno := sys.JoinReusePort(l.FD, l.Device)
		if errno != 0 {
			l.single()
			return false
		}
		l.twins = append(l.twins, fd)
	}
	return true
}

// single closes the twins.
func (l *Listener) single() {
	for _, fd := range l.twins {
		sys.Close(fd)
	}
	l.twins = nil
	sys.LeaveReusePort(l.FD)
}

// socketOf is the UDP socket that a shard, of so many, serves for l; -1: none.
func (l *Listener) socketOf(shard, shards int) int {
	switch {
	case len(l.twins) > 0 && shard > 0:
		return l.twins[shard-1]
	case len(l.twins) == 0 && relay.Owner(l.Target, shards) != shard:
		return -1
	}
	return l.FD
}
