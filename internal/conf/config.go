// Package conf turns a command line into a checked, plain structure.
//
// It owns the option table, the port grammar, the usage text and the wording of
// every command line error. It reads nothing but its arguments: names of
// interfaces, files and users are checked for their syntax only, not for their
// existence. Nothing here prints or exits: [Parse] returns a [Config], or an
// [*Error] that says what is wrong.
//
// The caller is cmd/penne, once per process: launcher and engine each parse the
// same line. A Config holds only plain values.
package conf

import (
	"net/netip"
	"time"
)

// Defaults and limits of options.
const (
	// DefaultMTU is announced to the guest unless --mtu is given: the
	// payload of a 65535 byte frame with a 14 byte Ethernet header, rounded
	// down to a multiple of four.
	DefaultMTU = 65520
	// MaxMTU is the largest MTU accepted, in bytes.
	MaxMTU = 65520
	// MinMTU is the least MTU of an IPv4 link (RFC 791), in bytes.
	MinMTU = 68
	// MinMTU6 is the least MTU of an IPv6 link (RFC 8200 section 5).
	MinMTU6 = 1280
	// DefaultLogSize limits a log file, in bytes.
	DefaultLogSize = 1 << 20
	// MinLogSize is the smallest limit of a log file, in bytes: enough for
	// a few of the longest lines.
	MinLogSize = 4096
	// MaxQueues is the largest number of tap queues, hence of shards.
	MaxQueues = 16
	// MaxDNS is how many resolvers can be given per address family.
	MaxDNS = 3
	// MaxSearch is how many search domains can be given.
	MaxSearch = 32
	// NetnsDir is where ip-netns(8) binds namespaces by name.
	NetnsDir = "/run/netns"
	// NoAddress is the word that switches an address option off.
	NoAddress = "none"
)

// DefaultMAC is our own Ethernet address as the guest sees it, unless
// --mac-addr is given: locally administered, unicast.
var DefaultMAC = [6]byte{0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55}

// Mode is the personality: what is on the Layer-2 side.
type Mode uint8

const (
	// ModePasta joins a network namespace through a tap.
	ModePasta Mode = iota
	// ModePasst joins a virtual machine through a socket.
	ModePasst
)

// String returns the name of the mode's program.
func (m Mode) String() string {
	if m == ModePasst {
		return "passt"
	}
	return "pasta"
}

// Action is what the command line asks for.
type Action uint8

const (
	// Run is the ordinary case: serve.
	Run Action = iota
	// PrintHelp asks for [Usage] on stdout, then exit status 0.
	PrintHelp
	// PrintVersion asks for [VersionText] on stdout, then exit status 0.
	PrintVersion
	// PrintCapabilities asks for the vhost-user back-end capability JSON
	// on stdout, then exit status 0 (passt only).
	PrintCapabilities
)

// Verbosity is how much is logged. Larger logs more.
type Verbosity int8

const (
	// Quiet logs warnings and errors only (-q).
	Quiet Verbosity = iota - 1
	// Normal adds informational lines, the default.
	Normal
	// Debug adds detail per flow and event (-d).
	Debug
	// Trace adds single packets (--trace).
	Trace
)

// RunAs names the user and group to run as (--runas). Names are not resolved
// here: that would take the password database.
type RunAs struct {
	// UID and GID are valid if HasUID and HasGID.
	UID, GID uint32
	// HasUID and HasGID are set if the part was given as a number.
	HasUID, HasGID bool
	// Login and Group are the parts given as names, else empty. Without
	// Group and HasGID the user's own primary group is meant.
	Login, Group string
}

// Mapping is the address inside that stands for something on the host, for one
// address family.
type Mapping struct {
	// Off switches the mapping off.
	Off bool
	// Addr is the address inside. The zero Addr with Off unset means the
	// default of the option.
	Addr netip.Addr
}

