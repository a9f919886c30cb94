package conf

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// wantRules writes rules in the test's table: "LISTEN/RANGE>[TO/]RANGE".
func wantRules(rules []PortRule) string {
	var out []string
	for _, r := range rules {
		s := listenText(r.Addr, r.Iface) + PortRange{r.First, r.Last}.String() + ">"
		if r.ToAddr.IsValid() {
			s += r.ToAddr.String() + "/"
		}
		out = append(out, s+PortRange{r.ToFirst, r.ToLast()}.String())
	}
	return strings.Join(out, " ")
}

// TestPortGrammar has the examples of the manual, the spellings of Podman,
// RootlessKit and libvirt, and the corners of the grammar.
func TestPortGrammar(t *testing.T) {
	tests := []struct {
		text    string
		rules   string
		auto    bool
		all     bool
		exclude string
		canon   string // String(), if it differs from text
	}{
		// The manual's examples.
		{text: "22", rules: "22>22"},
		{text: "22:23", rules: "22>23"},
		{text: "22,25", rules: "22>22 25>25"},
		{text: "22-80", rules: "22-80>22-80"},
		{text: "22-80:32-90", rules: "22-80>32-90"},
		{text: "192.0.2.1/22", rules: "192.0.2.1/22>22"},
		{text: "192.0.2.1%eth0/22", rules: "192.0.2.1%eth0/22>22"},
		{text: "%eth0/22", rules: "%eth0/22>22"},
		{text: "2000-5000,~3000-3010", rules: "2000-2999>2000-2999 3011-5000>3011-5000", exclude: "3000-3010", canon: "2000-2999,3011-5000,~3000-3010"},
		{text: "192.0.2.1/20-30,~25", rules: "192.0.2.1/20-24>20-24 192.0.2.1/26-30>26-30", exclude: "25", canon: "192.0.2.1/20-24,26-30,~25"},
		{text: "~20000-20010", all: true, exclude: "20000-20010", canon: "all,~20000-20010"},
		{text: "all", all: true},
		{text: "auto", auto: true},

		// Podman.
		{text: "80-80:80-80", rules: "80>80", canon: "80"},
		{text: "80-82:60-62", rules: "80-82>60-62"},
		{text: "127.0.0.1/5910-5910:5910-5910", rules: "127.0.0.1/5910>5910", canon: "127.0.0.1/5910"},
		{text: "::1/5406-5408:5406-5408", rules: "[::1]/5406-5408>5406-5408", canon: "[::1]/5406-5408"},
		{text: "2001:db8:2::2/5658-5660:5659-5661", rules: "[2001:db8:2::2]/5658-5660>5659-5661", canon: "[2001:db8:2::2]/5658-5660:5659-5661"},
		{text: "198.51.100.2%eth0/5822:5822", rules: "198.51.100.2%eth0/5822>5822", canon: "198.51.100.2%eth0/5822"},
		{text: "::1%lo/5822:5823", rules: "[::1]%lo/5822>5823", canon: "[::1]%lo/5822:5823"},
		{text: "0.0.0.0/80:81", rules: "0.0.0.0/80>81"},
		{text: "::/80:81", rules: "[::]/80>81", canon: "[::]/80:81"},

		// libvirt.
		{text: "2222:22,2223:23", rules: "2222>22 2223>23"},
		{text: "127.0.0.1/2222:22,4000-4010:5000-5010,~4005-4006", rules: "127.0.0.1/2222>22 127.0.0.1/4000-4004>5000-5004 127.0.0.1/4007-4010>5007-5010", exclude: "4005-4006", canon: "127.0.0.1/2222:22,4000-4004:5000-5004,4007-4010:5007-5010,~4005-4006"},
		{text: "198.51.100.2%if0/3333:33", rules: "198.51.100.2%if0/3333>33"},

		// IPv6 in brackets, with and without interface.
		{text: "[::1]/80", rules: "[::1]/80>80"},
		{text: "[2001:db8::1]%eth0/80", rules: "[2001:db8::1]%eth0/80>80"},
		{text: "[fe80::1%eth0]/80", rules: "[fe80::1]%eth0/80>80", canon: "[fe80::1]%eth0/80"},
		{text: "::ffff:192.0.2.1/80", rules: "192.0.2.1/80>80", canon: "192.0.2.1/80"},

		// Target addresses.
		{text: "22:192.0.2.7/23", rules: "22>192.0.2.7/23"},
		{text: "22-24:192.0.2.7/32-34", rules: "22-24>192.0.2.7/32-34"},
		{text: "22:[2001:db8::7]/23", rules: "22>2001:db8::7/23"},
		{text: "22-24:2001:db8::7/32-34", rules: "22-24>2001:db8::7/32-34", canon: "22-24:[2001:db8::7]/32-34"},
		{text: "192.0.2.1/22:192.0.2.7/22", rules: "192.0.2.1/22>192.0.2.7/22"},
		{text: "[::1]/22:[::2]/22,25", rules: "[::1]/22>::2/22 [::1]/25>25"},
		{text: "22,80:192.0.2.7/81", rules: "22>22 80>192.0.2.7/81"},
		{text: "~22,20-24:192.0.2.7/20-24", rules: "20-21>192.0.2.7/20-21 23-24>192.0.2.7/23-24", exclude: "22", canon: "20-21:192.0.2.7/20-21,23-24:192.0.2.7/23-24,~22"},
		{text: "all:192.0.2.7", all: true},
		{text: "all:2001:db8::7", all: true, canon: "all:[2001:db8::7]"},
		{text: "all,80:192.0.2.7/81", all: true, rules: "80>192.0.2.7/81"},
		{text: "auto,80:192.0.2.7/81", auto: true, rules: "80>192.0.2.7/81"},
		// What reads as an address to listen on is one.
		{text: "22:2001:db8::1/23", rules: "[22:2001:db8::1]/23>23", canon: "[22:2001:db8::1]/23"},

		// Combinations.
		{text: "auto,~22", auto: true, exclude: "22"},
		{text: "~22,auto", auto: true, exclude: "22", canon: "auto,~22"},
		{text: "auto,auto", auto: true, canon: "auto"},
		{text: "auto,22:23", auto: true, rules: "22>23"},
		{text: "%lo/auto", auto: true},
		{text: "all,~22,80:8080", all: true, rules: "80>8080", exclude: "22", canon: "all,80:8080,~22"},
		{text: "127.0.0.1/all:127.0.0.1,~1-1023", all: true, exclude: "1-1023"},
		{text: "~25", all: true, exclude: "25", canon: "all,~25"},
		{text: "~25,~20-26,~27", all: true, exclude: "20-27", canon: "all,~20-27"},
		{text: "22,~22,25", rules: "25>25", exclude: "22", canon: "25,~22"},
		{text: "1-65535", rules: "1-65535>1-65535"},
		{text: "65535:1", rules: "65535>1"},
		{text: "1-65535,~1,~65535", rules: "2-65534>2-65534", exclude: "1 65535", canon: "2-65534,~1,~65535"},
		{text: "1-65534:2-65535", rules: "1-65534>2-65535"},
		{text: "0022", rules: "22>22", canon: "22"},
	}
	for _, tt := range tests {
		s, none, err := ParsePorts("-t", tt.text)
		if err != nil || none {
			t.Errorf("%s: none %v, error %v", tt.text, none, err)
			continue
		}
		var exclude []string
		for _, r := range s.Exclude {
			exclude = append(exclude, r.String())
		}
		if got := wantRules(s.Rules); got != tt.rules || s.Auto != tt.auto || s.All != tt.all || strings.Join(exclude, " ") != tt.exclude {
			t.Errorf("%s: rules %q, auto %v, all %v, exclude %q", tt.text, got, s.Auto, s.All, exclude)
		}
		canon := tt.canon
		if canon == "" {
			canon = tt.text
		}
		if s.String() != canon {
			t.Errorf("%s: String() = %q, want %q", tt.text, s.String(), canon)
		}
		if s.Text != "-t "+tt.text {
			t.Errorf("%s: Text = %q", tt.text, s.Text)
		}
		checkStable(t, &s)
	}
}

