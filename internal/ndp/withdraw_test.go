package ndp

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mdlayher/ndp"

	"penne/internal/fwd"
	"penne/internal/wire"
)

// withdrawal is what Advertise takes back, and what it announces, as text.
func withdrawal(t *testing.T, b *bench, r *Responder) (announced, gone string) {
	t.Helper()
	b.Got = nil
	r.Advertise(&b.Env)
	b.Out.Flush()
	var texts []string
	for _, frame := range b.Got {
		_, m := decode(t, frame, allNodes.addr, allNodes.mac)
		if len(frame)-wire.EthLen > minMTU || m.(*ndp.RouterAdvertisement).RouterLifetime == 0 && !r.cfg.Configured {
			t.Errorf("%d octets: %+v", len(frame), m)
		}
		var text []string
		for _, o := range m.(*ndp.RouterAdvertisement).Options {
			switch o := o.(type) {
			case *ndp.PrefixInformation:
				text = append(text, fmt.Sprintf("%v/%d", o.Prefix, o.PrefixLength))
				if zero := len(texts) == 1; (o.ValidLifetime == 0) != zero || (o.PreferredLifetime == 0) != zero {
					t.Errorf("lifetimes of %+v", o)
				}
			case *ndp.RecursiveDNSServer:
				text = append(text, fmt.Sprint(o.Servers))
				if (o.Lifetime == 0) != (len(texts) == 1) {
					t.Errorf("lifetime of %+v", o)
				}
			case *ndp.DNSSearchList:
				text = append(text, fmt.Sprint(o.DomainNames))
				if (o.Lifetime == 0) != (len(texts) == 1) {
					t.Errorf("lifetime of %+v", o)
				}
			}
		}
		texts = append(texts, strings.Join(text, " "))
	}
	texts = append(texts, "", "")
	return texts[0], texts[1]
}

// TestWithdrawal changes what is announced, and wants a guest to hear of what it shall forget until that is announced
// again.
func TestWithdrawal(t *testing.T) {
	dns := func(a ...string) (list []wire.Addr) {
		for _, s := range a {
			list = append(list, addr(s))
		}
		return list
	}
	b := newBench(t)
	r := New(Config{DNS: dns("2001:db8::53", "192.0.2.53"), Search: []string{"one.test"}})
	for i, c := range []struct {
		cfg             Config
		guest           string
		announced, gone string
	}{
		{Config{DNS: dns("2001:db8::53"), Search: []string{"one.test"}}, "2001:db8:1::5",
			"2001:db8:1::/64 [2001:db8::53] [one.test]", ""},
		{Config{DNS: dns("2001:db8::54"), Search: []string{"one.test"}}, "2001:db8:1::6",
			"2001:db8:1::/64 [2001:db8::54] [one.test]", "[2001:db8::53]"},
		{Config{DNS: dns("2001:db8::55", "2001:db8::54"), Search: []string{"two.test"}}, "2001:db8:2::5",
			"2001:db8:2::/64 [2001:db8::55 2001:db8::54] [two.test]", "2001:db8:1::/64 [2001:db8::53] [one.test]"},
		{Config{DNS: dns("2001:db8::53")}, "2001:db8:1::5",
			"2001:db8:1::/64 [2001:db8::53]", "2001:db8:2::/64 [2001:db8::55 2001:db8::54] [one.test two.test]"},
		{Config{}, "fe80::5", "", "2001:db8:2::/64 2001:db8:1::/64 [2001:db8::55 2001:db8::54 2001:db8::53] [one.test two.test]"},
	} {
		next := *b.Rules
		next.V6.Guest = addr(c.guest)
		r.Renumber(&b.Rules.V6, &next.V6)
		r.Reconfigure(c.cfg)
		b.Rules = &next
		if announced, gone := withdrawal(t, &b, r); announced != c.announced || gone != c.gone {
			t.Errorf("%d: announced %q, withdrawn %q; want %q, %q", i, announced, gone, c.announced, c.gone)
		}
	}
	b.Got = nil
	b.input(r, rs(t, guestLL))
	if len(b.Got) != 1 {
		t.Errorf("%d answers to a new guest", len(b.Got))
	}
}

// TestWithdrawalIsBounded has more go than fits, with a search list of full size.
func TestWithdrawalIsBounded(t *testing.T) {
	b, r := newBench(t), New(Config{})
	was := fwd.Family{}
	for i := range 40 {
		now := fwd.Family{On: true, Guest: addr(fmt.Sprintf("2001:db8:%x::1", i+1)), Bits: 64}
		r.Renumber(&was, &now)
		r.Reconfigure(Config{
			DNS:    []wire.Addr{addr(fmt.Sprintf("2001:db8::%x", i))},
			Search: []string{fmt.Sprintf("%s%d.%[1]s.test", strings.Repeat("a", 50), i)},
		})
		was = now
	}
	r.Advertise(&b.Env)
	b.Out.Flush()
	if len(b.Got) != 2 || len(b.Got[1])-wire.EthLen > minMTU || len(r.withdrawn.dns) != maxDNS || len(r.withdrawn.prefixes) != maxWithdrawnPrefixes {
		t.Errorf("%d frames, %d resolvers, %d prefixes", len(b.Got), len(r.withdrawn.dns), len(r.withdrawn.prefixes))
	}
	if r.withdrawn.dns[maxDNS-1] != addr("2001:db8::26") {
		t.Errorf("the last one is %v", r.withdrawn.dns[maxDNS-1])
	}
}

// TestNothingToWithdraw is where no prefix was announced, or nothing at all.
func TestNothingToWithdraw(t *testing.T) {
	for _, c := range []Config{{Configured: true}, {NoRA: true}, {Off: true}} {
		b, r := newBench(t), New(c)
		r.Renumber(&b.Rules.V6, &fwd.Family{})
		c.DNS = nil
		r.Reconfigure(c)
		if _, gone := withdrawal(t, &b, r); gone != "" {
			t.Errorf("%+v: withdrawn %q", c, gone)
		}
	}
}
