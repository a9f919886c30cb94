package env

import (
	"penne/internal/sys"
	"penne/internal/wire"
)

// Source applies --outbound and --outbound-if to fd, a socket that is to connect to
// to: it binds fd to the interface, and returns the address that is to be bound,
// unspecified if any will do. Loopback destinations are reached from any source. It
// returns false if there is no such interface.
func (e *Env) Source(fd int, to *wire.Addr) (addr wire.Addr, ok bool) {
	addr = wire.Unspecified(to.Is4())
	if to.IsLoopback() {
		return addr, true
	}
	r := e.Rules.Of(to)
	if !r.Bind.IsZero() {
		addr = r.Bind
	}
	return addr, r.BindIf == "" || sys.BindToDevice(fd, r.BindIf) == nil
}

// BindSource binds fd, a stream socket that is to connect to to, as Source says.
func (e *Env) BindSource(fd int, to *wire.Addr) sys.Errno {
	addr, ok := e.Source(fd, to)
	if !ok {
		return sys.EADDRNOTAVAIL
	}
	if addr.IsUnspecified() {
		return 0
	}
	// Connect chooses the port then, unique for its destination only, so that
	// there can be more connections than ephemeral ports.
	sys.SetInt(fd, sys.IPPROTO_IP, sys.IP_BIND_ADDRESS_NO_PORT, 1)
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(&addr), addr.Is4(), 0, e.Rules.ScopeOf(&addr))
	return sys.Bind(fd, &sa)
}
