package e2e

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"penne/internal/sys"
	"penne/test/bed"
)

// TestProtocolsSwitchedOff has one protocol at a time dropped, without an answer, and the others go on. Without NDP,
// which --no-icmp implies, the namespace cannot find its neighbours of IPv6.
func TestProtocolsSwitchedOff(t *testing.T) {
	need(t, "socat")
	b := newBed(t)
	remote := direct(t, b, b.Remote)
	for _, network := range []string{"tcp", "udp"} {
		serveIn(t, remote, network, "who", at(bed.RemoteIP4, 7000), at(bed.RemoteIP6, 7000))
	}
	for option, want := range map[string]string{
		"--no-tcp":  "udp4 icmp4 udp6 icmp6",
		"--no-udp":  "tcp4 icmp4 tcp6 icmp6",
		"--no-icmp": "tcp4 udp4",
		"--no-ndp":  "tcp4 udp4 icmp4",
		"--no-ra":   "tcp4 udp4 icmp4 tcp6 udp6 icmp6",
	} {
		t.Run(option, func(t *testing.T) {
			s := attach(t, b, option)
			var got []string
			for _, f := range families {
				for _, proto := range []string{"tcp", "udp", "icmp"} {
					if answers(t, s, proto, f, strings.Contains(want, proto+f.name[1:])) {
						got = append(got, proto+f.name[1:])
					}
				}
			}
			if strings.Join(got, " ") != want {
				t.Errorf("what is answered: %s, want %s", strings.Join(got, " "), want)
			}
		})
	}
}

// answers tells whether the remote host answers; where it is not expected to, a third of a second is enough to see.
func answers(t *testing.T, s *bed.Session, proto string, f family, expected bool) bool {
	t.Helper()
	patience := "0.3"
	to := "UDP" + f.flag[1:] + ":" + bracketed(f.remote) + ":7000"
	argv := []string{"sh", "-c", "echo who | socat -t" + patience + " - " + to + " | grep -m1 ."}
	switch {
	case proto == "icmp" && expected:
		argv = []string{"ping", f.flag, "-c1", "-W20", f.remote}
	case proto == "icmp":
		argv = []string{"ping", f.flag, "-c1", "-W" + patience, f.remote}
	case expected:
		return ask(t, s, proto, at(f.remote, 7000)).Remote != ""
	case proto == "tcp":
		argv = []string{"socat", "-u", "TCP" + to[3:] + ",connect-timeout=" + patience, "-"}
	}
	res, err := s.Run(argv...)
	if err != nil {
		t.Fatal(err)
	}
	if proto == "tcp" && res.Status != 0 && !strings.Contains(res.Stderr, "timed out") && !strings.Contains(res.Stderr, "No route") {
		t.Errorf("%s is refused, not dropped: %s", f.name, res.Stderr)
	}
	return res.Status == 0
}

// TestOurAddress looks at whom the namespace takes its neighbours for.
func TestOurAddress(t *testing.T) {
	b := newBed(t)
	for option, want := range map[string]string{"": "9a:55:9a:55:9a:55", "02:00:5e:00:53:07": "02:00:5e:00:53:07"} {
		var options []string
		if option != "" {
			options = []string{"-M", option}
		}
		s := attach(t, b, options...)
		for _, f := range families {
			run(t, s, "ping", "-c1", f.remote)
			if out := run(t, s, "ip", "neigh", "show", f.remote); !strings.Contains(out, "lladdr "+want) {
				t.Errorf("neighbour %q, want %s", out, want)
			}
		}
	}
}

