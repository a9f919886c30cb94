package netns

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"penne/internal/conf"
)

func TestProcessOf(t *testing.T) {
	for _, c := range []struct {
		path string
		pid  int
		ok   bool
	}{
		{"/proc/12/ns/net", 12, true},
		{"/proc/12/task/13/ns/net", 12, true},
		{"/proc/self/ns/net", 0, false},
		{"/proc/12", 0, false},
		{"/proc/-1/ns/net", -1, false},
		{"/run/netns/12/x", 0, false},
	} {
		if pid, ok := processOf(c.path); ok != c.ok || ok && pid != c.pid {
			t.Errorf("%s: %d, %v", c.path, pid, ok)
		}
	}
}

func TestExistingTargetErrors(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		p    conf.Pasta
		want string
	}{
		{conf.Pasta{PID: gone.Process.Pid}, "Failed to find process " + strconv.Itoa(gone.Process.Pid) + ": no such process: give the ID of one that runs"},
		{conf.Pasta{Netns: plain}, "Failed to open network namespace " + plain + ": "},
		{conf.Pasta{Netns: "/nonexistent/x"}, "Failed to open network namespace /nonexistent/x: no such file or directory: give one that exists"},
		{conf.Pasta{Netns: filepath.Dir(plain) + "/x"},
			"Failed to open network namespace " + filepath.Dir(plain) + "/x: no such file or directory: give one that exists"},
		{conf.Pasta{Netns: "/proc/self/ns/user"}, "Failed to open network namespace /proc/self/ns/user: invalid argument: this is no"},
		{conf.Pasta{Netns: "/proc/self/ns/net", Userns: "/proc/self/ns/net"}, "Failed to open user namespace /proc/self/ns/net: "},
	} {
		tg, err := existingTarget(&c.p)
		if err == nil {
			tg.close()
			t.Errorf("%+v: no error", c.p)
			continue
		}
		if !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%+v: %q, want %q", c.p, err, c.want)
		}
	}
}

func TestOwnUserNamespace(t *testing.T) {
	tg, err := existingTarget(&conf.Pasta{PID: os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	defer tg.close()
	if tg.user >= 0 || tg.net < 0 || tg.process < 0 {
		t.Errorf("got %+v", tg)
	}
}

func TestCommandTarget(t *testing.T) {
	for _, path := range []string{"", "/proc/self/ns/user"} {
		tg, err := commandTarget(&conf.Pasta{Userns: path})
		if err != nil || tg.user >= 0 {
			t.Errorf("%q: %+v, %v", path, tg, err)
		}
	}
	tg, err := commandTarget(&conf.Pasta{Userns: "/proc/self/ns/net"})
	want := "Failed to open user namespace /proc/self/ns/net: invalid argument: this is no namespace of that kind"
	if err == nil || err.Error() != want {
		t.Errorf("got %+v, %v, want %s", tg, err, want)
	}
}
