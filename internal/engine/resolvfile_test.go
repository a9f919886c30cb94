package engine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"penne/internal/netns"
	"penne/internal/sys"
)

// place is a directory tree with a resolv.conf.
type place struct {
	t   *testing.T
	dir string
}

func newPlace(t *testing.T) *place {
	p := &place{t, t.TempDir()}
	for _, d := range []string{"etc", "run/stub", "elsewhere"} {
		p.check(os.MkdirAll(p.path(d), 0o755))
	}
	return p
}

func (p *place) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

// write writes in place, as an editor of the lazy kind does.
func (p *place) write(name, text string) {
	p.t.Helper()
	p.check(os.WriteFile(p.path(name), []byte(text), 0o644))
}

// replace writes another file and renames it, as programs do.
func (p *place) replace(name, text string) {
	p.t.Helper()
	p.write(name+".new", text)
	p.check(os.Rename(p.path(name+".new"), p.path(name)))
}

func (p *place) link(target, name string) {
	p.t.Helper()
	p.check(os.Symlink(target, p.path(name+".new")))
	p.check(os.Rename(p.path(name+".new"), p.path(name)))
}

// open opens etc/resolv.conf and checks what it says.
func (p *place) open(want string, usual ...string) (*resolvFile, resolvConf) {
	p.t.Helper()
	fd, err := sys.NewInotify()
	p.check(err)
	w := netns.NewInotify(fd, func([]byte) {})
	f, r := openResolv(w, p.path("etc/resolv.conf"), usual...)
	if got := servers(&r); got != want {
		p.t.Fatalf("at first: %q, want %q", got, want)
	}
	p.t.Cleanup(func() {
		w.Close()
		for _, d := range f.dirs {
			d.root.Close()
		}
	})
	return f, r
}

func servers(r *resolvConf) string {
	s := ""
	for _, a := range r.Servers {
		s += a.String() + " "
	}
	return strings.TrimSpace(s)
}

// expect waits for a change.
func (p *place) expect(f *resolvFile, last *resolvConf, want string) {
	p.t.Helper()
	r, err := f.next(*last)
	p.check(err)
	if *last = r; servers(&r) != want {
		p.t.Fatalf("%q, want %q", servers(&r), want)
	}
}

func TestResolvFileIsWritten(t *testing.T) {
	p := newPlace(t)
	p.write("etc/resolv.conf", "nameserver 192.0.2.1\n")
	f, last := p.open("192.0.2.1")
	p.write("etc/other", "nameserver 192.0.2.99\n")
	p.write("etc/resolv.conf", "nameserver 192.0.2.2\n")
	p.expect(f, &last, "192.0.2.2")
	p.replace("etc/resolv.conf", "nameserver 192.0.2.3\nnameserver ::1\n")
	p.expect(f, &last, "192.0.2.3 ::1")
	p.write("etc/resolv.conf", "nameserver 192.0.2.4\n")
	p.expect(f, &last, "192.0.2.4")
}

// TestResolvFileBecomesReadable has a writer who makes the file for himself, and opens it to others at the end.
func TestResolvFileBecomesReadable(t *testing.T) {
	p := newPlace(t)
	p.write("etc/resolv.conf", "nameserver 192.0.2.1\n")
	f, last := p.open("192.0.2.1")
	p.write("etc/new", "nameserver 192.0.2.2\n")
	p.check(os.Chmod(p.path("etc/new"), 0))
	p.check(os.Rename(p.path("etc/new"), p.path("etc/resolv.conf")))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	root := os.Getuid() == 0
	for events := range f.watches.Events {
		if root { // who may read it all along
			p.check(syscall.Setfsuid(65534))
		}
		_, err := f.look(events)
		if root {
			p.check(syscall.Setfsuid(0))
		}
		if errors.Is(err, fs.ErrPermission) {
			break
		}
	}
	p.check(os.Chmod(p.path("etc/resolv.conf"), 0o644))
	p.expect(f, &last, "192.0.2.2")
}

