package bed

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// joinByVeth makes a veth pair with one end in each namespace.
func joinByVeth(host, remote *NS) error {
	err := host.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = Link
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: Link, PeerNamespace: netlink.NsFd(remote.fd)})
	})
	if err != nil {
		return fmt.Errorf("join namespaces by veth: %w", err)
	}
	return nil
}

// address gives both ends their addresses and routes. The order in remote matters: an unbound UDP socket
// answers from the first address, which must be the servers' and not the gateway's.
func address(host, remote *NS) error {
	if err := configure(host, HostIP4, HostIP6); err != nil {
		return err
	}
	if err := configure(remote, RemoteIP4, RemoteIP6, GatewayIP4, GatewayIP6); err != nil {
		return err
	}
	return host.Do(func() error {
		link, err := netlink.LinkByName(Link)
		if err != nil {
			return err
		}
		for _, gw := range []string{GatewayIP4, GatewayIP6} {
			route := netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(gw)}
			if err := netlink.RouteAdd(&route); err != nil {
				return fmt.Errorf("add default route by %s: %w", gw, err)
			}
		}
		return nil
	})
}

// configure brings loopback and the link up and adds addresses, in order.
func configure(n *NS, ips ...string) error {
	return n.Do(func() error {
		for _, name := range []string{"lo", Link} {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return fmt.Errorf("find %s in %s: %w", name, n.Name, err)
			}
			if err := netlink.LinkSetUp(link); err != nil {
				return fmt.Errorf("bring %s up in %s: %w", name, n.Name, err)
			}
		}
		for _, ip := range ips {
			if err := addAddress(ip); err != nil {
				return fmt.Errorf("add %s in %s: %w", ip, n.Name, err)
			}
		}
		return nil
	})
}

// ifaNoDAD is IFA_F_NODAD of linux/if_addr.h.
const ifaNoDAD = 2

func addAddress(ip string) error {
	link, err := netlink.LinkByName(Link)
	if err != nil {
		return err
	}
	parsed := net.ParseIP(ip)
	mask := net.CIDRMask(64, 128)
	if parsed.To4() != nil {
		mask = net.CIDRMask(24, 32)
	}
	// Without duplicate address detection the address can be bound to at once.
	return netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: parsed, Mask: mask}, Flags: ifaNoDAD})
}

// SetMTU changes the MTU of the link between host and remote, at both ends.
func (b *Bed) SetMTU(mtu int) error {
	for _, n := range []*NS{b.Host, b.Remote} {
		err := n.Do(func() error {
			link, err := netlink.LinkByName(Link)
			if err != nil {
				return err
			}
			return netlink.LinkSetMTU(link, mtu)
		})
		if err != nil {
			return fmt.Errorf("set MTU %d in %s: %w", mtu, n.Name, err)
		}
	}
	return nil
}
