package engine

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"penne/internal/netns"
	"penne/internal/sys"
)

const (
	// resolvPath is where resolv.conf(5) is; often a symbolic link.
	resolvPath = "/etc/resolv.conf"
	// maxLinks bounds a chain of symbolic links.
	maxLinks = 8
	// maxResolv bounds what is read of the file, in bytes.
	maxResolv = 64 << 10
)

// usualDirs are where the programs that manage networks keep the file that
// resolvPath is a link to. Those that exist are held open from the start, for
// one such program may take over from another.
var usualDirs = []string{
	"/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf", "/run/connman", "/run/netconfig",
}

// errElsewhere says that resolv.conf is now in a directory that was not open
// when we left the file system.
var errElsewhere = errors.New("resolv.conf has moved to another directory, which is out of reach: going on with the resolvers known so far")

// resolvFile is resolv.conf, which can be read again after the file system is
// gone: each directory that a symbolic link on the way to it names is held
// open. It belongs to one goroutine.
type resolvFile struct {
	path string
	// dirs are the directories held, by the name they are called by.
	dirs map[string]heldDir
	// watches tells of changes; nil where the kernel gives no inotify.
	watches *netns.Watches
	// names are those met on the way, in whatever directory.
	names map[string]bool
	// file is what was opened last. A file that something is mounted on,
	// as containers have it, is only ever written in place: that is what
	// the watch number place tells of, -1 if there is none.
	file  *os.File
	place int
	// sealed says that no other directories can be had any more.
	sealed bool
}

type heldDir struct {
	root *os.Root
	real string // without symbolic links
}

// openResolv finds the resolv.conf at path, reads it, and prepares for
// following it by w, to any of the directories in usual too. A missing file is
// one without resolvers, which may come.
func openResolv(w *netns.Watches, path string, usual ...string) (*resolvFile, resolver) {
	f := &resolvFile{path: path, dirs: map[string]heldDir{}, watches: w, place: -1}
	r, _ := f.reopen()
	if f.file != nil && w != nil {
		if n, err := sys.WatchWrites(w.FD(), f.file.Name()); err == nil {
			f.place = n
		}
	}
	for _, d := range usual {
		_, _ = f.dir(d) // most are not there
	}
	f.sealed = true
	return f, r
}

// next waits until the file says something else than what r is, and names
// resolvers. Errors but errElsewhere are final: os.ErrClosed is the end of the
// watches, which [netns.Watches.Close] brings about at any time.
func (f *resolvFile) next(last resolver) (resolver, error) {
	if f.watches == nil {
		return last, errors.New("resolv.conf is not followed: all inotify instances are in use, raise fs.inotify.max_user_instances (sysctl)")
	}
	for events := range f.watches.Events {
		r, err := f.look(events)
		if errors.Is(err, errElsewhere) {
			return last, err
		}
		if err == nil && len(r.Servers) > 0 && !r.equal(&last) {
			return r, nil
		}
	}
	return last, os.ErrClosed
}

// look reads the file if one of the events concerns it.
func (f *resolvFile) look(events []byte) (r resolver, err error) {
	opened, written := false, false
	for watch, name := range sys.InotifyEvents(events) {
		switch {
		case watch < 0 || f.names[name]:
			opened = true
		case watch == f.place && name == "":
			written = true
		}
	}
	switch {
	case opened:
		return f.reopen()
	case written:
		return f.read()
	}
	return r, fs.ErrNotExist
}

// reopen finds the file anew and reads it.
func (f *resolvFile) reopen() (r resolver, err error) {
	next, err := f.find()
	if err != nil {
		return r, err
	}
	if f.file != nil {
		f.file.Close()
	}
	f.file = next
	return f.read()
}

func (f *resolvFile) read() (resolver, error) {
	info, err := f.file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return resolver{}, errors.Join(err, fs.ErrInvalid)
	}
	return readResolver(io.NewSectionReader(f.file, 0, maxResolv)), nil
}

// find opens what path leads to.
func (f *resolvFile) find() (*os.File, error) {
	path := f.path
	f.names = map[string]bool{}
	for range maxLinks {
		dir, err := f.dir(filepath.Dir(path))
		if err != nil {
			return nil, err
		}
		name := filepath.Base(path)
		f.names[name] = true
		target, err := dir.root.Readlink(name)
		if errors.Is(err, syscall.EINVAL) { // no link
			return dir.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		}
		if err != nil {
			return nil, err
		}
		if path = filepath.Clean(target); !filepath.IsAbs(path) {
			path = filepath.Join(dir.real, target)
		}
	}
	return nil, syscall.ELOOP
}

// dir returns a directory that is held, or, in the beginning, opens one.
func (f *resolvFile) dir(name string) (heldDir, error) {
	if d, ok := f.dirs[name]; ok {
		return d, nil
	}
	if f.sealed {
		return heldDir{}, errElsewhere
	}
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return heldDir{}, err
	}
	root, err := os.OpenRoot(real)
	if err != nil {
		return heldDir{}, err
	}
	d := heldDir{root, real}
	f.dirs[name], f.dirs[real] = d, d
	if f.watches != nil {
		// Without the watch the file is read once, as it is.
		_, _ = sys.WatchNames(f.watches.FD(), real)
	}
	return d, nil
}
