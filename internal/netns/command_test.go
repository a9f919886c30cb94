package netns

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestFindCommand(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	for path, mode := range map[string]os.FileMode{
		first + "/plain": 0o644, second + "/plain": 0o755,
		first + "/useless": 0o644,
		first + "/good":    0o755, second + "/good": 0o755,
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(first+"/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", first+":"+filepath.Join(dir, "missing")+":"+second)
	for _, c := range []struct {
		name, path string
		status     int
		text       string
	}{
		{"good", first + "/good", 0, ""},
		{"plain", second + "/plain", 0, ""},
		{"useless", "", 126, "useless: permission denied"},
		{"dir", "", 126, "dir: is a directory"},
		{"absent", "", 127, "absent: command not found"},
		{first + "/good", first + "/good", 0, ""},
		{first + "/useless", "", 126, first + "/useless: permission denied"},
		{first + "/absent", "", 127, first + "/absent: no such file or directory"},
	} {
		path, err := findCommand(c.name)
		switch {
		case c.status == 0 && (err != nil || path != c.path):
			t.Errorf("%s: %q, %v, want %q", c.name, path, err, c.path)
		case c.status != 0 && (err == nil || statusOf(err) != c.status || err.Error() != c.text):
			t.Errorf("%s: %v with status %d, want %s with %d", c.name, err, statusOf(err), c.text, c.status)
		}
	}
}

func TestResolveShell(t *testing.T) {
	t.Setenv("SHELL", "/bin/cat")
	c, err := resolveCommand(nil)
	if err != nil || c.path != "/bin/cat" || !reflect.DeepEqual(c.argv, []string{"-cat"}) {
		t.Errorf("got %+v, %v", c, err)
	}
	t.Setenv("SHELL", "")
	c, err = resolveCommand(nil)
	if err != nil || c.path != "/bin/sh" || !reflect.DeepEqual(c.argv, []string{"-sh"}) {
		t.Errorf("got %+v, %v", c, err)
	}
}
