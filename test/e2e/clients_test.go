package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"penne/test/bed"
)

func TestPing(t *testing.T) {
	need(t, "ping")
	_, s := connect(t)
	eachFamily(t, func(t *testing.T, f family) {
		for _, size := range []string{"0", "56", "1400", "8000"} {
			out := run(t, s, "ping", f.flag, "-n", "-c", "1", "-w", "30", "-s", size, f.remote)
			if !strings.Contains(out, "1 received") {
				t.Errorf("ping -s %s: %s", size, out)
			}
		}
	})
}

func TestCurl(t *testing.T) {
	need(t, "curl")
	const n = 10 << 20
	b, s := connect(t)
	eachFamily(t, func(t *testing.T, f family) {
		l, err := b.Remote.Listen("tcp", bed.HostPort(f.remote, "0"))
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h := sha256.New()
			io.Copy(h, r.Body)
			w.Header().Set("X-Got", hex.EncodeToString(h.Sum(nil)))
			io.Copy(w, bed.PatternReader(1, n))
		}))
		srv.Listener.Close()
		srv.Listener = l
		srv.Start()
		defer srv.Close()
		url := "http://" + l.Addr().String() + "/"
		out := run(t, s, "sh", "-c", "curl -sSf --noproxy '*' "+f.flag+" '"+url+"' | sha256sum")
		if want := bed.PatternSum(1, n); !strings.HasPrefix(out, want) {
			t.Errorf("sum of what curl got: %s, want %s", out, want)
		}
		out = run(t, s, "sh", "-c", "head -c 3000000 /dev/zero | curl -sSf --noproxy '*' -o /dev/null -D - -T - '"+url+"'")
		zeros := sha256.Sum256(make([]byte, 3000000))
		if !strings.Contains(out, "X-Got: "+hex.EncodeToString(zeros[:])) {
			t.Errorf("upload by curl: %s", out)
		}
	})
}

func TestIperf3(t *testing.T) {
	need(t, "iperf3")
	b, s := connect(t)
	eachFamily(t, func(t *testing.T, f family) {
		for i, extra := range [][]string{nil, {"-R"}, {"-P", "4"}, {"-R", "-P", "4"}} {
			// A server for each run: one that has not yet read the end of a test refuses the next.
			port := strconv.Itoa(5201 + i)
			_, err := b.Remote.Start(bed.Spec{
				Argv: []string{"iperf3", "-s", "-1", "-p", port, "-B", f.remote, "--forceflush"}, Ready: "Server listening",
			})
			if err != nil {
				t.Fatal(err)
			}
			args := append([]string{"iperf3", "-J", "-c", f.remote, "-p", port, "-n", "32M"}, extra...)
			var report struct {
				End struct {
					SumSent     struct{ Bytes int64 } `json:"sum_sent"`
					SumReceived struct{ Bytes int64 } `json:"sum_received"`
				}
			}
			if err := json.Unmarshal([]byte(run(t, s, args...)), &report); err != nil {
				t.Fatal(err)
			}
			// What is under way when the sender has sent enough is not waited for, and may be nearly all.
			if end := report.End; end.SumSent.Bytes < 32<<20 || end.SumReceived.Bytes == 0 {
				t.Errorf("iperf3 %v moved %d bytes and sent %d", extra, end.SumReceived.Bytes, end.SumSent.Bytes)
			}
		}
	})
}

func TestSocat(t *testing.T) {
	need(t, "socat")
	b, s := connect(t)
	eachFamily(t, func(t *testing.T, f family) {
		srv := serve(t, b.Remote, f.remote, bed.EchoTCP)
		text := strings.Repeat("al dente ", 100000)
		to := "TCP" + f.flag[1:] + ":" + bracketed(f.remote) + ":" + strconv.Itoa(srv.Port())
		res, err := s.RunInput([]byte(text), "socat", "-t60", "-", to)
		if err != nil || res.Stdout != text {
			t.Errorf("socat got %d bytes of %d: %v %s", len(res.Stdout), len(text), err, res.Stderr)
		}
	})
}

func TestDig(t *testing.T) {
	need(t, "dig")
	b, s := connect(t)
	eachFamily(t, func(t *testing.T, f family) {
		udp, err := b.Remote.ServeUDP(bed.HostPort(f.remote, "53"), func(q []byte, _ net.Addr) []byte {
			return resolve(q)
		})
		if err != nil {
			t.Fatal(err)
		}
		defer udp.Close()
		tcp, err := b.Remote.ServeTCP(bed.HostPort(f.remote, "53"), resolveStream)
		if err != nil {
			t.Fatal(err)
		}
		defer tcp.Close()
		for _, proto := range []string{"+notcp", "+tcp"} {
			out := run(t, s, "dig", "@"+f.remote, proto, "+short", "+tries=1", "+time=30", "penne.example", "A")
			if out != "192.0.2.53\n" {
				t.Errorf("dig %s: %q", proto, out)
			}
		}
	})
}

// resolve answers a question with one address, 192.0.2.53, or nothing if it cannot be read.
func resolve(query []byte) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	m.Answers = []dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET},
		Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 53}},
	}}
	answer, err := m.Pack()
	if err != nil {
		return nil
	}
	return answer
}

// resolveStream is resolve with the two-byte lengths of RFC 1035, section 4.2.2.
func resolveStream(c *net.TCPConn) {
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return
	}
	query := make([]byte, int(length[0])<<8|int(length[1]))
	if _, err := io.ReadFull(c, query); err != nil {
		return
	}
	answer := resolve(query)
	c.Write(append([]byte{byte(len(answer) >> 8), byte(len(answer))}, answer...))
}
