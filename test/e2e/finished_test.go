package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"penne/test/bed"
	"penne/test/client"
)

// lateReader is a server that reads nothing until it is told, with its own direction at an end from when it is told to.
type lateReader struct {
	end, read chan struct{}
	sum       chan string
}

func newLateReader() *lateReader {
	return &lateReader{end: make(chan struct{}), read: make(chan struct{}), sum: make(chan string, 1)}
}

func (l *lateReader) handle(c *net.TCPConn) {
	<-l.end
	c.CloseWrite()
	<-l.read
	h := sha256.New()
	if _, err := io.Copy(h, c); err != nil {
		l.sum <- err.Error()
		return
	}
	l.sum <- hex.EncodeToString(h.Sum(nil))
}

// TestTCPRemoteSlowerThanTheClientIsRemembered: what a client has written before it closed arrives, though the
// kernel inside has forgotten the connection by the time it is heard of again, and answers with a reset.
func TestTCPRemoteSlowerThanTheClientIsRemembered(t *testing.T) {
	const n = 3 << 20
	b, s := connect(t)
	run(t, s, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/tcp_fin_timeout") // seconds, not a minute
	eachFamily(t, func(t *testing.T, f family) {
		l := newLateReader()
		srv := serve(t, b.Remote, f.remote, l.handle)
		if o := tool(t, s, "leave", srv.Addr.String(), "7", strconv.Itoa(n)); o.Text != "" {
			t.Fatalf("%+v", o)
		}
		before := resetsOf(t, s)
		close(l.end)
		for end := time.Now().Add(client.Patience); resetsOf(t, s) == before; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the client's kernel is asked nothing, or remembers")
			}
		}
		close(l.read)
		if got, want := <-l.sum, bed.PatternSum(7, n); got != want {
			t.Errorf("the server read %.80s, want %.8s", got, want)
		}
	})
}

// resetsOf is how many resets the kernel inside has sent.
func resetsOf(t *testing.T, s *bed.Session) string {
	t.Helper()
	const outRsts = 14 // of the second line on Tcp in /proc/net/snmp
	var fields []string
	for line := range strings.Lines(run(t, s, "cat", "/proc/net/snmp")) {
		if rest, ok := strings.CutPrefix(line, "Tcp:"); ok {
			fields = strings.Fields(rest)
		}
	}
	if len(fields) < outRsts {
		t.Fatalf("no count of resets: %v", fields)
	}
	return fields[outRsts-1]
}

// TestTCPCommandsLastWords: what a command has written, to where it was acknowledged with the FIN, arrives after the
// command and pasta are gone.
func TestTCPCommandsLastWords(t *testing.T) {
	need(t, "bash")
	const n = 200_000
	b := newBed(t)
	eachFamily(t, func(t *testing.T, f family) {
		l := newLateReader()
		srv := serve(t, b.Remote, f.remote, l.handle)
		const finWait2 = "05" // of the column st in /proc/net/tcp
		script := fmt.Sprintf("head -c %d /dev/zero >/dev/tcp/%s/%d; until grep -q ':%04X %s ' /proc/net/tcp*; do :; done",
			n, f.remote, srv.Port(), srv.Port(), finWait2)
		if res := pasta(t, b, append(quiet, "--", "bash", "-c", script)...); res.Status != 0 {
			t.Fatalf("status %d: %s", res.Status, res.Stderr)
		}
		close(l.end)
		close(l.read)
		want := sha256.Sum256(make([]byte, n))
		if got := <-l.sum; got != hex.EncodeToString(want[:]) {
			t.Errorf("the server read %.80s", got)
		}
	})
}
