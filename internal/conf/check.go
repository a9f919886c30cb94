package conf

import (
	"cmp"
	"math"
	"net/netip"
	"strings"
)

// finish checks that options go together, and applies what they imply.
func (p *parser) finish(operands []string) error {
	steps := []func() error{
		func() error { return p.target(operands) },
		p.finishLogging,
		p.finishNet,
		p.finishProtocols,
		p.finishForward,
		p.finishDescriptor,
		p.finishPasta,
		p.finishPasst,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// target parses the operands: a process ID or a command.
func (p *parser) target(operands []string) error {
	if len(operands) == 0 {
		return nil
	}
	if p.c.Mode == ModePasst {
		return &Error{Text: p.c.Program + ": unexpected argument '" + operands[0] + "'", Usage: true}
	}
	a := &p.c.Pasta
	if numeric := strings.Trim(operands[0], "0123456789") == ""; len(operands) > 1 || operands[0] == "" || !numeric {
		if operands[0] == "" {
			return p.fail("the command's name is empty")
		}
		a.Command = operands
		return nil
	}
	pid, ok := parseInt(operands[0], 1, math.MaxInt32)
	if !ok {
		return p.fail("'%s' is no process ID", operands[0])
	}
	a.PID = pid
	return nil
}

func (p *parser) finishLogging() error {
	log := &p.c.Logging
	switch {
	case p.quiet && p.trace:
		return p.fail("--quiet and --trace exclude each other")
	case p.quiet && p.debug:
		return p.fail("--quiet and --debug exclude each other")
	case p.quiet:
		log.Verbosity = Quiet
	case p.trace:
		log.Verbosity = Trace
	case p.debug:
		log.Verbosity = Debug
	}
	if path := p.c.Process.ControlPath; path != "" {
		p.warnf("--conf-path %s has no effect: forwarded ports cannot be changed at run time yet", path)
	}
	if log.Stats != 0 && !p.c.Process.Foreground {
		return p.fail("--stats needs --foreground")
	}
	return nil
}

func (p *parser) finishNet() error {
	n := &p.c.Net
	switch {
	case n.IPv4Only && n.IPv6Only:
		return p.fail("--ipv4-only and --ipv6-only exclude each other")
	case p.mask4 != 0 && p.cidr4 != 0:
		return p.fail("--netmask and the prefix length of --address %s/%d exclude each other", n.Addr4, p.cidr4)
	}
	n.Bits4 = max(p.mask4, p.cidr4)
	if n.MTU != 0 && n.MTU < MinMTU6 && !n.IPv4Only {
		p.warnf("an MTU of %d is too small for IPv6, which needs %d", n.MTU, MinMTU6)
	}
	if p.noMapGW {
		n.HostLoopback4.Off = !n.HostLoopback4.Addr.IsValid()
		n.HostLoopback6.Off = !n.HostLoopback6.Addr.IsValid()
	}
	p.warnFamily("--address", n.Addr4, n.Addr6)
	p.warnFamily("--gateway", n.Gateway4, n.Gateway6)
	p.warnFamily("--outbound", n.Outbound4, n.Outbound6)
	return nil
}

// warnFamily warns of an address of a family that is switched off. Callers such
// as Podman set some options to addresses of both families, so this is for
// options that people set.
func (p *parser) warnFamily(option string, v4, v6 netip.Addr) {
	if p.c.Net.IPv6Only && v4.IsValid() {
		p.warnf("%s %s has no effect with --ipv6-only", option, v4)
	}
	if p.c.Net.IPv4Only && v6.IsValid() {
		p.warnf("%s %s has no effect with --ipv4-only", option, v6)
	}
}

func (p *parser) finishProtocols() error {
	s, d := &p.c.Protocols, &p.c.DNS
	s.NoNDP = s.NoNDP || s.NoICMP
	s.NoRA = s.NoRA || s.NoNDP
	if p.c.Mode == ModePasst {
		d.Announce, d.AnnounceSearch = !p.noDHCPDNS, !p.noDHCPSearch
	}
	return nil
}

func (p *parser) finishForward() error {
	f, mode := &p.c.Forward, p.c.Mode
	f.TCPIn = p.tcpIn.resolve("-t", mode)
	f.UDPIn = p.udpIn.inherit("-u", mode, &p.tcpIn)
	f.TCPOut = p.tcpOut.resolve("-T", mode)
	f.UDPOut = p.udpOut.inherit("-U", mode, &p.tcpOut)
	for _, specs := range [][]PortSpec{f.TCPIn, f.UDPIn, f.TCPOut, f.UDPOut} {
		if err := p.checkSpecs(specs); err != nil {
			return err
		}
	}
	s := &p.c.Pasta
	loopback := (s.HostLoToNSLo || s.SpliceOnly) && !s.NoSplice
	if err := cmp.Or(breakLoops(f.TCPIn, f.TCPOut, loopback), breakLoops(f.UDPIn, f.UDPOut, loopback)); err != nil {
		return p.fail("%v", err)
	}
	if p.c.Protocols.NoTCP {
		f.TCPIn, f.TCPOut = nil, nil
	}
	if p.c.Protocols.NoUDP {
		f.UDPIn, f.UDPOut = nil, nil
	}
	return nil
}

// checkSpecs checks the occurrences of one forwarding option.
func (p *parser) checkSpecs(specs []PortSpec) error {
	for i := range specs {
		s := &specs[i]
		switch {
		case s.Auto && p.c.Mode == ModePasst:
			return p.fail("invalid port specification for option '%s': 'auto' is for pasta mode only", s.Text)
		case p.c.Net.IPv4Only && s.NamesFamily(true):
			return p.fail("invalid port specification for option '%s': an IPv6 address with --ipv4-only", s.Text)
		case p.c.Net.IPv6Only && s.NamesFamily(false):
			return p.fail("invalid port specification for option '%s': an IPv4 address with --ipv6-only", s.Text)
		}
	}
	if err := checkOverlap(specs); err != nil {
		return p.fail("%v", err)
	}
	return nil
}

func (p *parser) finishDescriptor() error {
	if p.descriptor == 0 {
		return nil
	}
	if p.c.Mode == ModePasta {
		p.c.Pasta.FD = p.descriptor
		return nil
	}
	if p.c.Passt.Socket != "" {
		return p.fail("--socket and --fd exclude each other")
	}
	p.c.Passt.FD, p.c.Passt.OneOff = p.descriptor, true
	return nil
}

func (p *parser) finishPasta() error {
	a := &p.c.Pasta
	switch {
	case p.c.Mode != ModePasta:
		return nil
	case a.Netns != "" && a.PID != 0:
		return p.fail("--netns and PID %d exclude each other", a.PID)
	case a.Netns != "" && len(a.Command) != 0:
		return p.fail("--netns and the command '%s' exclude each other", a.Command[0])
	case a.Userns != "" && a.NetnsOnly:
		return p.fail("--userns and --netns-only exclude each other")
	case a.SpliceOnly && a.NoSplice:
		return p.fail("--splice-only and --no-splice exclude each other")
	case a.SpliceOnly && a.FD != 0:
		return p.fail("--splice-only and --fd exclude each other")
	}
	if a.Netns != "" && a.Userns == "" {
		a.NetnsOnly = true
	}
	p.warnDeprecated("--no-copy-routes", a.NoCopyRoutes)
	p.warnDeprecated("--no-copy-addrs", a.NoCopyAddrs)
	return nil
}

func (p *parser) finishPasst() error {
	s := &p.c.Passt
	switch {
	case p.c.Mode != ModePasst:
		return nil
	case (s.RepairPath != "" || s.NoRepair) && !s.VhostUser:
		return p.fail("--repair-path needs --vhost-user")
	}
	if p.c.Process.Queues > 1 && !s.VhostUser {
		p.warnf("--queues %d has no effect: a stream of frames has one queue", p.c.Process.Queues)
	}
	p.warnDeprecated("--migrate-exit", s.MigrateExit)
	p.warnDeprecated("--migrate-no-linger", s.MigrateNoLinger)
	return nil
}

func (p *parser) warnDeprecated(option string, given bool) {
	if given {
		p.warnf("%s is deprecated", option)
	}
}
