package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"penne/test/bed"
)

// caller is an agent in the host namespace as a container engine's user has it: with "unshare -Urm", it is uid 0 of
// a user namespace with all capabilities there, and mounts of its own; without, it is the plain user.
func caller(t *testing.T, b *bed.Bed, inUserNamespace bool) *bed.Session {
	t.Helper()
	if !inUserNamespace {
		return direct(t, b, b.Host)
	}
	s, err := b.Pasta("/usr/bin/unshare", "-Urm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// stay is a shell's line for a process whose namespaces others join. It says "up", and does not end by exec of sleep: a
// process in the middle of exec lets nobody else look at its namespaces.
const stay = "sleep 1000 & echo up; wait"

// staged is the copy of the program under test that everybody can run.
func staged(t *testing.T, b *bed.Bed) string {
	t.Helper()
	program, err := b.Stage(pastaBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// script runs shell text in a session, with variables before it, and fails the test unless it succeeds.
func script(t *testing.T, s *bed.Session, vars map[string]string, text string) string {
	t.Helper()
	argv := []string{"env"}
	for k, v := range vars {
		argv = append(argv, k+"="+v)
	}
	return run(t, s, append(argv, "sh", "-ec", text)...)
}

// netnsFile makes a network namespace that is bound to a file, as Podman does.
const netnsFile = `
	mount -t tmpfs none "$DIR"
	touch "$DIR/ns"
	unshare -n sh -c 'mount --bind /proc/self/ns/net "$DIR/ns"; ip link set lo up'
`

// echoInside serves by socat in the namespace of the file: what it answers are the addresses as it sees them.
const echoInside = `nsenter --net="$DIR/ns" socat -d -d %s,fork SYSTEM:'echo $SOCAT_SOCKADDR $SOCAT_PEERADDR'`

// TestPodman runs the argument vectors of Podman, as it does, and looks at what it then relies on.
func TestPodman(t *testing.T) {
	need(t, "socat")
	b, host, remote := portsBed(t)
	const published = "-t " + net4 + "/8000-8000:80-80 -t ::1/8001-8003:81-83 -t 127.0.0.1%lo/8000:80 -u " + net6 + "/8000-8002:8000-8002"
	for _, c := range []struct {
		name    string
		options string // before the ones that Podman always gives
		fill    string // the "none" that it gives where an option was not
		global4 string
		link    string
		mtu     int
	}{
		{"plain", "", "-t none -u none", net4 + "/24", bed.Link, 65520},
		{"published", published, "", net4 + "/24", bed.Link, 65520},
		{"configured", "-4 -m 1280 -I eth7 -a 10.9.8.7 -g 10.9.8.1 -n 24 " + "-t 127.0.0.1/8000-8000:80-80", "-u none", "10.9.8.7/24", "eth7", 1280},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, err := b.ScratchDir()
			if err != nil {
				t.Fatal(err)
			}
			s := caller(t, b, true)
			vars := map[string]string{"DIR": dir, "PASTA": staged(t, b), "OPTIONS": c.options, "FILL": c.fill}
			script(t, s, vars, netnsFile)
			// The command substitution waits for the end of both outputs, as Podman does.
			out := script(t, s, vars, `
				said=$("$PASTA" --config-net --pid "$DIR/pid" $OPTIONS --dns-forward 169.254.1.1 $FILL -T none -U none \
					--no-map-gw --quiet --netns "$DIR/ns" --map-guest-addr 169.254.1.2 2>&1) || { echo "$said"; exit 1; }
				echo "said: $said"
				nsenter --net="$DIR/ns" ip -o addr show scope global
				nsenter --net="$DIR/ns" ip link
				kill -0 "$(cat "$DIR/pid")"
			`)
			for _, want := range []string{"said: \n", c.global4, ": " + c.link + ":", fmt.Sprint("mtu ", c.mtu)} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in %s", want, out)
				}
			}
			if strings.Contains(c.options, "8000-8000:80-80") {
				inside(t, s, vars, fmt.Sprintf(echoInside, "TCP4-LISTEN:80"))
				wantAnswer(t, host, "TCP4:127.0.0.1:8000", strings.TrimSuffix(c.global4, "/24")+" ")
			}
			if c.options == published {
				inside(t, s, vars, fmt.Sprintf(echoInside, "TCP6-LISTEN:83,ipv6only"))
				wantAnswer(t, host, "TCP6:[::1]:8003", "[2001:0db8:0001:")
				wantAnswer(t, remote, "TCP4:"+at(net4, 8000), net4+" "+bed.RemoteIP4)
			}
			script(t, s, vars, `
				pid=$(cat "$DIR/pid")
				umount "$DIR/ns"
				rm "$DIR/ns"
				while [ -e /proc/$pid/fd/0 ]; do :; done
			`)
		})
	}
}

