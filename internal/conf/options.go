package conf

// scope says which modes have an option.
type scope uint8

const (
	both scope = iota
	pastaOnly
	passtOnly
)

// group is a section of the usage text.
type group uint8

const (
	general group = iota
	network
	naming
	protocols
	forwarding
	pastaGroup
	passtGroup
	groupCount
)

// groupTitles are the headings of the usage text.
var groupTitles = [groupCount]string{
	general:    "General",
	network:    "Network seen by the guest, and ways out of the host",
	naming:     "Names",
	protocols:  "Protocols",
	forwarding: "Port forwarding",
	pastaGroup: "pasta only",
	passtGroup: "passt only",
}

// option is one entry of the table from which both the parser and the usage text
// are made.
type option struct {
	long  string
	short string // one letter, or empty
	arg   string // name of the argument; empty for none
	scope scope
	group group
	help  string // lines of the usage text
	// alias is the long name of the option this one is a synonym of; a
	// prefix of both is not ambiguous.
	alias string
	// action, if not Run, ends parsing.
	action Action
	// set takes the value; it is empty where arg is.
	set func(value string) error
}

// setTrue returns a setter for a boolean option.
func setTrue(b *bool) func(string) error {
	return func(string) error {
		*b = true
		return nil
	}
}

// options is the whole table, in the order of the usage text. Setters store
// into p.
func (p *parser) options() []option {
	var t []option
	t = append(t, p.generalOptions()...)
	t = append(t, p.networkOptions()...)
	t = append(t, p.nameOptions()...)
	t = append(t, p.protocolOptions()...)
	t = append(t, p.forwardOptions()...)
	t = append(t, p.pastaOptions()...)
	t = append(t, p.passtOptions()...)
	return t
}

func (p *parser) generalOptions() []option {
	log, proc := &p.c.Logging, &p.c.Process
	return []option{
		{long: "debug", short: "d", help: "log details, for whoever looks for a fault", set: setTrue(&p.debug)},
		{long: "trace", help: "log single packets too; implies -d", set: setTrue(&p.trace)},
		{long: "quiet", short: "q", help: "log nothing but warnings and errors", set: setTrue(&p.quiet)},
		{long: "stats", arg: "SEC", help: "print event counts, at most once in SEC seconds and only\nafter something happened; needs -f", set: p.stats},
		{long: "foreground", short: "f", help: "stay attached instead of going to the background", set: setTrue(&proc.Foreground)},
		{long: "stderr", short: "e", help: "accepted for older callers, without effect", set: setTrue(&log.Stderr)},
		{long: "log-file", short: "l", arg: "PATH", help: "log to a file, not to standard error or syslog", set: p.path(&log.File)},
		{long: "log-size", arg: "BYTES", help: "limit of the log file, oldest lines go first; default 1048576", set: p.logSize},
		{long: "log-json", help: "log one JSON object per line", set: setTrue(&log.JSON)},
		{long: "runas", arg: "ID", help: "become UID, UID:GID, LOGIN or LOGIN:GROUP; by default nobody\nif started as root", set: p.runAs},
		{long: "conf-path", short: "c", arg: "PATH", help: "socket for changing forwarded ports at run time; not\nserved yet", set: p.socketPath(&proc.ControlPath)},
		{long: "chroot-fallback", help: "sandbox by chroot where pivot_root is refused", set: setTrue(&proc.ChrootFallback)},
		{long: "queues", arg: "N", help: "queues and worker threads, 1 to 16; default 0, one per CPU", set: p.queues},
		{long: "pin", help: "tie each worker thread to a CPU", set: setTrue(&proc.Pin)},
		{long: "pcap", short: "p", arg: "FILE", help: "capture the guest's frames to a file", set: p.path(&log.Pcap)},
		{long: "pid", short: "P", arg: "FILE", help: "write the process ID to a file once set up", set: p.path(&proc.PIDFile)},
		{long: "fd", short: "F", arg: "FD", help: "use an open tap (pasta), or an open, connected socket, and\nleave when it is closed (passt)", set: p.fd},
		{long: "help", short: "h", help: "print this text", action: PrintHelp},
		{long: "version", help: "print the version", action: PrintVersion},
	}
}

