package conf

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

const (
	// ifnameMax is IFNAMSIZ less the terminating NUL, linux/if.h.
	ifnameMax = 15
	// socketPathMax is sizeof(sockaddr_un.sun_path) less the NUL, unix(7).
	socketPathMax = 107
	// maxDomain is the longest domain name, RFC 1035 section 2.3.4 in text
	// form, and maxLabel the longest label.
	maxDomain = 253
	maxLabel  = 63
)

// validIfname applies the kernel's rule for device names (dev_valid_name), and
// keeps to printable bytes.
func validIfname(s string) bool {
	if s == "" || len(s) > ifnameMax || s == "." || s == ".." {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == '/' || s[i] == ':' {
			return false
		}
	}
	return true
}

// validDomain reports whether s is a domain name: labels of letters, digits, '-'
// and '_', with an optional dot at the end.
func validDomain(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > maxDomain {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.IndexFunc(label, notDomainRune) >= 0 {
			return false
		}
	}
	return true
}

func notDomainRune(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_':
		return false
	}
	return true
}

// parseMAC reads six pairs of hexadecimal digits joined by ':' or '-'. The
// address must be unicast and not zero.
func parseMAC(s string) (mac [6]byte, ok bool) {
	const text = len("9a:55:9a:55:9a:55")
	if len(s) != text || (s[2] != ':' && s[2] != '-') {
		return mac, false
	}
	for i := range mac {
		if i > 0 && s[3*i-1] != s[2] {
			return mac, false
		}
		b, err := strconv.ParseUint(s[3*i:3*i+2], 16, 8)
		if err != nil {
			return mac, false
		}
		mac[i] = byte(b)
	}
	multicast := mac[0]&1 != 0
	return mac, !multicast && mac != [6]byte{}
}

// parseIP reads an address without a zone; an IPv4-mapped one becomes IPv4.
func parseIP(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// isHost reports whether a can belong to a single host that is not us.
func isHost(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsLoopback() && isUnicast(a)
}

// isUnicast reports whether a is neither multicast nor limited broadcast.
func isUnicast(a netip.Addr) bool {
	return !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// parseNetmask reads an IPv4 mask as a number of bits, 1 to 32, or in dotted
// form.
func parseNetmask(s string) (int, bool) {
	if !strings.Contains(s, ".") {
		return parseInt(s, 1, 32)
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return 0, false
	}
	b := a.As4()
	mask := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	for bits := 1; bits <= 32; bits++ {
		if mask == ^uint32(0)<<(32-bits) {
			return bits, true
		}
	}
	return 0, false
}

// parseInt reads an unsigned decimal number within [low, high].
func parseInt(s string, low, high int) (int, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < int64(low) || n > int64(high) {
		return 0, false
	}
	return int(n), true
}

// parseSeconds reads a whole number of seconds, 1 to a day.
func parseSeconds(s string) (time.Duration, bool) {
	n, ok := parseInt(s, 1, 24*60*60)
	return time.Duration(n) * time.Second, ok
}

// parseRunAs reads UID, UID:GID, LOGIN or LOGIN:GROUP. An id is at most
// 2^32-2, since 2^32-1 means "no change" to setresuid(2).
func parseRunAs(s string) (*RunAs, bool) {
	user, group, both := strings.Cut(s, ":")
	r := &RunAs{}
	var ok bool
	if r.UID, r.Login, r.HasUID, ok = parseID(user); !ok {
		return nil, false
	}
	if !both {
		return r, true
	}
	r.GID, r.Group, r.HasGID, ok = parseID(group)
	return r, ok
}

// parseID reads a number or a name.
func parseID(s string) (id uint32, name string, numeric, ok bool) {
	const maxID = 1<<32 - 2
	if strings.Trim(s, "0123456789") != "" {
		return 0, s, false, !strings.ContainsAny(s, ": \t\n/,")
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), "", true, err == nil && n <= maxID
}