// Config is a checked command line. Zero values mean "not given" unless a
// field's comment says otherwise. It is read-only once Parse has returned.
type Config struct {
	// Program is our name in messages: the base name of argv[0], or the
	// mode's name if that was given as an argument.
	Program string
	// Mode is pasta or passt.
	Mode Mode
	// Action is what to do; unless it is Run, nothing below is meaningful.
	Action Action
	// Warnings are lines to be logged at warning level once logging works:
	// deprecated options, odd but usable values.
	Warnings []string

	Logging   Logging
	Process   Process
	Net       Net
	DNS       DNS
	Forward   Forward
	Pasta     Pasta
	Passt     Passt
	Protocols Protocols
}

// Logging says what is reported, and where to.
type Logging struct {
	// Verbosity is set by -q, -d and --trace.
	Verbosity Verbosity
	// File is the path given with --log-file, which replaces syslog and
	// standard error.
	File string
	// Size limits File, in bytes (--log-size); never zero after Parse.
	Size int64
	// JSON asks for one JSON object per line (--log-json).
	JSON bool
	// Stderr is set by -e, which has no effect any more.
	Stderr bool
	// Stats is the shortest time between two tables of event counts
	// (--stats); zero for none. It needs Process.Foreground.
	Stats time.Duration
	// Pcap is the path of the capture file (--pcap).
	Pcap string
}

// Process is about the process itself.
type Process struct {
	// Foreground keeps it attached (-f).
	Foreground bool
	// RunAs is the user and group to run as, nil if not given.
	RunAs *RunAs
	// PIDFile is the path of the PID file (--pid).
	PIDFile string
	// ControlPath is the path of the run-time configuration socket
	// (--conf-path), which is not implemented: Parse warns of it.
	ControlPath string
	// ChrootFallback permits chroot where pivot_root is refused
	// (--chroot-fallback).
	ChrootFallback bool
	// Queues is the number of tap queues and shards, 1 to MaxQueues;
	// zero means one per usable CPU (--queues).
	Queues int
	// Pin asks for one CPU per shard (--pin).
	Pin bool
}

// Net is the network configuration of the guest, and how we reach the host's
// network.
type Net struct {
	// MTU is what is announced and set, in bytes; zero announces none
	// (-m 0).
	MTU int
	// Addr4 and Addr6 are the guest's addresses (-a); invalid means copied
	// from the template interface.
	Addr4, Addr6 netip.Addr
	// Bits4 and Bits6 are prefix lengths (-a ADDR/LEN or -n); zero means
	// derived.
	Bits4, Bits6 int
	// MAC is our own address (-M); never zero after Parse.
	MAC [6]byte
	// Gateway4 and Gateway6 are the routers to announce (-g).
	Gateway4, Gateway6 netip.Addr
	// Interface is the template for addresses and routes (-i). If empty,
	// OutboundIf4 and OutboundIf6 are, each for its family.
	Interface string
	// Outbound4 and Outbound6 are source addresses of outbound sockets (-o).
	Outbound4, Outbound6 netip.Addr
	// OutboundIf4 and OutboundIf6 are interfaces to bind outbound
	// sockets to (--outbound-if4, --outbound-if6).
	OutboundIf4, OutboundIf6 string
	// IPv4Only and IPv6Only restrict the families (-4, -6); never both.
	IPv4Only, IPv6Only bool
	// HostLoopback4 and HostLoopback6 are the addresses inside that stand
	// for the host's loopback (--map-host-loopback, --no-map-gw); the
	// default is the gateway.
	HostLoopback4, HostLoopback6 Mapping
	// GuestAddr4 and GuestAddr6 are the addresses inside that stand for the
	// host's own address, which the guest shares (--map-guest-addr);
	// invalid means none.
	GuestAddr4, GuestAddr6 netip.Addr
	// Hostname is announced as DHCP option 12 (-H).
	Hostname string
	// FQDN is announced as DHCP option 81 and DHCPv6 option 39 (--fqdn).
	FQDN string
}

