package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"penne/test/bed"
	"penne/test/client"
)

// logger is a system logger of the test's own: a socket, to be bound over /dev/log.
type logger struct {
	t    *testing.T
	path string
	conn *net.UnixConn
}

func newLogger(t *testing.T, b *bed.Bed) *logger {
	t.Helper()
	path := filepath.Join(b.Dir(), "logger")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	return &logger{t, path, conn}
}

// line is the next one that matches, which comes sooner or later.
func (l *logger) line(pattern string) string {
	l.t.Helper()
	re := regexp.MustCompile(pattern)
	l.conn.SetReadDeadline(time.Now().Add(client.Patience))
	buf := make([]byte, 4096)
	for {
		n, err := l.conn.Read(buf)
		if err != nil {
			l.t.Fatalf("no line like %s in the system log: %v", pattern, err)
		}
		if re.Match(buf[:n]) {
			return string(buf[:n])
		}
	}
}

// rest is what is there to be read now.
func (l *logger) rest() string {
	l.t.Helper()
	// A deadline in the past would leave unread what is there.
	raw, err := l.conn.SyscallConn()
	if err != nil {
		l.t.Fatal(err)
	}
	var all []string
	buf := make([]byte, 4096)
	err = raw.Control(func(fd uintptr) {
		for {
			n, _, err := syscall.Recvfrom(int(fd), buf, syscall.MSG_DONTWAIT)
			if err != nil {
				return
			}
			all = append(all, string(buf[:n]))
		}
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

// onTerminal is shell text that runs $RUN on a terminal, as pasta's user, with $LOG for /dev/log. The rest of /dev is
// what pasta and script(1) need, since /dev/log may be missing, and must not be made for everybody.
const onTerminal = `
	mount --make-rprivate /
	mkdir "$DIR/dev"
	mount -t tmpfs none "$DIR/dev"
	cd "$DIR/dev"
	mkdir net pts
	touch log null tty urandom net/tun
	mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 none pts
	ln -s pts/ptmx ptmx
	mount --bind "$LOG" log
	for f in null tty urandom net/tun; do mount --bind /dev/$f $f; done
	cd /
	mount --rbind "$DIR/dev" /dev
	exec setpriv --reuid $ID --regid $ID --clear-groups script -qec "$RUN" /dev/null
`

// TestSystemLogger starts pasta from a terminal. In the background it tells the system logger what happens, under the
// number by which its caller knows it, and the terminal no more; in the other cases it leaves the logger alone.
func TestSystemLogger(t *testing.T) {
	need(t, "script")
	const changed = "the host's network has changed"
	for _, c := range []struct {
		name, options, ready string
		logged, shown, filed string // regular expressions for what is written after the start; "" is nothing
	}{
		{"background", "", "^returned", `^<30>[A-Z][a-z]{2} [ 0-9]\d [0-9:]{8} pasta\[PID\]: ` + changed + "$", "", ""},
		{"quiet", "-q", "^returned", "", "", ""},
		{"details", "-d", "^returned", "", "", ""},
		{"log file", "-l $DIR/file", "^returned", "", "", "INFO: " + changed},
		{"foreground", "-f", "^IPv6 after", "", changed, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t)
			dir, err := b.ScratchDir()
			if err != nil {
				t.Fatal(err)
			}
			l := newLogger(t, b)
			target, err := b.Host.Start(bed.Spec{Argv: []string{"unshare", "-Urn", "sh", "-c", "echo up; exec sleep 1000"}, Ready: "^up$"})
			if err != nil {
				t.Fatal(err)
			}
			defer target.Kill()
			command := fmt.Sprintf("%s --config-net --pid $DIR/pid %s %s %d", staged(t, b), c.options, strings.Join(noForward, " "), target.PID())
			p, err := b.Host.Start(bed.Spec{
				Argv: []string{"unshare", "-m", "sh", "-ec", onTerminal}, Root: true, Ready: c.ready,
				Env: []string{"DIR=" + dir, "LOG=" + l.path, fmt.Sprint("ID=", bed.UID), "RUN=" + command + " && echo returned"},
			})
			if err != nil {
				t.Fatal(err)
			}
			inHost(t, b, "timeout", "20", "sh", "-c", "until [ -s "+dir+"/pid ]; do :; done")
			pid := strings.TrimSpace(readFile(t, filepath.Join(dir, "pid")))
			if c.logged != "" {
				l.line(`^<30>.* pasta\[` + pid + `\]: tap ` + bed.Link)
			}
			onHost(t, b, "addr", "add", otherIP4+"/24", "dev", bed.Link)
			// Once that is inside, it is logged, before pasta hears of its end.
			inHost(t, b, "timeout", "20", "nsenter", "-t", strconv.Itoa(target.PID()), "-n", "sh", "-c",
				"until ip addr | grep -qF "+otherIP4+"; do :; done")
			if c.logged != "" {
				l.line(strings.ReplaceAll(c.logged, "PID", pid))
			}
			target.Kill()
			inHost(t, b, "timeout", "20", "sh", "-c", "while [ -e /proc/"+pid+"/fd/0 ]; do :; done")
			p.Wait()
			if got := l.rest(); c.logged == "" && got != "" {
				t.Errorf("in the system log: %s", got)
			}
			if c.filed != "" {
				wants(t, "log file", readFile(t, filepath.Join(dir, "file")), c.filed)
			}
			if got := p.Stdout.String(); strings.Contains(got, changed) != (c.shown != "") {
				t.Errorf("on the terminal: %q", got)
			}
		})
	}
}
