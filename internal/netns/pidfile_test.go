package netns

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestPIDFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	var p pidFile
	if err := p.write("", 1); err != nil {
		t.Fatal(err)
	}
	p.remove()
	if err := p.write(path, 4711); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "4711\n" {
		t.Errorf("file has %q, %v", b, err)
	}
	p.remove()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after removal: %v", err)
	}
	// Somebody else's file of that name stays.
	if err := p.write(path, 1); err != nil {
		t.Fatal(err)
	}
	other := path + "2"
	if err := os.WriteFile(other, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	p.remove()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("another's file is gone: %v", err)
	}
}

func TestPIDFileLeavesOthers(t *testing.T) {
	path, link, pipe := filepath.Join(t.TempDir(), "pid"), filepath.Join(t.TempDir(), "link"), filepath.Join(t.TempDir(), "pipe")
	if err := errors.Join(os.Symlink(path, link), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for _, name := range []string{path, link, pipe} {
		var p, successor pidFile
		if err := p.write(name, 4711); err != nil {
			t.Fatal(err)
		}
		if name == path {
			if err := successor.write(name, 4712); err != nil {
				t.Fatal(err)
			}
		}
		p.remove()
		if _, err := os.Lstat(name); err != nil {
			t.Errorf("%s is gone: %v", filepath.Base(name), err)
		}
	}
}