// DNS is the resolver configuration of the guest.
type DNS struct {
	// Servers are the resolvers to announce (-D), at most MaxDNS of each
	// family; empty means those of resolv.conf.
	Servers []netip.Addr
	// None is set by -D none: no resolver at all.
	None bool
	// Forward4 and Forward6 are addresses inside that are redirected to
	// the host's resolver (--dns-forward).
	Forward4, Forward6 netip.Addr
	// Host4 and Host6 are where Forward4 and Forward6 lead (--dns-host);
	// invalid means the first one in resolv.conf.
	Host4, Host6 netip.Addr
	// Search is the domain search list (-S); empty means resolv.conf's.
	Search []string
	// SearchNone is set by -S none: no search list.
	SearchNone bool
	// Announce and AnnounceSearch tell whether resolvers and search list go
	// into DHCP, NDP and DHCPv6; by default they do for passt and do not
	// for pasta (--[no-]dhcp-dns, --[no-]dhcp-search).
	Announce, AnnounceSearch bool
}

// Protocols says which protocols are switched off.
type Protocols struct {
	// NoICMP implies NoNDP, and NoNDP implies NoRA; Parse has applied that.
	NoTCP, NoUDP, NoICMP, NoDHCP, NoNDP, NoDHCPv6, NoRA bool
}

// Forward is what ports are forwarded. Each list has one element per occurrence
// of the option, in order; an empty list forwards nothing. Parse has applied
// defaults, 'none' and UDP's inheritance of TCP's ports, and has refused
// overlaps.
type Forward struct {
	// TCPIn and UDPIn are forwarded from the host to the guest (-t, -u).
	TCPIn, UDPIn []PortSpec
	// TCPOut and UDPOut are forwarded from the namespace to the host
	// (-T, -U), pasta only.
	TCPOut, UDPOut []PortSpec
	// Freebind sets IP_FREEBIND on listeners (--freebind).
	Freebind bool
}

// Pasta holds options of pasta only.
type Pasta struct {
	// Ifname is the tap's name inside (-I); empty means the template
	// interface's name, else tap0.
	Ifname string
	// PID is the process whose namespaces are joined; zero for none.
	PID int
	// Netns is the path of the namespace to join (--netns); a name has been
	// expanded to NetnsDir/NAME.
	Netns string
	// Userns is the path of the user namespace to join (--userns); with
	// neither PID nor Netns, Command's namespaces are made in it.
	Userns string
	// NetnsOnly neither joins nor makes a user namespace (--netns-only, or
	// --netns without --userns).
	NetnsOnly bool
	// NoNetnsQuit keeps running when Netns is removed (--no-netns-quit).
	NoNetnsQuit bool
	// Command is run in new namespaces. Empty with neither PID nor Netns
	// set means the user's shell.
	Command []string
	// ConfigNet sets addresses and routes inside (--config-net).
	ConfigNet bool
	// NoCopyRoutes and NoCopyAddrs restrict ConfigNet to one address and
	// the default route; deprecated. -a and -g of a family imply them.
	NoCopyRoutes, NoCopyAddrs bool
	// NSMAC is the tap's Ethernet address inside (--ns-mac-addr); zero
	// leaves it to the kernel.
	NSMAC [6]byte
	// HostLoToNSLo forwards connections to the host's loopback to that of
	// the namespace (--host-lo-to-ns-lo).
	HostLoToNSLo bool
	// NoSplice sends local connections through the tap (--no-splice).
	NoSplice bool
	// SpliceOnly forwards loopback only, without a tap (--splice-only).
	SpliceOnly bool
	// FD is an open tap passed by the parent (--fd); zero for none.
	FD int
}

// Passt holds options of passt only.
type Passt struct {
	// Socket is the path of the listening socket (-s); empty means the
	// first free one of /tmp/passt_N.socket, N from 1 to 64.
	Socket string
	// FD is a connected socket passed by the parent (--fd); zero for
	// none. It implies OneOff.
	FD int
	// OneOff quits after the first client (-1).
	OneOff bool
	// VhostUser serves a vhost-user front-end (--vhost-user).
	VhostUser bool
	// RepairPath is the socket of the migration helper (--repair-path);
	// empty means Socket with ".repair" appended. NoRepair is set by
	// --repair-path none.
	RepairPath string
	NoRepair   bool
	// MigrateExit and MigrateNoLinger select a migration source's older
	// behaviour (--migrate-exit, --migrate-no-linger); deprecated.
	MigrateExit, MigrateNoLinger bool
}
