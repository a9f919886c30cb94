package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// maxPort is the largest port number.
const maxPort = 65535

// ParsePorts reads one argument of a forwarding option:
//
//	SPEC   = "none" | [LISTEN "/"] ITEM {"," ITEM}
//	LISTEN = [ADDR]["%" IFACE]
//	ITEM   = "auto" | "all"[":" ADDR] | "~" RANGE | RANGE[":" [ADDR "/"] RANGE]
//	RANGE  = PORT["-" PORT]
//
// An IPv6 ADDR may be in brackets; a target's must be where the text could
// otherwise be read as LISTEN. Both ranges of a pair have the same length.
// Exclusions alone stand for all other ports. The second result is true for
// "none". option is the option's spelling for messages, such as "-t".
func ParsePorts(option, text string) (PortSpec, bool, error) {
	s := PortSpec{Text: strings.TrimSpace(option + " " + text)}
	if text == "none" {
		return s, true, nil
	}
	p := portParser{spec: &s}
	if err := p.parse(text); err != nil {
		return PortSpec{}, false, fmt.Errorf("invalid port specification for option '%s': %w", s.Text, err)
	}
	return s, false, nil
}

// portParser fills spec from one argument.
type portParser struct {
	spec  *PortSpec
	rules []PortRule
}

func (p *portParser) parse(text string) error {
	list, err := p.listen(text)
	if err != nil {
		return err
	}
	for item := range strings.SplitSeq(list, ",") {
		if err := p.item(item); err != nil {
			return err
		}
	}
	return p.finish()
}

// listen parses LISTEN, if there is one, and returns the rest. A slash may also
// belong to a target, so what is before it is LISTEN unless it starts like a
// port.
func (p *portParser) listen(text string) (string, error) {
	head, list, ok := strings.Cut(text, "/")
	if !ok {
		return text, nil
	}
	addr, iface, err := parseListen(head)
	if err != nil {
		if strings.Contains(head, ":") && !strings.HasPrefix(head, "[") && startsWithPort(head) {
			return text, nil
		}
		return "", err
	}
	p.spec.Addr, p.spec.Iface = addr, iface
	return list, nil
}

// startsWithPort reports whether the first item of text reads as a port, a
// range, an exclusion or "all".
func startsWithPort(text string) bool {
	first := text[:strings.IndexAny(text, ":")]
	item, _, _ := strings.Cut(first, ",")
	if item == "all" || item == "auto" {
		return true
	}
	_, err := parseRange(strings.TrimPrefix(item, "~"))
	return err == nil
}

// parseListen reads [ADDR]["%" IFACE], where ADDR, or all of it, may stand in
// brackets.
func parseListen(text string) (netip.Addr, string, error) {
	if inner, ok := strings.CutPrefix(text, "["); ok && strings.IndexByte(inner, ']') == len(inner)-1 {
		zone := strings.IndexByte(inner, '%')
		if zone >= 0 { // [ADDR%IFACE] becomes [ADDR]%IFACE
			text = "[" + inner[:zone] + "]" + inner[zone:len(inner)-1]
		}
	}
	host, iface, bound := strings.Cut(text, "%")
	if bound && !validIfname(iface) {
		return netip.Addr{}, "", fmt.Errorf("'%s' is no interface name", iface)
	}
	if host == "" && bound {
		return netip.Addr{}, iface, nil
	}
	addr, err := parseHost(host)
	if err == nil && addr.Is6() && addr.IsLinkLocalUnicast() && !bound { // bind(2) would say EINVAL
		err = fmt.Errorf("'%s' is a link-local address, which needs an interface, as in %s%%eth0/22", text, addr)
	}
	return addr, iface, err
}

// parseHost reads an address to listen on or to forward to.
func parseHost(text string) (netip.Addr, error) {
	bare := text
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		bare = text[1 : len(text)-1]
	}
	addr, err := netip.ParseAddr(bare)
	if err != nil || addr.Zone() != "" || (bare != text && !addr.Is6()) {
		return netip.Addr{}, fmt.Errorf("'%s' is no address", text)
	}
	addr = addr.Unmap()
	if addr.IsMulticast() {
		return netip.Addr{}, fmt.Errorf("'%s' is a multicast address", text)
	}
	return addr, nil
}

// item reads one element of the list.
func (p *portParser) item(text string) error {
	switch {
	case text == "":
		return errors.New("an element of the list is empty")
	case text == "none":
		return errors.New("'none' stands alone")
	case text == "auto":
		p.spec.Auto = true
		return nil
	case text == "all" || strings.HasPrefix(text, "all:"):
		return p.all(text)
	case text[0] == '~':
		r, err := parseRange(text[1:])
		p.spec.Exclude = append(p.spec.Exclude, r)
		return err
	}
	rule, err := p.rule(text)
	p.rules = append(p.rules, rule)
	return err
}

