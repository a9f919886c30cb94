package nl

import (
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"penne/test/links"
)

// ipCmds runs lines of ip(8) in the thread's namespace; "-6" at the start of a
// line is for IPv6. A line "veth NAME" makes a link whose other end is up too.
func ipCmds(t *testing.T, lines ...string) {
	t.Helper()
	args, batch := []string{"-batch", "-"}, ""
	run := func() {
		cmd := exec.Command("ip", args...)
		cmd.Stdin = strings.NewReader(batch)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("ip %s: %v: %s in\n%s", args, err, out, batch)
			runtime.Goexit()
		}
		batch = ""
	}
	for _, l := range lines {
		if name, ok := strings.CutPrefix(l, "veth "); ok {
			l = "link add " + name + " type veth peer name " + name + "p\nlink set " + name + "p up"
		}
		l, v6 := strings.CutPrefix(l, "-6 ")
		if v6 != (len(args) == 3) {
			run()
			args = map[bool][]string{false: {"-batch", "-"}, true: {"-6", "-batch", "-"}}[v6]
		}
		batch += l + "\n"
	}
	run()
}

// ipShow returns what ip(8) prints for the words.
func ipShow(t *testing.T, words string) string {
	t.Helper()
	out, err := exec.Command("ip", strings.Fields(words)...).CombinedOutput()
	if err != nil {
		t.Errorf("ip %s: %v: %s", words, err, out)
	}
	return string(out)
}

// host are the usual lines of a host with both families on the link "up0".
var host = []string{
	"link set lo up",
	"veth up0",
	"link set up0 up",
	"addr add 198.51.100.2/24 dev up0",
	"-6 addr add 2001:db8:1::2/64 dev up0 nodad",
	"route add default via 198.51.100.1 dev up0",
	"-6 route add default via 2001:db8:1::1 dev up0",
}

// readTemplate makes a Template of the calling thread's network namespace.
func readTemplate(o Options) (Template, error) {
	c, err := Dial()
	if err != nil {
		return Template{}, err
	}
	defer c.Close()
	s, err := c.Snapshot()
	if err != nil {
		return Template{}, err
	}
	return s.Template(o)
}

// hostTemplate makes a namespace by ip(8) lines and reads its Template.
func hostTemplate(t *testing.T, o Options, lines ...string) (tpl Template, err error) {
	t.Helper()
	links.Inside(t, func() {
		ipCmds(t, lines...)
		tpl, err = readTemplate(o)
	})
	return tpl, err
}

func mustTemplate(t *testing.T, o Options, lines ...string) Template {
	t.Helper()
	tpl, err := hostTemplate(t, o, lines...)
	if err != nil {
		t.Fatal(err)
	}
	return tpl
}

// guest configures a namespace after a Template, and hands the report and a
// Conn in it to check.
func guest(t *testing.T, cfg Config, check func(c *Conn, rep Report)) {
	t.Helper()
	links.Inside(t, func() {
		ipCmds(t, "veth "+cfg.Name)
		c, err := Dial()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if err := c.LoopbackUp(); err != nil {
			t.Error(err)
		}
		rep, err := c.Configure(cfg)
		if err != nil {
			t.Error(err)
			return
		}
		check(c, rep)
	})
}

// readBack is the Template of the calling thread's namespace.
func readBack(t *testing.T, c *Conn) Template {
	t.Helper()
	s, err := c.Snapshot()
	if err != nil {
		t.Error(err)
		return Template{}
	}
	tpl, err := s.Template(Options{})
	if err != nil {
		t.Error(err)
	}
	return tpl
}

func addr(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

func writeFile(path, text string) error { return os.WriteFile(path, []byte(text), 0) }