func (p *parser) networkOptions() []option {
	n := &p.c.Net
	t := []option{
		{long: "mtu", short: "m", arg: "MTU", help: "MTU to announce and set, 0 for none; default 65520", set: p.mtu},
		{long: "address", short: "a", arg: "ADDR[/LEN]", help: "address of the guest, once per family; default is the host's", set: p.address},
		{long: "netmask", short: "n", arg: "MASK", help: "IPv4 mask, dotted or as number of bits", set: p.netmask},
		{long: "mac-addr", short: "M", arg: "MAC", help: "our own Ethernet address; default 9a:55:9a:55:9a:55", set: p.mac},
		{long: "gateway", short: "g", arg: "ADDR", help: "router to announce, once per family; default is the host's", set: p.addrPair(isHost, &n.Gateway4, &n.Gateway6)},
		{long: "interface", short: "i", arg: "NAME", help: "host interface to take addresses and routes from", set: p.ifname(&n.Interface)},
		{long: "outbound", short: "o", arg: "ADDR", help: "source address of outbound sockets, once per family", set: p.addrPair(isSource, &n.Outbound4, &n.Outbound6)},
		{long: "outbound-if4", arg: "NAME", help: "interface of outbound IPv4 sockets, also the template", set: p.ifname(&n.OutboundIf4)},
		{long: "outbound-if6", arg: "NAME", help: "interface of outbound IPv6 sockets, also the template", set: p.ifname(&n.OutboundIf6)},
		{long: "map-host-loopback", arg: "ADDR", help: "address inside that leads to the host's loopback, once per\nfamily, or none; default is the gateway", set: p.mapLoopback},
		{long: "no-map-gw", help: "same as --map-host-loopback none", set: setTrue(&p.noMapGW)},
		{long: "map-guest-addr", arg: "ADDR", help: "address inside that leads to the host at the address it\nshares with the guest, once per family, or none (default)", set: p.mapGuest},
		{long: "ipv4-only", short: "4", help: "no IPv6", set: setTrue(&n.IPv4Only)},
		{long: "ipv6-only", short: "6", help: "no IPv4", set: setTrue(&n.IPv6Only)},
	}
	return withGroup(network, t)
}

func (p *parser) nameOptions() []option {
	d := &p.c.DNS
	t := []option{
		{long: "dns", short: "D", arg: "ADDR", help: "resolver to announce or forward to, repeatable,\nor none; default is resolv.conf's", set: p.dns},
		{long: "dns-forward", arg: "ADDR", help: "address inside to redirect to the host's resolver,\nonce per family", set: p.addrPair(isDNS, &d.Forward4, &d.Forward6)},
		{long: "dns-host", arg: "ADDR", help: "resolver that --dns-forward leads to, once per family", set: p.addrPair(isDNS, &d.Host4, &d.Host6)},
		{long: "search", short: "S", arg: "LIST", help: "search domains, apart by spaces, or none; default is\nresolv.conf's", set: p.search},
		{long: "dhcp-dns", scope: pastaOnly, help: "announce resolvers by DHCP, DHCPv6 and NDP", set: setTrue(&d.Announce)},
		{long: "no-dhcp-dns", scope: passtOnly, help: "announce no resolvers", set: setTrue(&p.noDHCPDNS)},
		{long: "dhcp-search", scope: pastaOnly, help: "announce the search list by DHCP, DHCPv6 and NDP", set: setTrue(&d.AnnounceSearch)},
		{long: "no-dhcp-search", scope: passtOnly, help: "announce no search list", set: setTrue(&p.noDHCPSearch)},
		{long: "hostname", short: "H", arg: "NAME", help: "host name to announce by DHCP", set: p.domain(&p.c.Net.Hostname)},
		{long: "fqdn", arg: "NAME", help: "full name to announce by DHCP and DHCPv6", set: p.domain(&p.c.Net.FQDN)},
	}
	return withGroup(naming, t)
}

func (p *parser) protocolOptions() []option {
	s := &p.c.Protocols
	t := []option{
		{long: "no-tcp", help: "drop TCP", set: setTrue(&s.NoTCP)},
		{long: "no-udp", help: "drop UDP", set: setTrue(&s.NoUDP)},
		{long: "no-icmp", help: "drop ICMP and ICMPv6 echo; implies --no-ndp", set: setTrue(&s.NoICMP)},
		{long: "no-dhcp", help: "no DHCP server", set: setTrue(&s.NoDHCP)},
		{long: "no-ndp", help: "no neighbour discovery; implies --no-ra", set: setTrue(&s.NoNDP)},
		{long: "no-dhcpv6", help: "no DHCPv6 server", set: setTrue(&s.NoDHCPv6)},
		{long: "no-ra", help: "no router advertisements", set: setTrue(&s.NoRA)},
	}
	return withGroup(protocols, t)
}