// inside starts a server by a shell command that says when it listens.
func inside(t *testing.T, s *bed.Session, vars map[string]string, command string) {
	t.Helper()
	argv := []string{"env"}
	for k, v := range vars {
		argv = append(argv, k+"="+v)
	}
	stop, err := s.Background("listening on", append(argv, "sh", "-c", "exec 2>&1; "+command)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop() })
}

// wantAnswer connects by socat and looks at how the answer begins.
func wantAnswer(t *testing.T, s *bed.Session, to, want string) {
	t.Helper()
	if out := run(t, s, "socat", "-u", "-T", "20", to, "-"); !strings.HasPrefix(out, want) {
		t.Errorf("%s answers %q, want %q", to, out, want)
	}
}

// TestPodmanStopsItsSharedPasta sends signals by the pid file.
func TestPodmanStopsItsSharedPasta(t *testing.T) {
	b := newBed(t)
	dir, err := b.ScratchDir()
	if err != nil {
		t.Fatal(err)
	}
	s := caller(t, b, true)
	vars := map[string]string{"DIR": dir, "PASTA": staged(t, b)}
	script(t, s, vars, netnsFile+`
		"$PASTA" --config-net --pid "$DIR/pid" -t none -u none -T none -U none --quiet --netns "$DIR/ns"
		pid=$(cat "$DIR/pid")
		kill -0 $pid
		kill -TERM $pid
		while [ -e /proc/$pid/fd/0 ]; do :; done
		umount "$DIR/ns"
	`)
}