// checkStable checks that the canonical form means the same.
func checkStable(t *testing.T, s *PortSpec) {
	t.Helper()
	again, none, err := ParsePorts("-t", s.String())
	if err != nil || none {
		t.Errorf("%q: canonical form %q: none %v, error %v", s.Text, s, none, err)
		return
	}
	again.Text = s.Text
	if !reflect.DeepEqual(&again, s) {
		t.Errorf("%q: canonical form %q differs:\n%+v\n%+v", s.Text, s, again, *s)
	}
}

func TestPortNone(t *testing.T) {
	if _, none, err := ParsePorts("-t", "none"); !none || err != nil {
		t.Errorf("none %v, error %v", none, err)
	}
}

func TestPortErrors(t *testing.T) {
	tests := []struct{ text, want string }{
		{"", "an element of the list is empty"},
		{",", "an element of the list is empty"},
		{"22,", "an element of the list is empty"},
		{"22,,23", "an element of the list is empty"},
		{"192.0.2.1/", "an element of the list is empty"},
		{"0", "port 0 is not between 1 and 65535"},
		{"65536", "port 65536 is not between 1 and 65535"},
		{"99999999999999999999", "port 99999999999999999999 is not between 1 and 65535"},
		{"-1", "'' is no port"},
		{"+1", "'+1' is no port"},
		{" 22", "' 22' is no port"},
		{"0x16", "'0x16' is no port"},
		{"ssh", "'ssh' is no port"},
		{"22-", "'' is no port"},
		{"22-23-24", "'23-24' is no port"},
		{"22:", "'' is no port"},
		{"22:0", "port 0 is not between 1 and 65535"},
		{"22:23:24", "'23:24' is no port"},
		{"80-22", "range '80-22' is reversed"},
		{"22-23:33-32", "range '33-32' is reversed"},
		{"22-80:32", "ranges 22-80 and 32 differ in length"},
		{"22:32-90", "ranges 22 and 32-90 differ in length"},
		{"22-80:32-91", "ranges 22-80 and 32-91 differ in length"},
		{"65000-65535:65001-65536", "port 65536 is not between 1 and 65535"},
		{"~", "'' is no port"},
		{"~~22", "'~22' is no port"},
		{"~80-22", "range '80-22' is reversed"},
		{"~22:23", "'22:23' is no port"},
		{"22,~22", "exclusions leave no port"},
		{"~1-65535", "exclusions leave no port"},
		{"all,~1-1000,~1001-65535", "exclusions leave no port"},
		{"none,22", "'none' stands alone"},
		{"22,none", "'none' stands alone"},
		{"192.0.2.1/none", "'none' stands alone"},
		{"auto,all", "'auto' and 'all' exclude each other"},
		{"all,all", "'all' is given twice"},
		{"all:", "'' is no address"},
		{"all:x", "'x' is no address"},
		{"all:0.0.0.0", "'0.0.0.0' is no target address"},
		{"auto:192.0.2.1", "'auto' is no port"},
		{"/22", "'' is no address"},
		{"x/22", "'x' is no address"},
		{"192.0.2.256/22", "'192.0.2.256' is no address"},
		{"[192.0.2.1]/22", "'[192.0.2.1]' is no address"},
		{"[192.0.2.1%eth0]/22", "'[192.0.2.1]' is no address"},
		{"[%eth0]/22", "'[]' is no address"},
		{"[]/22", "'[]' is no address"},
		{"[/22", "'[' is no address"},
		{"[::1/22", "'[::1' is no address"},
		{"224.0.0.1/22", "'224.0.0.1' is a multicast address"},
		{"fe80::1/22", "'fe80::1' is a link-local address, which needs an interface, as in fe80::1%eth0/22"},
		{"[fe80::1]/22", "'[fe80::1]' is a link-local address, which needs an interface, as in fe80::1%eth0/22"},
		{"22:/23", "'' is no address"},
		{"22:[192.0.2.7]/23", "'[192.0.2.7]' is no address"},
		{"22:[ff02::1]/23", "'[ff02::1]' is a multicast address"},
		{"22:[::]/23", "'[::]' is no target address"},
		{"22:192.0.2.7/", "'' is no port"},
		{"%/22", "'' is no interface name"},
		{"%0123456789abcdef/22", "'0123456789abcdef' is no interface name"},
		{"192.0.2.1%a b/22", "'a b' is no interface name"},
		{"192.0.2.1/22:[::1]/22", "192.0.2.1 and ::1 are of different families"},
		{"[::1]/all:192.0.2.1", "::1 and 192.0.2.1 are of different families"},
	}
	for _, tt := range tests {
		_, _, err := ParsePorts("-t", tt.text)
		want := "invalid port specification for option '" + strings.TrimSpace("-t "+tt.text) + "': " + tt.want
		if tt.text == " 22" {
			want = "invalid port specification for option '-t  22': " + tt.want
		}
		if err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %v", tt.text, err, want)
		}
	}
}