func (p *parser) forwardOptions() []option {
	t := []option{
		{long: "tcp-ports", short: "t", arg: "SPEC", help: "TCP ports to forward to the guest, repeatable; default auto\nfor pasta, none for passt", set: p.ports("-t", &p.tcpIn)},
		{long: "udp-ports", short: "u", arg: "SPEC", help: "UDP ports to forward to the guest; default as for -t, and\nthe ports of -t", set: p.ports("-u", &p.udpIn)},
		{long: "tcp-ns", short: "T", arg: "SPEC", scope: pastaOnly, help: "TCP ports to forward to the host; default auto", set: p.ports("-T", &p.tcpOut)},
		{long: "udp-ns", short: "U", arg: "SPEC", scope: pastaOnly, help: "UDP ports to forward to the host; default auto, and the\nports of -T", set: p.ports("-U", &p.udpOut)},
		{long: "freebind", help: "listen on addresses the host does not have (yet)", set: setTrue(&p.c.Forward.Freebind)},
	}
	return withGroup(forwarding, t)
}

func (p *parser) pastaOptions() []option {
	a := &p.c.Pasta
	t := []option{
		{long: "ns-ifname", short: "I", arg: "NAME", help: "name of the tap; default as the template, else tap0", set: p.tapName},
		{long: "userns", arg: "PATH", help: "user namespace to join", set: p.path(&a.Userns)},
		{long: "netns", arg: "PATH|NAME", help: "network namespace to join; a name is looked up in /run/netns", set: p.netns},
		{long: "netns-only", help: "join no user namespace, and make none", set: setTrue(&a.NetnsOnly)},
		{long: "no-netns-quit", help: "stay when the namespace of --netns is deleted", set: setTrue(&a.NoNetnsQuit)},
		{long: "config-net", help: "set addresses, routes and the link inside", set: setTrue(&a.ConfigNet)},
		{long: "no-copy-routes", help: "deprecated: with --config-net, only a default route", set: setTrue(&a.NoCopyRoutes)},
		{long: "no-copy-addrs", help: "deprecated: with --config-net, only one address", set: setTrue(&a.NoCopyAddrs)},
		{long: "ns-mac-addr", arg: "MAC", help: "Ethernet address of the tap; default is random", set: p.nsMAC},
		{long: "host-lo-to-ns-lo", help: "let loopback connections arrive at loopback inside", set: setTrue(&a.HostLoToNSLo)},
		{long: "no-splice", help: "no bypass for local connections of -t and -u: through the tap", set: setTrue(&a.NoSplice)},
		{long: "splice-only", help: "only the bypass: forward loopback, and make no tap", set: setTrue(&a.SpliceOnly)},
	}
	for i := range t {
		t[i].scope = pastaOnly
	}
	return withGroup(pastaGroup, t)
}

func (p *parser) passtOptions() []option {
	s := &p.c.Passt
	t := []option{
		{long: "socket", short: "s", arg: "PATH", help: "socket to listen on; default /tmp/passt_N.socket, N up to 64", set: p.socketPath(&s.Socket)},
		{long: "socket-path", alias: "socket", arg: "PATH", help: "same as --socket", set: p.socketPath(&s.Socket)},
		{long: "vhost-user", help: "serve vhost-user instead of a stream of frames", set: setTrue(&s.VhostUser)},
		{long: "print-capabilities", help: "print what the vhost-user back-end can do, as JSON", action: PrintCapabilities},
		{long: "repair-path", arg: "PATH", help: "socket of the migration helper, or none; default is the\nsocket's path and .repair", set: p.repairPath},
		{long: "migrate-exit", help: "deprecated: leave once migrated away", set: setTrue(&s.MigrateExit)},
		{long: "migrate-no-linger", help: "deprecated: close sockets once migrated away", set: setTrue(&s.MigrateNoLinger)},
		{long: "one-off", short: "1", help: "leave after the first client", set: setTrue(&s.OneOff)},
	}
	for i := range t {
		t[i].scope = passtOnly
	}
	return withGroup(passtGroup, t)
}

// withGroup sets the heading of all options in t.
func withGroup(g group, t []option) []option {
	for i := range t {
		t[i].group = g
	}
	return t
}
