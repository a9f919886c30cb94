package lifecycle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCommandStatus(t *testing.T) {
	u := newUser(t)
	for _, c := range []struct {
		line string
		want int
	}{
		{"exit 0", 0},
		{"exit 3", 3},
		{"exit 255", 255},
		{"kill -KILL $$", 137},
		{"kill -TERM $$", 143},
	} {
		r := u.finish("pasta", "--config-net", "--", "sh", "-c", c.line)
		r.expect(c.want, "", "")
		u.mustBeGone()
	}
}

func TestCommandSurroundings(t *testing.T) {
	u := newUser(t)
	for _, c := range []struct{ line, want string }{
		{"id -u; id -g", "0\n0\n"},
		{"cat /proc/sys/net/ipv4/ping_group_range", "0\t0\n"},
		{"cat /proc/self/setgroups", "deny\n"},
		{"echo /proc/[0-9]*", "/proc/1 /proc/2\n"},
		{"ls /proc/self/fd | wc -l", "4\n"}, // and the directory's own
		{"tr '\\0' ' ' </proc/1/cmdline | grep -c pasta", "1\n"},
		{"pwd", u.dir + "\n"},
	} {
		r := u.finish("pasta", "--", "sh", "-c", c.line)
		r.expect(0, c.want, "")
	}
	outer := readlink(t, "/proc/self/ns/")
	r := u.finish("pasta", "--", "sh", "-c", "cd /proc/self/ns; for n in user net pid ipc uts mnt; do readlink $n; done")
	for i, inner := range strings.Fields(r.stdout.String()) {
		if inner == outer[i] {
			t.Errorf("the command is in our namespace %s", inner)
		}
	}
}

func readlink(t *testing.T, dir string) (links []string) {
	t.Helper()
	for _, name := range []string{"user", "net", "pid", "ipc", "uts", "mnt"} {
		l, err := os.Readlink(dir + name)
		if err != nil {
			t.Fatal(err)
		}
		links = append(links, l)
	}
	return links
}

// Other descriptors of the caller reach neither the command nor the engine.
func TestStrayDescriptors(t *testing.T) {
	u := newUser(t)
	r := u.finish("sh", "-c", "exec pasta -q -- sh -c 'ls /proc/self/fd' 7</dev/null 9</etc/passwd")
	r.expect(0, "0\n1\n2\n3\n", "")
}

// The command starts with the caller's own mask, ignored signals and limits.
func TestCommandInherits(t *testing.T) {
	u := newUser(t)
	const show = "grep -E ^Sig(Blk|Ign) /proc/self/status"
	for _, with := range []string{
		"env",
		"env --ignore-signal=PIPE",
		"env --ignore-signal=HUP,INT,QUIT,TERM,CHLD,USR1,TSTP,PIPE",
		"env --block-signal=HUP,INT,QUIT,TERM,CHLD,USR1,USR2,RTMIN,PIPE",
		"env --block-signal=INT --ignore-signal=INT",
	} {
		plain := u.finish(strings.Fields(with + " " + show)...)
		inside := u.finish(strings.Fields(with + " pasta -q -- " + show)...)
		if plain.status != 0 || plain.stdout.Len() == 0 {
			t.Fatalf("%s: status %d, %s", with, plain.status, plain.stderr.String())
		}
		inside.expect(0, plain.stdout.String(), "")
	}
	r := u.finish("sh", "-c", "ulimit -Sn 321; ulimit -Hn 1234; exec pasta -q -- sh -c 'ulimit -Sn; ulimit -Hn'")
	r.expect(0, "321\n1234\n", "")
}

func TestShell(t *testing.T) {
	u := newUser(t)
	for _, shell := range []string{"", "/bin/sh", "/bin/bash"} {
		if _, err := os.Stat(shell); shell != "" && err != nil {
			continue
		}
		r := u.command("pasta")
		r.Env = append(r.Env, "SHELL="+shell)
		r.Stdin = strings.NewReader("echo $0; exit 5\n")
		guard := time.AfterFunc(patience, func() { t.Errorf("SHELL=%s does not end: %v", shell, processes(u.uid)); u.killAll() })
		out, _ := r.Output()
		guard.Stop()
		want := "-" + filepath.Base(shell) + "\n"
		if shell == "" {
			want = "-sh\n"
		}
		if string(out) != want || r.ProcessState.ExitCode() != 5 {
			t.Errorf("SHELL=%s: %q, status %d, want %q, 5", shell, out, r.ProcessState.ExitCode(), want)
		}
	}
}

func TestCommandNotThere(t *testing.T) {
	u := newUser(t)
	plain := filepath.Join(u.dir, "plain")
	script := filepath.Join(u.dir, "script")
	broken := filepath.Join(u.dir, "broken")
	for path, content := range map[string]string{plain: "", script: "exit 8\n", broken: "#!/nonexistent/interpreter\n"} {
		mode := os.FileMode(0o755)
		if path == plain {
			mode = 0o644
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	u.finish("pasta", "--", "no-such-command").expect(127, "", "pasta: no-such-command: command not found\n")
	u.finish("pasta", "--", "/nonexistent/x").expect(127, "", "pasta: /nonexistent/x: no such file or directory\n")
	u.finish("pasta", "--", plain).expect(126, "", "pasta: "+plain+": permission denied\n")
	u.finish("pasta", "--", u.dir).expect(126, "", "pasta: "+u.dir+": is a directory\n")
	u.finish("pasta", "--", script).expect(8, "", "")
	u.finish("pasta", "--", broken).expect(127, "", "pasta: "+broken+": no such file or directory\n")
}

// Process 1 takes and reaps orphans, and what the command leaves running ends
// with it.
func TestOrphans(t *testing.T) {
	u := newUser(t)
	r := u.finish("pasta", "--", "sh", "-c", `
		set -- $(sh -c 'sleep 1000 >/dev/null & echo $!; sh -c true &')
		echo parent $(ps -o ppid= -p $1)
		kill $1
		while ps -e -o stat= | grep -q Z; do :; done
		sh -c 'sleep 1000 >/dev/null &'`)
	r.expect(0, "parent 1\n", "")
	u.mustBeGone()
}
