package netns

import (
	"os"
	"testing"

	"penne/internal/conf"
	"penne/internal/sys"
)

func TestRunAs(t *testing.T) {
	for _, c := range []struct {
		in   conf.RunAs
		want identity
		err  string
	}{
		{conf.RunAs{HasUID: true, UID: 4242424}, identity{4242424, 4242424}, ""},
		{conf.RunAs{HasUID: true, UID: 4242424, HasGID: true, GID: 7}, identity{4242424, 7}, ""},
		{conf.RunAs{Login: "root"}, identity{0, 0}, ""},
		{conf.RunAs{Login: "root", HasGID: true, GID: 9}, identity{0, 9}, ""},
		{conf.RunAs{Login: "root", Group: "root"}, identity{0, 0}, ""},
		{conf.RunAs{Login: "no-such-user"}, identity{}, "--runas: no user 'no-such-user'"},
		{conf.RunAs{Login: "root", Group: "no-such-group"}, identity{}, "--runas: no group 'no-such-group'"},
	} {
		got, err := runAs(&c.in)
		switch {
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("%+v: %v, %v, want %v", c.in, got, err, c.want)
		case c.err != "" && (err == nil || err.Error() != c.err):
			t.Errorf("%+v: %v, want %s", c.in, err, c.err)
		}
	}
}

func TestServeAs(t *testing.T) {
	own := &conf.RunAs{HasUID: true, UID: uint32(os.Geteuid()), HasGID: true, GID: uint32(os.Getegid())}
	other := &conf.RunAs{HasUID: true, UID: 4242424}
	if os.Geteuid() != 0 {
		if id, err := serveAs(nil); id != nil || err != nil {
			t.Errorf("a user becomes %v, %v", id, err)
		}
		if id, err := serveAs(own); id != nil || err != nil {
			t.Errorf("asked to stay, a user becomes %v, %v", id, err)
		}
		if id, err := serveAs(other); err == nil {
			t.Errorf("a user may become %v", id)
		}
		return
	}
	if id, err := serveAs(other); err != nil || *id != (identity{4242424, 4242424}) {
		t.Errorf("root becomes %v, %v", id, err)
	}
	if !sys.InInitialUserNamespace() {
		t.Skip("not root of the initial user namespace")
	}
	if id, err := serveAs(nil); err != nil || id == nil || id.uid == 0 {
		t.Errorf("root becomes %v, %v", id, err)
	}
	if id, err := serveAs(own); err == nil {
		t.Errorf("root may serve as %v", id)
	}
}
