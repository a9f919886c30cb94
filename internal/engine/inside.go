package engine

import (
	"errors"
	"fmt"
	"slices"

	"penne/internal/conf"
	"penne/internal/isolate"
	"penne/internal/netns"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard"
)

// openNamespace starts a thread inside the namespace, which can make sockets there
// when we no longer have the capability to enter it.
func (e *engine) openNamespace() (err error) {
	if e.nsWorker, err = netns.NewWorker(e.handles.NetNS); err != nil {
		return err
	}
	if e.conf.Pasta.NoSplice {
		return nil
	}
	e.nsSockets = map[socketKind]*netns.Pool{}
	for _, kind := range []socketKind{{true, wire.ProtoTCP}, {false, wire.ProtoTCP}, {true, wire.ProtoUDP}, {false, wire.ProtoUDP}} {
		if kind.v4 && !e.rules.V4.On || !kind.v4 && !e.rules.V6.On || !e.forwardsIn(kind.proto) {
			continue
		}
		pool, err := netns.NewPool(e.nsWorker, sys.Family(kind.v4), kind.typ(), poolSize, func() { e.group.SocketsReady() })
		if err != nil {
			return fmt.Errorf("make sockets in the namespace: %w", err)
		}
		e.nsSockets[kind] = pool
	}
	return nil
}

// forwardsIn reports whether any port of the host is forwarded, or may be.
func (e *engine) forwardsIn(proto uint8) bool {
	if proto == wire.ProtoUDP {
		return len(e.conf.Forward.UDPIn) > 0
	}
	return len(e.conf.Forward.TCPIn) > 0
}

// poolSize is how many sockets of each kind are kept ready for connections that
// bypass the tap.
const poolSize = 32

// bindPorts binds the ports to be forwarded.
func (e *engine) bindPorts() error {
	f := &e.conf.Forward
	here := func(fn func() error) error { return fn() }
	lanes := []lane{
		{proto: wire.ProtoTCP, specs: f.TCPIn, run: here, privileged: e.privilegedPorts(true)},
		{proto: wire.ProtoUDP, specs: f.UDPIn, run: here, privileged: e.privilegedPorts(false)},
		{proto: wire.ProtoTCP, specs: f.TCPOut, run: e.nsWorker.Do, inside: true},
		{proto: wire.ProtoUDP, specs: f.UDPOut, run: e.nsWorker.Do, inside: true},
	}
	for i := range lanes {
		n := &lanes[i]
		n.v4, n.v6, n.freebind = e.rules.V4.On, e.rules.V6.On, f.Freebind
		n.log, n.maxAll = e.log, maxSocketsOfAll(f)
		if n.proto == wire.ProtoTCP && e.conf.Protocols.NoTCP || n.proto == wire.ProtoUDP && e.conf.Protocols.NoUDP {
			continue
		}
		if err := n.bind(); err != nil {
			return err
		}
		e.ports.lanes = append(e.ports.lanes, n)
	}
	return nil
}

// privilegedPorts are the sockets of a protocol that the launcher bound.
func (e *engine) privilegedPorts(tcp bool) (out []netns.PrivilegedPort) {
	for _, p := range e.handles.PrivilegedPorts {
		if p.TCP == tcp {
			out = append(out, p)
		}
	}
	return out
}

// maxSocketsOfAll is how many sockets each "all" may have: together half of the
// descriptors; the other half is for flows.
func maxSocketsOfAll(f *conf.Forward) int {
	count := 0
	for _, spec := range slices.Concat(f.TCPIn, f.UDPIn, f.TCPOut, f.UDPOut) {
		if spec.All {
			count++
		}
	}
	return sys.RaiseFileLimit() / 2 / max(count, 1)
}

// bypass configures the bypass of the tap for local connections.
func (e *engine) bypass() shard.Bypass {
	p := &e.conf.Pasta
	return shard.Bypass{
		Off: p.NoSplice, Only: p.SpliceOnly, ToLoopback: p.HostLoToNSLo || p.SpliceOnly, Socket: e.insideSocket,
		Scope: uint32(e.nsIndex),
	}
}

// insideSocket takes a socket that was made in the namespace: shard.Bypass.
func (e *engine) insideSocket(v4 bool, proto uint8) (fd int, errno sys.Errno) {
	pool := e.nsSockets[socketKind{v4, proto}]
	if pool == nil {
		return -1, sys.EAFNOSUPPORT
	}
	fd, ok := pool.Take()
	if !ok {
		return -1, sys.EAGAIN
	}
	return fd, 0
}

// socketKind is a kind of socket that is kept ready in the namespace.
type socketKind struct {
	v4    bool
	proto uint8
}

func (k socketKind) typ() int {
	if k.proto == wire.ProtoUDP {
		return sys.SOCK_DGRAM
	}
	return sys.SOCK_STREAM
}

// sandbox drops privileges that serving does not need.
func (e *engine) sandbox() error {
	caps := sys.CapNetBindService // for -T and -U
	if e.nsConn != nil {
		caps |= sys.CapNetAdmin
	}
	err := isolate.Engine(isolate.Config{
		ChrootFallback: e.conf.Process.ChrootFallback, ReadFiles: true, WorkerCaps: caps, Worker: e.nsWorker.Do,
	})
	if errors.Is(err, isolate.ErrCgo) {
		e.log.Warn(err.Error())
		err = nil
	}
	limitHeap()
	return err
}
