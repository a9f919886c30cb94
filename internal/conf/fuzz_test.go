package conf

import (
	"errors"
	"strings"
	"testing"
)

// FuzzParsePorts checks that any specification either fails with one line or
// gives rules within bounds, whose text means the same again.
func FuzzParsePorts(f *testing.F) {
	for _, seed := range []string{
		"none", "auto", "all", "22", "22:23", "22-80:32-90", "192.0.2.1%eth0/22", "%eth0/22",
		"2000-5000,~3000-3010", "~20000-20010", "auto,~22", "all:192.0.2.7", "22:[2001:db8::7]/23",
		"22-24:2001:db8::7/32-34", "::1/5406-5408:5406-5408", "[fe80::1%eth0]/80", "::ffff:1.2.3.4/1",
		"80-22", "0", "65536", "1-65535,~1", "65000-65535:1-536", "22,~22", "[::1]%a]/1", "1::/1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, none, err := ParsePorts("-t", text)
		if err != nil {
			if strings.Contains(err.Error(), "\n") && !strings.Contains(text, "\n") {
				t.Errorf("error of several lines: %q", err)
			}
			return
		}
		if none {
			return
		}
		checkRules(t, &s)
		checkStable(t, &s)
	})
}

// checkRules checks the bounds that a PortSpec promises.
func checkRules(t *testing.T, s *PortSpec) {
	t.Helper()
	for _, r := range s.Rules {
		if r.First == 0 || r.Last < r.First || r.ToFirst == 0 {
			t.Errorf("%q: rule %+v", s.Text, r)
		}
		if int(r.ToFirst)+int(r.Last)-int(r.First) > maxPort {
			t.Errorf("%q: rule %+v leads beyond %d", s.Text, r, maxPort)
		}
		for _, e := range s.Exclude {
			if r.First <= e.Last && e.First <= r.Last {
				t.Errorf("%q: rule %+v holds excluded ports %v", s.Text, r, e)
			}
		}
	}
	for i, e := range s.Exclude {
		if e.First == 0 || e.Last < e.First || i > 0 && int(s.Exclude[i-1].Last)+1 >= int(e.First) {
			t.Errorf("%q: exclusions %v", s.Text, s.Exclude)
		}
	}
	if s.Auto && s.All || !s.Auto && !s.All && len(s.Rules) == 0 {
		t.Errorf("%q: auto %v, all %v, %d rules", s.Text, s.Auto, s.All, len(s.Rules))
	}
}

// FuzzParse checks whole command lines, written with NUL between arguments.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"pasta", "pasta -f -t 22:23 -- true", "passt -1 -s /tmp/s -t all -u none", "penne passt --fd=5",
		"pasta --stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 --netmask=24 4321",
		"pasta -46", "pasta --x", "pasta -fdm1500", "pasta --no-tcp=1", "pasta --map-g 1.2.3.4 --vers",
		"pasta -t 22 -t 22", "pasta --netns x -D none -S a -M 02:00:00:00:00:01 --runas a:b",
	} {
		f.Add(strings.ReplaceAll(seed, " ", "\x00"))
	}
	f.Fuzz(func(t *testing.T, text string) {
		argv := strings.Split(text, "\x00")
		c, err := Parse(argv)
		if err == nil {
			checkConfig(t, c)
			return
		}
		var own *Error
		if !errors.As(err, &own) || !strings.HasPrefix(own.Text, c.Program+": ") {
			t.Errorf("%q: error %v", argv, err)
		}
	})
}

// checkConfig checks what any accepted line promises.
func checkConfig(t *testing.T, c *Config) {
	t.Helper()
	if c.Action != Run {
		return
	}
	n := &c.Net
	if n.MTU != 0 && (n.MTU < MinMTU || n.MTU > MaxMTU) || n.Bits4 > 32 || n.Bits6 > 128 || n.MAC[0]&1 != 0 {
		t.Errorf("network %+v", *n)
	}
	if n.IPv4Only && n.IPv6Only || c.Logging.Size < MinLogSize || c.Process.Queues > MaxQueues {
		t.Errorf("config %+v", *c)
	}
	if c.Pasta.PID != 0 && (c.Pasta.Netns != "" || c.Pasta.Command != nil) {
		t.Errorf("targets %+v", c.Pasta)
	}
	for _, specs := range [][]PortSpec{c.Forward.TCPIn, c.Forward.UDPIn, c.Forward.TCPOut, c.Forward.UDPOut} {
		for i := range specs {
			checkRules(t, &specs[i])
		}
		if err := checkOverlap(specs); err != nil {
			t.Error(err)
		}
	}
}
