package e2e

import (
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"penne/test/bed"
)

// TestNginx publishes a web server's port, as users of containers do, and reads 10 MiB and many small files.
func TestNginx(t *testing.T) {
	need(t, "nginx")
	need(t, "curl")
	b, host, remote := portsBed(t)
	s := forward(t, b, append(noForward, "-t", "8080:80")...)
	dir, err := b.ScratchDir()
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "nginx.conf")
	writeFile(t, conf, `
		user root; daemon off; worker_processes 1; pid `+dir+`/pid; error_log stderr notice;
		events { worker_connections 512; }
		http {
			access_log off; client_body_temp_path `+dir+`/b; proxy_temp_path `+dir+`/p;
			fastcgi_temp_path `+dir+`/f; uwsgi_temp_path `+dir+`/u; scgi_temp_path `+dir+`/s;
			server { listen 80; listen [::]:80; root `+dir+`; location /from { return 200 "$remote_addr\n"; } }
		}`)
	run(t, s, "sh", "-c", "head -c 10485760 /dev/urandom >"+dir+"/big && echo small >"+dir+"/small")
	sum := run(t, s, "sh", "-c", "sha256sum <"+dir+"/big")
	stop, err := s.Background("start worker process ", "nginx", "-e", "stderr", "-c", conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop() })
	for ip, from := range map[string]string{lo4: net4, lo6: net6, net4: bed.RemoteIP4, net6: ""} {
		url := "http://" + at(ip, 8080) + "/"
		c := clientOf(host, remote, ip)
		if got := run(t, c, "sh", "-c", "curl -sSf --noproxy '*' '"+url+"big' | sha256sum"); got != sum {
			t.Errorf("sum by %s: %s, want %s", ip, got, sum)
		}
		// One connection, kept alive for a hundred requests.
		out := run(t, c, "curl", "-sSf", "--noproxy", "*", "-w", "%{num_connects}\n", url+"small?[1-100]")
		if strings.Count(out, "small\n") != 100 || strings.Count(out, "\n1\n") != 1 {
			t.Errorf("a hundred requests by %s: %.200q", ip, out)
		}
		if got := run(t, c, "curl", "-sSf", "--noproxy", "*", url+"from"); from != "" && got != from+"\n" {
			t.Errorf("nginx sees %s as %q, want %s", ip, got, from)
		}
	}
}

// TestIperf3Published has the servers inside, one for each run: a server that has not yet read the end of one test
// refuses the next.
func TestIperf3Published(t *testing.T) {
	need(t, "iperf3")
	b, host, remote := portsBed(t)
	s := forward(t, b, append(noForward, "-t", "5201-5216", "-u", "5201-5216")...)
	port := 5200
	for _, ip := range []string{lo4, lo6, net4, net6} {
		for _, extra := range [][]string{nil, {"-R"}, {"-P", "4"}, {"-u", "-b", "200M", "-l", "1400"}} {
			port++
			stop, err := s.Background("Server listening", "iperf3", "-s", "-1", "-p", strconv.Itoa(port), "--forceflush")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { stop() })
			args := append([]string{"iperf3", "-J", "-c", ip, "-p", strconv.Itoa(port), "-n", strconv.Itoa(transfer)}, extra...)
			var report struct {
				Error string
				End   struct {
					SumSent struct{ Bytes int64 } `json:"sum_sent"`
					Sum     struct{ Bytes int64 } // of UDP
				}
			}
			if err := json.Unmarshal([]byte(run(t, clientOf(host, remote, ip), args...)), &report); err != nil {
				t.Fatal(err)
			}
			if report.End.SumSent.Bytes < transfer && report.End.Sum.Bytes < transfer {
				t.Errorf("%v: %+v %s", args, report.End, report.Error)
			}
		}
	}
}
