package env

import (
	"penne/internal/sys"
	"penne/internal/wire"
)

// BindSource gives fd, a stream socket of the host that is to connect to to, the
// source that the options ask for. Loopback is reached from loopback only.
func (e *Env) BindSource(fd int, to *wire.Addr) sys.Errno {
	r := e.Rules.Of(to)
	if to.IsLoopback() {
		return 0
	}
	if r.BindIf != "" && sys.BindToDevice(fd, r.BindIf) != nil {
		return sys.EADDRNOTAVAIL
	}
	if r.Bind.IsZero() {
		return 0
	}
	// The port is chosen with the destination in mind, so that more than one
	// range of ports' worth of connections is possible.
	sys.SetInt(fd, sys.IPPROTO_IP, sys.IP_BIND_ADDRESS_NO_PORT, 1)
	var sa sys.Sockaddr
	sa.SetInet((*[16]byte)(&r.Bind), r.Bind.Is4(), 0, e.Rules.ScopeOf(&r.Bind))
	return sys.Bind(fd, &sa)
}