// TestResolvFileOtherName writes the file by a name that is not watched, as
// happens to one that is mounted over another.
func TestResolvFileOtherName(t *testing.T) {
	p := newPlace(t)
	p.write("elsewhere/file", "nameserver 192.0.2.1\n")
	p.check(os.Link(p.path("elsewhere/file"), p.path("etc/resolv.conf")))
	f, last := p.open("192.0.2.1")
	p.write("elsewhere/file", "nameserver 192.0.2.2\n")
	p.expect(f, &last, "192.0.2.2")
}

func TestResolvFileComesLater(t *testing.T) {
	p := newPlace(t)
	f, last := p.open("")
	p.replace("etc/resolv.conf", "nameserver 192.0.2.1\n")
	p.expect(f, &last, "192.0.2.1")
}

// TestResolvFileWithoutServers is one that is about to be filled.
func TestResolvFileWithoutServers(t *testing.T) {
	p := newPlace(t)
	p.write("etc/resolv.conf", "nameserver 192.0.2.1\n")
	f, last := p.open("192.0.2.1")
	p.check(os.Remove(p.path("etc/resolv.conf")))
	p.write("etc/resolv.conf", "# nothing yet\n")
	p.write("etc/resolv.conf", "nameserver 192.0.2.1\n") // as before
	p.write("etc/resolv.conf", "nameserver 192.0.2.2\n")
	p.expect(f, &last, "192.0.2.2")
}

func TestResolvFileBehindLinks(t *testing.T) {
	p := newPlace(t)
	p.write("run/stub/stub.conf", "nameserver 127.0.0.53\n")
	p.check(os.Symlink("stub", p.path("run/alias")))
	p.link("middle", "etc/resolv.conf")
	p.link("../run/alias/stub.conf", "etc/middle")
	f, last := p.open("127.0.0.53")
	p.replace("run/stub/stub.conf", "nameserver 127.0.0.54\n")
	p.expect(f, &last, "127.0.0.54")
	p.write("run/stub/real.conf", "nameserver 192.0.2.1\n")
	p.link(p.path("run/stub/real.conf"), "etc/middle")
	p.expect(f, &last, "192.0.2.1")
	p.replace("run/stub/real.conf", "nameserver 192.0.2.2\n")
	p.expect(f, &last, "192.0.2.2")
}

func TestResolvFileMovesOutOfReach(t *testing.T) {
	p := newPlace(t)
	p.write("run/stub/stub.conf", "nameserver 127.0.0.53\n")
	p.link("../run/stub/stub.conf", "etc/resolv.conf")
	f, last := p.open("127.0.0.53")
	p.write("elsewhere/file", "nameserver 192.0.2.1\n")
	p.link("../elsewhere/file", "etc/resolv.conf")
	if r, err := f.next(last); !errors.Is(err, errOutOfReach) || servers(&r) != "127.0.0.53" {
		t.Fatalf("%q, error %v", servers(&r), err)
	}
	p.replace("etc/resolv.conf", "nameserver 192.0.2.2\n")
	p.expect(f, &last, "192.0.2.2")
}

// TestResolvFileChangesHands has the link lead to another usual directory.
func TestResolvFileChangesHands(t *testing.T) {
	p := newPlace(t)
	p.write("run/stub/stub.conf", "nameserver 127.0.0.53\n")
	p.link("../run/stub/stub.conf", "etc/resolv.conf")
	f, last := p.open("127.0.0.53", p.path("missing"), p.path("elsewhere"))
	p.write("elsewhere/file", "nameserver 192.0.2.1\n")
	p.link("../elsewhere/file", "etc/resolv.conf")
	p.expect(f, &last, "192.0.2.1")
	p.replace("elsewhere/file", "nameserver 192.0.2.2\n")
	p.expect(f, &last, "192.0.2.2")
}

func TestResolvFileInALoop(t *testing.T) {
	p := newPlace(t)
	p.link("resolv.conf", "etc/resolv.conf")
	f, last := p.open("")
	p.replace("etc/resolv.conf", "nameserver 192.0.2.1\n")
	p.expect(f, &last, "192.0.2.1")
}