// texts lists the occurrences of one direction.
func texts(specs []PortSpec) string {
	var out []string
	for i := range specs {
		s := specs[i].String()
		if specs[i].Inherited {
			s = "(" + s + ")"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

// TestForwardDefaults checks defaults, 'none' and inheritance, per direction.
func TestForwardDefaults(t *testing.T) {
	tests := []struct{ line, tcpIn, udpIn, tcpOut, udpOut string }{
		{"pasta", "auto", "auto", "auto", "auto"},
		{"passt", "", "", "", ""},
		{"pasta -t none -u none -T none -U none", "", "", "", ""},
		{"pasta -t none", "", "auto", "auto", "auto"},
		{"pasta -t 22:23", "22:23", "auto (22)", "auto", "auto"},
		{"pasta -T 22-23:32-33", "auto", "auto", "22-23:32-33", "auto (22-23)"},
		{"pasta -t 22:23 -u none", "22:23", "", "auto", "auto"},
		{"pasta -t 22:23 -u 53", "22:23", "53", "auto", "auto"},
		{"pasta -t auto", "auto", "auto", "auto", "auto"},
		{"pasta -t auto,~22", "auto,~22", "auto", "auto", "auto"},
		{"pasta -t auto,22:23", "auto,22:23", "auto (22)", "auto", "auto"},
		{"pasta -t all", "all", "(all)", "auto", "auto"},
		{"pasta -t all:192.0.2.1,80:81 -t 22", "all:192.0.2.1,80:81 22", "(all:192.0.2.1,80) (22)", "auto", "auto"},
		{"pasta -t all,80:81 -t 22:23", "all,80:81 22:23", "(all,80) (22)", "auto", "auto"},
		{"passt -t 2222:22", "2222:22", "(2222)", "", ""},
		{"passt -t 192.0.2.1%eth0/22:192.0.2.7/23", "192.0.2.1%eth0/22:192.0.2.7/23", "(192.0.2.1%eth0/22:192.0.2.7/22)", "", ""},
		{"passt -t ~20000-20010", "all,~20000-20010", "(all,~20000-20010)", "", ""},
		{"passt -t 22 -t 25 -u 53 -u 54", "22 25", "53 54", "", ""},
		{"pasta -t 22 -t none", "", "auto", "auto", "auto"},
		{"pasta -t 22 -t none -t 25", "25", "auto (25)", "auto", "auto"},
		{"pasta -t none -t 25 -u none", "25", "", "auto", "auto"},
		{"pasta -t auto -t auto", "auto", "auto", "auto", "auto"},
		{"pasta --no-tcp -t 22", "", "auto (22)", "", "auto"},
		{"pasta --no-udp -t 22", "22", "", "auto", ""},
		{"pasta --tcp-ports=none --udp-ports=auto --tcp-ns 1 --udp-ns=2", "", "auto", "1", "2"},
	}
	for _, tt := range tests {
		c, err := Parse(strings.Fields(tt.line))
		if err != nil {
			t.Errorf("%s: %v", tt.line, err)
			continue
		}
		f := &c.Forward
		got := [4]string{texts(f.TCPIn), texts(f.UDPIn), texts(f.TCPOut), texts(f.UDPOut)}
		if want := [4]string{tt.tcpIn, tt.udpIn, tt.tcpOut, tt.udpOut}; got != want {
			t.Errorf("%s:\n got %q\nwant %q", tt.line, got, want)
		}
	}
}

// TestForwardText checks the text for messages whichever way the option was
// spelled.
func TestForwardText(t *testing.T) {
	c := mustParse(t, "pasta", "--tcp-ports=22:23", "-t25", "--udp-ns", "53", "-T", "none")
	f := &c.Forward
	got := []string{f.TCPIn[0].Text, f.TCPIn[1].Text, f.UDPIn[0].Text, f.UDPIn[1].Text, f.UDPOut[0].Text}
	want := []string{"-t 22:23", "-t 25", "-u auto", "-t 22:23", "-U 53"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestForwardConflicts holds the line for every kind of overlap.
func TestForwardConflicts(t *testing.T) {
	twice := func(port int, a, b string) string {
		return "port " + strconv.Itoa(port) + " is forwarded twice, by option '" + a + "' and by option '" + b + "'"
	}
	tests := []struct{ line, want string }{
		{"pasta -t 22 -t 22", twice(22, "-t 22", "-t 22")},
		{"pasta -t 22 -t 22:23", twice(22, "-t 22", "-t 22:23")},
		{"pasta -t 20-30 -t 25-40", twice(25, "-t 20-30", "-t 25-40")},
		{"pasta -t 25-40 -t 20-30", twice(25, "-t 20-30", "-t 25-40")},
		{"pasta -t 22 -t 127.0.0.1/22", twice(22, "-t 22", "-t 127.0.0.1/22")},
		{"pasta -t 0.0.0.0/22 -t 127.0.0.1/22", twice(22, "-t 0.0.0.0/22", "-t 127.0.0.1/22")},
		{"pasta -t 22 -t %eth0/22", twice(22, "-t 22", "-t %eth0/22")},
		{"pasta -t %eth0/22 -t 192.0.2.1%eth0/22", twice(22, "-t %eth0/22", "-t 192.0.2.1%eth0/22")},
		{"pasta --udp-ns 53 -U 53:54", twice(53, "-U 53", "-U 53:54")},
		{"pasta -t 22,20-25:30-35", "port 22 is forwarded twice, by '20-25:30-35' and by '22' of option '-t 22,20-25:30-35'"},
		{"pasta -t auto -t all", "option '-t auto' and option '-t all' both claim whole ranges of ports; give one of them"},
		{"pasta -t all -t ~22", "option '-t all' and option '-t ~22' both claim whole ranges of ports; give one of them"},
		{"passt -t auto", "invalid port specification for option '-t auto': 'auto' is for pasta mode only"},
		{"pasta -4 -t [::1]/22", "invalid port specification for option '-t [::1]/22': an IPv6 address with --ipv4-only"},
		{"pasta -6 -t 127.0.0.1/22", "invalid port specification for option '-t 127.0.0.1/22': an IPv4 address with --ipv6-only"},
		{"pasta -4 -T 22:[2001:db8::7]/22", "invalid port specification for option '-T 22:[2001:db8::7]/22': an IPv6 address with --ipv4-only"},
		{"pasta -6 -u all:192.0.2.7", "invalid port specification for option '-u all:192.0.2.7': an IPv4 address with --ipv6-only"},
		{"pasta --tcp-ports=80-22", "invalid port specification for option '-t 80-22': range '80-22' is reversed"},
	}
	for _, tt := range tests {
		argv := strings.Fields(tt.line)
		_, err := Parse(argv)
		if want := argv[0] + ": " + tt.want; err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", tt.line, err, want)
		}
	}
}

// TestForwardMeets has ports that one option leads to inside and another leads out of.
func TestForwardMeets(t *testing.T) {
	const lo, only = " --host-lo-to-ns-lo", " --splice-only"
	meet := func(port, in, out string) string {
		return "pasta: port " + port + " inside is where option '" + in + "' leads to, and option '" + out + "' leads it back to the host"
	}
	for line, want := range map[string]string{
		"-t 8080 -T 8080" + lo:                               meet("8080", "-t 8080", "-T 8080"),
		"-t 80:8080 -T 8000-8100:80-180" + only:              meet("8080", "-t 80:8080", "-T 8000-8100:80-180"),
		"-t none -u 53 -U 53" + lo:                           meet("53", "-u 53", "-U 53"),
		"-t 8080:127.0.0.1/8080 -T 8080":                     meet("8080", "-t 8080:127.0.0.1/8080", "-T 8080"),
		"-t 8080:127.0.0.9/8080 -T 0.0.0.0/8080":             meet("8080", "-t 8080:127.0.0.9/8080", "-T 0.0.0.0/8080"),
		"-t 8080:192.0.2.7/8080 -T 192.0.2.7/8080":           meet("8080", "-t 8080:192.0.2.7/8080", "-T 192.0.2.7/8080"),
		"-t 8080 -T ::/8080":                                 meet("8080", "-t 8080", "-T ::/8080"),
		"-t 8080 -T %lo/8080":                                meet("8080", "-t 8080", "-T %lo/8080"),
		"-t all -T all" + only:                               meet("1", "-t all", "-T all"),
		"-t all:::1 -T ::1/all":                              meet("1", "-t all:::1", "-T ::1/all"),
		"-t 8080 -T 8080":                                    "",
		"-t 8080 -T 8080 --no-splice" + lo:                   "",
		"-t 8080:9090 -T 8080" + lo:                          "",
		"-t 8080:127.0.0.9/8080 -T 8080":                     "",
		"-t 8080:192.0.2.7/8080 -T 0.0.0.0/8080":             "",
		"-t 8080 -T 127.0.0.9/8080" + lo:                     "",
		"-t 8080 -T 127.0.0.1/8080":                          "",
		"-t 53 -T 127.0.0.53/53:127.0.0.53/53" + only:        "",
		"-t 8080:[::1]/8080 -T 0.0.0.0/8080 -u none -U none": "",
		"-t auto -T auto" + only:                             "",
	} {
		_, err := Parse(append([]string{"pasta"}, strings.Fields(line)...))
		if got := fmt.Sprint(err); err == nil && want != "" || err != nil && got != want {
			t.Errorf("%s:\n got %v\nwant %s", line, err, want)
		}
	}
}

// TestForwardGivesWay has "all", and what UDP has from TCP, leave alone what meets a port that is named.
func TestForwardGivesWay(t *testing.T) {
	for _, c := range []struct{ line, tcpIn, udpIn, tcpOut, udpOut string }{
		{"-t 8080 -T all", "8080", "auto 8080", "all,~8080", "all,~8080"},
		{"-t 80:8080 -T all -u none", "80:8080", "", "all,~8080", "all"},
		{"-t all,8080:80 -T 8080", "all,8080:80,~8080", "all,8080", "8080", "auto "},
		{"-t 8080:9090 -T 8079-8081", "8080:9090", "auto 8080", "8079-8081", "auto 8079,8081"},
		{"-t 8079-8081 -T none -U 8080", "8079-8081", "auto 8079,8081", "", "8080"},
		{"-t all -T none -U all", "all", "all,~1-65535", "", "all"},
	} {
		f := &mustParse(t, append([]string{"pasta", "--splice-only"}, strings.Fields(c.line)...)...).Forward
		for i, want := range []string{c.tcpIn, c.udpIn, c.tcpOut, c.udpOut} {
			var got []string
			for _, s := range [][]PortSpec{f.TCPIn, f.UDPIn, f.TCPOut, f.UDPOut}[i] {
				got = append(got, s.String())
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s: list %d is %q, want %q", c.line, i, got, want)
			}
		}
	}
}

// TestForwardNoConflict has ports that look alike and are apart.
func TestForwardNoConflict(t *testing.T) {
	for _, line := range []string{
		"pasta -t 127.0.0.1/22 -t 127.0.0.2/22",
		"pasta -t 127.0.0.1/22 -t ::1/22",
		"pasta -t 0.0.0.0/22 -t ::/22",
		"pasta -t %eth0/22 -t %eth1/22:23",
		"pasta -t 192.0.2.1%eth0/22 -t 192.0.2.1%eth1/22",
		"pasta -t 20-24 -t 25-30",
		"pasta -t 20-30,~25 -t 25:99",
		"pasta -t 22 -u 22 -T 22 -U 22",
		"pasta -t all -t 22:23",
		"pasta -t auto -t 22:23",
		"pasta -t 127.0.0.1/auto -t ::1/auto",
	} {
		mustParse(t, strings.Fields(line)...)
	}
}

func TestExcluded(t *testing.T) {
	s, _, err := ParsePorts("-t", "all,~20-22,~1000")
	if err != nil {
		t.Fatal(err)
	}
	for port, want := range map[uint16]bool{19: false, 20: true, 22: true, 23: false, 1000: true, 65535: false} {
		if s.Excluded(port) != want {
			t.Errorf("Excluded(%d) = %v", port, !want)
		}
	}
}

// TestInheritKeepsTCP checks that what UDP inherits does not alias TCP's rules.
func TestInheritKeepsTCP(t *testing.T) {
	c := mustParse(t, "passt", "-t", "22:23")
	tcp, udp := c.Forward.TCPIn[0].Rules[0], c.Forward.UDPIn[0].Rules[0]
	if tcp.ToFirst != 23 || udp.ToFirst != 22 {
		t.Errorf("TCP leads to %d, UDP to %d", tcp.ToFirst, udp.ToFirst)
	}
}

// TestManyPorts checks that as many options as a thousand published ports make
// come out one by one.
func TestManyPorts(t *testing.T) {
	argv := []string{"pasta"}
	for i := range 5000 {
		argv = append(argv, "-t", strconv.Itoa(1024+i))
	}
	c := mustParse(t, argv...)
	if n := len(c.Forward.TCPIn); n != 5000 {
		t.Errorf("%d occurrences", n)
	}
	if a := c.Forward.TCPIn[0].Rules[0].Addr; a != (netip.Addr{}) {
		t.Errorf("listens on %v", a)
	}
}

// TestLoopsOfManyPorts looks for loops among lists of single ports without a copy of one list for each port of the other.
func TestLoopsOfManyPorts(t *testing.T) {
	var in, out strings.Builder
	for p := 2000; p < 3000; p += 2 {
		fmt.Fprintf(&in, ",%d", p)
		fmt.Fprintf(&out, ",%d", p+1)
	}
	a, _, err := ParsePorts("-t", in.String()[1:])
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := ParsePorts("-T", out.String()[1:])
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1, func() { err = breakLoops([]PortSpec{a}, []PortSpec{b}, true) }); n > 10 || err != nil {
		t.Errorf("%v allocations for two lists of 500 ports (%v)", n, err)
	}
}