// detached makes a network namespace of a user namespace that only a file keeps, as RootlessKit's --detach-netns does.
// Sessions that begin later see the file.
func detached(t *testing.T, b *bed.Bed, userns, dir string) string {
	t.Helper()
	maker, err := b.Host.Start(bed.Spec{
		Argv:  []string{"nsenter", "--user=" + userns, "--preserve-credentials", "unshare", "-n", "sh", "-c", "ip link set lo up; " + stay},
		Ready: "^up$",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer maker.Kill()
	file := filepath.Join(dir, "netns")
	writeFile(t, file, "")
	if err := b.Host.BindMount(fmt.Sprintf("/proc/%d/ns/net", maker.PID()), file); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestRootlessKit runs both argument vectors of RootlessKit: by the child's PID, and by detached namespaces. Pasta ends
// with what it was told: the child, or the file.
func TestRootlessKit(t *testing.T) {
	need(t, "socat")
	b := newBed(t)
	const common = "--stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 --netmask=24 " +
		"--gateway=10.0.2.2 --dns-forward=10.0.2.3 --no-map-gw --ipv4-only "
	const byPaths = "--tcp-ports=none --udp-ports=none --userns=%[2]s --netns=%[3]s"
	for _, c := range []struct{ name, options, port string }{
		{"by pid", "--tcp-ports=auto --udp-ports=auto %[1]d", "8080"},
		{"by paths", byPaths, ""},
		{"detached", byPaths, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			child, err := b.Host.Start(bed.Spec{
				Argv:  []string{"unshare", "-Urn", "sh", "-c", "ip link set lo up; " + stay},
				Ready: "^up$",
			})
			if err != nil {
				t.Fatal(err)
			}
			defer child.Kill()
			dir, err := b.ScratchDir()
			if err != nil {
				t.Fatal(err)
			}
			userns, netns := fmt.Sprintf("/proc/%d/ns/user", child.PID()), fmt.Sprintf("/proc/%d/ns/net", child.PID())
			if c.name == "detached" {
				netns = detached(t, b, userns, dir)
			}
			host := direct(t, b, b.Host)
			enter := "nsenter --user=" + userns + " --net=" + netns + " --preserve-credentials "
			if c.port != "" { // bound before pasta starts: to be forwarded when it is ready
				inside(t, host, nil, enter+`socat -d -d TCP4-LISTEN:8080,fork SYSTEM:'echo $SOCAT_SOCKADDR $SOCAT_PEERADDR'`)
			}
			vars := map[string]string{
				"PASTA": staged(t, b), "DIR": dir, "OPTIONS": fmt.Sprintf(common+c.options, child.PID(), userns, netns), "ENTER": enter,
			}
			out := script(t, host, vars, `
				said=$("$PASTA" --pid "$DIR/pid" $OPTIONS 2>&1) || { echo "$said"; exit 1; }
				$ENTER ip -o -4 addr show dev tap0
				$ENTER ip -4 route
				[ ! -e /proc/net/if_inet6 ] || $ENTER ip -o -6 addr show dev tap0 scope global
			`)
			for _, want := range []string{"10.0.2.100/24", "default via 10.0.2.2 dev tap0"} {
				if !strings.Contains(out, want) || strings.Contains(out, "inet6") {
					t.Errorf("no %q, or IPv6, in %s", want, out)
				}
			}
			if c.port != "" {
				wantAnswer(t, host, "TCP4:127.0.0.1:"+c.port, "10.0.2.100 10.0.2.100")
			}
			if c.name == "detached" {
				inHost(t, b, "umount", netns)
				inHost(t, b, "rm", netns)
			} else {
				child.Kill()
			}
			script(t, host, vars, `pid=$(cat "$DIR/pid"); while [ -e /proc/$pid/fd/0 ]; do :; done`)
		})
	}
}

// TestProbing runs what callers run to find out what pasta can do.
func TestProbing(t *testing.T) {
	b := newBed(t)
	for _, c := range []struct {
		argv   string
		status int
		stdout string
		stderr string
	}{
		{"--version", 0, "pasta ", ""},
		{"--host-lo-to-ns-lo --version", 0, "pasta ", ""},
		{"--map-guest-addr 169.254.1.2 --version", 0, "pasta ", ""},
		{"--no-splice --version", 0, "pasta ", ""},
		{"--no-such-option --version", 1, "", "unrecognized option '--no-such-option'"},
		{"--map-guest-addrs 169.254.1.2", 1, "", "unrecognized option '--map-guest-addrs'"},
		{"--help", 0, "--map-guest-addr", ""},
	} {
		res := pasta(t, b, strings.Fields(c.argv)...)
		if res.Status != c.status || !strings.Contains(res.Stdout, c.stdout) || !strings.Contains(res.Stderr, c.stderr) {
			t.Errorf("%s: status %d, stdout %.60q, stderr %.100q", c.argv, res.Status, res.Stdout, res.Stderr)
		}
		if (res.Stderr != "") != (c.stderr != "") {
			t.Errorf("%s: stderr %q", c.argv, res.Stderr)
		}
	}
}

// TestLastOptionWins gives options twice, as users do through their container engine's configuration.
func TestLastOptionWins(t *testing.T) {
	b := newBed(t)
	s := attach(t, b, "--ns-mac-addr", "02:00:00:00:00:01", "-m", "1400", "--ns-mac-addr", "02:00:00:00:00:02", "-m", "1500")
	out := run(t, s, "ip", "-o", "link", "show", bed.Link)
	if !strings.Contains(out, "02:00:00:00:00:02") || !strings.Contains(out, "mtu 1500") {
		t.Errorf("the first of two options is in force: %s", out)
	}
}

// TestOutputOfAFailure is one line on standard error, for a caller that shows it to its user.
func TestOutputOfAFailure(t *testing.T) {
	b := newBed(t)
	taken, err := b.Host.Listen("tcp", ":8000")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir, err := b.ScratchDir()
	if err != nil {
		t.Fatal(err)
	}
	s := caller(t, b, true)
	vars := map[string]string{"DIR": dir, "PASTA": staged(t, b)}
	out := script(t, s, vars, netnsFile+`
		"$PASTA" --config-net -t 8000-8000:80-80 -u none -T none -U none --quiet --pid "$DIR/pid" --netns "$DIR/ns" >"$DIR/out" 2>"$DIR/err" && exit 9
		echo status $?
		cat "$DIR/out" "$DIR/err"
		[ ! -e "$DIR/pid" ]
		nsenter --net="$DIR/ns" cat /proc/self/net/dev
		umount "$DIR/ns"
	`)
	const want = "status 1\nFailed to bind port 8000 (Address already in use) for option '-t 8000-8000:80-80'"
	if got := strings.ReplaceAll(out, "pasta: ", ""); !strings.HasPrefix(got, want) {
		t.Errorf("%s\nwant it to begin with %s", out, want)
	}
	if strings.Contains(out, bed.Link+":") {
		t.Errorf("a tap is left in the namespace: %s", out)
	}
}