// TestTemplateInterface takes addresses and routes of a second interface, for both families or for one.
func TestTemplateInterface(t *testing.T) {
	b := newBed(t)
	onHost(t, b, "link", "add", "second", "type", "veth", "peer", "name", "other")
	for _, link := range []string{"second", "other"} {
		onHost(t, b, "link", "set", link, "up")
	}
	onHost(t, b, "addr", "add", "203.0.113.5/28", "dev", "second")
	onHost(t, b, "route", "add", "10.7.0.0/16", "via", "203.0.113.1")
	onHost(t, b, "-6", "addr", "add", "2001:db8:7::5/72", "dev", "second", "nodad")
	const second4, second6 = "203.0.113.5/28", "2001:db8:7::5/72"
	host4, host6 := bed.HostIP4+"/24", bed.HostIP6+"/64"
	for _, c := range []struct {
		options, link, globals string
		routed                 bool // by the second interface
	}{
		{"-i second", "second", second4 + " " + second6, true},
		{"--outbound-if4 second", "second", second4 + " " + host6, true},
		{"--outbound-if6 second", bed.Link, host4 + " " + second6, false},
		{"--outbound-if4 second -i " + bed.Link, bed.Link, host4 + " " + host6, false},
	} {
		s := attach(t, b, strings.Fields(c.options)...)
		if got := addresses(t, s)[c.link].globals(); got != c.globals {
			t.Errorf("%s: addresses on %s: %s, want %s", c.options, c.link, got, c.globals)
		}
		if out := run(t, s, "ip", "route", "show", "10.7.0.0/16"); strings.Contains(out, "via 203.0.113.1 dev "+c.link) != c.routed {
			t.Errorf("%s: route %q", c.options, out)
		}
	}
}

// TestPin looks at where the threads of the engine may run: each worker on one CPU, the others on any.
func TestPin(t *testing.T) {
	b := newBed(t)
	cpus, err := sys.UsableCPUs()
	if err != nil {
		t.Fatal(err)
	}
	if len(cpus) < 2 {
		t.Skip("there is but one CPU")
	}
	s := attach(t, b, "--pin", "--queues", "2")
	engine := serving(t, s)
	if err := syscall.Kill(engine, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	awaitStderr(t, s, "total") // which all workers have to run for
	pinned, rest := map[string]int{}, 0
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", engine))
	for _, file := range tasks {
		_, list, _ := strings.Cut(readFile(t, file), "Cpus_allowed_list:\t")
		list, _, _ = strings.Cut(list, "\n")
		if strings.ContainsAny(list, "-,") {
			rest++
			continue
		}
		pinned[list]++
	}
	if pinned[strconv.Itoa(cpus[0])] != 1 || pinned[strconv.Itoa(cpus[1])] != 1 || len(pinned) != 2 || rest == 0 {
		t.Errorf("pinned threads: %v, others: %d, CPUs %v", pinned, rest, cpus)
	}
}

// TestInterfaceNameTaken says so in one line, leaves what is there alone, and works under another name.
func TestInterfaceNameTaken(t *testing.T) {
	b := newBed(t)
	line := fmt.Sprintf("ip link add %s type veth peer name x && exec sh -c '%s'", bed.Link, stay)
	holder, err := b.Host.Start(bed.Spec{Argv: []string{"unshare", "-Urn", "sh", "-c", line}, Ready: "^up$"})
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Kill()
	pid := strconv.Itoa(holder.PID())
	for _, name := range []string{bed.Link, "lo"} {
		res := pasta(t, b, append(quiet, "-I", name, pid)...)
		if res.Status != 1 || strings.Count(res.Stderr, "\n") != 1 || !strings.Contains(res.Stderr, "choose another one") {
			t.Errorf("-I %s: status %d, %q", name, res.Status, res.Stderr)
		}
	}
	links := func() string {
		res, err := b.Host.Run(bed.Spec{Argv: []string{"nsenter", "-t", pid, "-n", "ip", "-o", "link"}, Root: true})
		if err != nil {
			t.Fatal(err)
		}
		return res.Stdout
	}
	if got := links(); strings.Count(got, "\n") != 3 {
		t.Errorf("interfaces: %s", got)
	}
	argv := append([]string{staged(t, b), "--config-net", "-f", "-I", "ravioli"}, noForward...)
	p, err := b.Host.Start(bed.Spec{Argv: append(argv, pid), Ready: "^tap ravioli with "})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	if got := links(); !strings.Contains(got, ": ravioli: ") {
		t.Errorf("interfaces: %s", got)
	}
}