// all reads "all"[":" ADDR].
func (p *portParser) all(text string) error {
	if p.spec.All {
		return errors.New("'all' is given twice")
	}
	p.spec.All = true
	if _, to, ok := strings.Cut(text, ":"); ok {
		addr, err := parseTarget(to)
		if err != nil {
			return err
		}
		p.spec.AllToAddr = addr
	}
	return nil
}

// rule reads RANGE[":" [ADDR "/"] RANGE].
func (p *portParser) rule(text string) (PortRule, error) {
	from, to, mapped := strings.Cut(text, ":")
	r, err := parseRange(from)
	if err != nil {
		return PortRule{}, err
	}
	rule := PortRule{
		Addr: p.spec.Addr, Iface: p.spec.Iface,
		First: r.First, Last: r.Last, ToFirst: r.First,
	}
	if !mapped {
		return rule, nil
	}
	if i := strings.LastIndexByte(to, '/'); i >= 0 {
		if rule.ToAddr, err = parseTarget(to[:i]); err != nil {
			return PortRule{}, err
		}
		to = to[i+1:]
	}
	target, err := parseRange(to)
	if err != nil {
		return PortRule{}, err
	}
	if target.Last-target.First != r.Last-r.First {
		return PortRule{}, fmt.Errorf("ranges %s and %s differ in length", r, target)
	}
	rule.ToFirst = target.First
	return rule, nil
}

// parseTarget reads an address to forward to.
func parseTarget(text string) (netip.Addr, error) {
	addr, err := parseHost(text)
	if err == nil && addr.IsUnspecified() {
		err = fmt.Errorf("'%s' is no target address", text)
	}
	return addr, err
}

// parseRange reads PORT["-" PORT].
func parseRange(text string) (PortRange, error) {
	a, b, ranged := strings.Cut(text, "-")
	first, err := parsePort(a)
	if err != nil || !ranged {
		return PortRange{first, first}, err
	}
	last, err := parsePort(b)
	if err != nil {
		return PortRange{}, err
	}
	if last < first {
		return PortRange{}, fmt.Errorf("range '%s' is reversed", text)
	}
	return PortRange{first, last}, nil
}

// parsePort reads a decimal port number without sign or space.
func parsePort(text string) (uint16, error) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, fmt.Errorf("'%s' is no port", text)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %s is not between 1 and %d", text, maxPort)
	}
	return uint16(n), nil
}

// finish applies exclusions and checks that the items go together.
func (p *portParser) finish() error {
	s := p.spec
	s.Exclude = mergeRanges(s.Exclude)
	if len(p.rules) == 0 && !s.Auto && !s.All {
		s.All = true
	}
	if s.Auto && s.All {
		return errors.New("'auto' and 'all' exclude each other")
	}
	for _, r := range p.rules {
		if !sameFamily(r.Addr, r.ToAddr) {
			return fmt.Errorf("%s and %s are of different families", r.Addr, r.ToAddr)
		}
		s.Rules = appendWithout(s.Rules, r, s.Exclude)
	}
	if !sameFamily(s.Addr, s.AllToAddr) {
		return fmt.Errorf("%s and %s are of different families", s.Addr, s.AllToAddr)
	}
	everything := len(s.Exclude) == 1 && s.Exclude[0] == PortRange{1, maxPort}
	if len(s.Rules) == 0 && (everything || !s.Auto && !s.All) {
		return errors.New("exclusions leave no port")
	}
	return nil
}

// sameFamily reports whether traffic to a can go on to b; an invalid address
// fits any.
func sameFamily(a, b netip.Addr) bool {
	return !a.IsValid() || !b.IsValid() || a.Is4() == b.Is4()
}

// mergeRanges sorts ranges and joins adjacent and overlapping ones.
func mergeRanges(in []PortRange) []PortRange {
	slices.SortFunc(in, func(a, b PortRange) int { return int(a.First) - int(b.First) })
	var out []PortRange
	for _, r := range in {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// appendWithout appends what is left of r without holes, which are sorted and
// disjoint.
func appendWithout(out []PortRule, r PortRule, holes []PortRange) []PortRule {
	first := int(r.First)
	part := func(last int) {
		if first > last {
			return
		}
		cut := r
		cut.First, cut.Last = uint16(first), uint16(last)
		cut.ToFirst = r.ToFirst + uint16(first) - r.First
		out = append(out, cut)
	}
	for _, h := range holes {
		if h.Last < r.First || h.First > r.Last {
			continue
		}
		part(int(h.First) - 1)
		first = int(h.Last) + 1
	}
	part(int(r.Last))
	return out
}
