package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"penne/perf/report"
	"penne/test/bed"
)

// webPort is nginx's, in remote for all rows and inside for those of published ports.
const webPort = 8080

// webRows are HTTP requests to nginx in remote: new connections by ab, kept ones by wrk.
func webRows() []Row {
	url := fmt.Sprintf("http://%s:%d/", bed.RemoteIP4, webPort)
	rows := []Row{{
		Name:    "conn/32",
		Metrics: []Metric{{Unit: "connections/s", Targets: []report.Target{report.AtLeast(1.2, report.Debian)}}},
		Sample:  func(e *Env) (Figures, error) { return connections(e.Session, e, url) },
	}}
	for _, n := range []int{1, 32, 256} {
		var targets []report.Target
		if n == 256 {
			targets = []report.Target{report.AtLeast(1.2, report.Debian)}
		}
		rows = append(rows, Row{
			Name:    fmt.Sprintf("http/%d", n),
			Metrics: []Metric{{Unit: "requests/s", Targets: targets}},
			Sample:  func(e *Env) (Figures, error) { return requests(e.Session, e, url, n) },
		})
	}
	return rows
}

// connections measures one request per connection, 32 at a time.
func connections(from *bed.Session, e *Env, url string) (Figures, error) {
	res, err := from.Run("timeout", "-k", "1", limit, "ab", "-q", "-r", "-c", "32", "-n", "1000000",
		"-t", e.seconds(), url)
	if err != nil {
		return nil, err
	}
	rate, err := find(res, abRate)
	if err != nil {
		return nil, err
	}
	failed, err := find(res, abFailed)
	if err != nil {
		return nil, err
	}
	if failed > 0 {
		return nil, fmt.Errorf("ab: %g failed requests", failed)
	}
	return Figures{"": rate}, nil
}

// requests measures requests on n connections that are kept.
func requests(from *bed.Session, e *Env, url string, n int) (Figures, error) {
	res, err := from.Run("timeout", "-k", "1", limit, "wrk", "-t", strconv.Itoa(min(n, 2)), "-c", strconv.Itoa(n),
		"-d", e.seconds(), url)
	if err != nil {
		return nil, err
	}
	rate, err := find(res, wrkRate)
	if err != nil {
		return nil, err
	}
	if line := wrkErrors.FindString(res.Stdout); line != "" {
		return nil, fmt.Errorf("wrk: %s", line)
	}
	return Figures{"": rate}, nil
}

var (
	abRate    = regexp.MustCompile(`Requests per second:\s+([0-9.]+)`)
	abFailed  = regexp.MustCompile(`Failed requests:\s+([0-9]+)`)
	wrkRate   = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	wrkErrors = regexp.MustCompile(`(Socket errors|Non-2xx).*`)
)

func find(res bed.Result, re *regexp.Regexp) (float64, error) {
	m := re.FindStringSubmatch(res.Stdout)
	if m == nil {
		return 0, fmt.Errorf("no %q in output, status %d: %.300s%.300s", re, res.Status, res.Stdout, res.Stderr)
	}
	return strconv.ParseFloat(m[1], 64)
}

// nginxConf answers every request with two bytes. A single process serves where only one user exists: workers
// would want to become somebody else.
const nginxConf = `
daemon off;
MASTER
pid DIR/pid;
error_log stderr notice;
worker_rlimit_nofile 16384;
events { worker_connections 8192; }
http {
	access_log off;
	keepalive_requests 1000000000;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	server {
		listen PORT backlog=4096;
		location / { return 200 "ok"; }
	}
}
`

// nginx writes a configuration and gives the command line, and the line that says its sockets listen.
func nginx(b *bed.Bed, master string) (argv []string, ready string, err error) {
	dir, err := b.ScratchDir()
	if err != nil {
		return nil, "", err
	}
	conf := filepath.Join(dir, "nginx.conf")
	text := strings.NewReplacer("MASTER", master, "DIR", dir, "PORT", strconv.Itoa(webPort)).Replace(nginxConf)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, "", err
	}
	// nginx tells of the system it runs on after it has opened its listeners.
	return []string{"nginx", "-e", "stderr", "-p", dir, "-c", conf}, "OS: Linux", nil
}

// startFarWeb starts nginx in remote, as root, with its usual workers.
func startFarWeb(b *bed.Bed) (*bed.Proc, error) {
	argv, ready, err := nginx(b, "master_process on; worker_processes 2; user root;")
	if err != nil {
		return nil, err
	}
	return b.Remote.Start(bed.Spec{Argv: argv, Root: true, Ready: ready})
}
