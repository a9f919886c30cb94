package engine

import (
	"errors"
	"fmt"

	"penne/internal/isolate"
	"penne/internal/netns"
	"penne/internal/sys"
	"penne/internal/wire"
	"penne/shard"
)

// openInside starts the thread that lives in the namespace, which makes sockets
// there once the capability to enter it is gone.
func (e *engine) openInside() (err error) {
	if e.inside, err = netns.NewWorker(e.handles.NetNS); err != nil {
		return err
	}
	if e.conf.Pasta.NoSplice {
		return nil
	}
	for family, pool := range map[int]**netns.Pool{sys.AF_INET: &e.pool4, sys.AF_INET6: &e.pool6} {
		if family == sys.AF_INET6 && !e.rules.V6.On || family == sys.AF_INET && !e.rules.V4.On {
			continue
		}
		if *pool, err = netns.NewPool(e.inside, family, sys.SOCK_STREAM, insidePool, func() { e.group.SocketsReady() }); err != nil {
			return fmt.Errorf("make sockets in the namespace: %w", err)
		}
	}
	return nil
}

// insidePool is how many sockets of each family wait for connections that
// bypass the tap.
const insidePool = 32

// bindPorts binds what is to be forwarded.
func (e *engine) bindPorts() error {
	f := &e.conf.Forward
	here := func(fn func() error) error { return fn() }
	for _, n := range []lane{
		{proto: wire.ProtoTCP, specs: f.TCPIn, run: here, low: e.handles.LowPorts},
		{proto: wire.ProtoUDP, specs: f.UDPIn, run: here, low: e.handles.LowPorts},
		{proto: wire.ProtoTCP, specs: f.TCPOut, run: e.inside.Do, inside: true},
		{proto: wire.ProtoUDP, specs: f.UDPOut, run: e.inside.Do, inside: true},
	} {
		n.v4, n.v6, n.freebind = e.rules.V4.On, e.rules.V6.On, f.Freebind
		if n.proto == wire.ProtoTCP && e.conf.Protocols.NoTCP || n.proto == wire.ProtoUDP && e.conf.Protocols.NoUDP {
			continue
		}
		if err := n.add(); err != nil {
			return err
		}
		e.ports.lanes = append(e.ports.lanes, &n)
	}
	return nil
}

// bypass is for connections that are local on both sides.
func (e *engine) bypass() shard.Bypass {
	p := &e.conf.Pasta
	return shard.Bypass{
		Off: p.NoSplice, Only: p.SpliceOnly, ToLoopback: p.HostLoToNSLo || p.SpliceOnly, Socket: e.insideSocket,
	}
}

// insideSocket takes a socket that was made in the namespace, or -1.
func (e *engine) insideSocket(v4 bool, proto uint8) int {
	pool := e.pool6
	if v4 {
		pool = e.pool4
	}
	if pool == nil {
		return -1
	}
	if fd, ok := pool.Take(); ok {
		return fd
	}
	return -1
}

// sandbox gives up what serving does not need.
func (e *engine) sandbox() error {
	caps := sys.CapNetBindService // for -T and -U
	if e.inner != nil {
		caps |= sys.CapNetAdmin
	}
	_, err := isolate.Engine(isolate.Config{
		ChrootFallback: e.conf.Process.ChrootFallback, ReadFiles: true, WorkerCaps: caps, Worker: e.inside.Do,
	})
	if errors.Is(err, isolate.ErrCgo) {
		e.log.Warn(err.Error())
		err = nil
	}
	limitHeap()
	return err
}
