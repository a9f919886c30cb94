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
	// resolvPath is resolv.conf(5), often a symbolic link.
	resolvPath = "/etc/resolv.conf"
	// maxLinks is the most symbolic links that are followed.
	maxLinks = 8
	// maxResolv is the most bytes that are read of the file.
	maxResolv = 64 << 10
)

// usualDirs are where network managers keep the file that resolvPath is a link to.
// Those that exist are opened at the start, since resolvPath may later become a link
// to another one.
var usualDirs = []string{
	"/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf", "/run/connman", "/run/netconfig",
}

// errOutOfReach is for a resolv.conf in a directory that was not opened before we
// left the file system.
var errOutOfReach = errors.New("resolv.conf has moved to another directory, which is out of reach: going on with the resolvers known so far")

// resolvFile is resolv.conf, which can be read again after we have left the file
// system: each directory in the chain of symbolic links to it is held open. It
// belongs to one goroutine.
type resolvFile struct {
	path string
	// dirs are the open directories by name.
	dirs map[string]heldDir
	// watches notifies of changes; nil if there is no inotify instance.
	watches *netns.Inotify
	// names are the file names in the chain, in any directory.
	names map[string]bool
	// file is the one last opened. A bind-mounted file, as containers have,
	// is only ever written in place, which the watch fileWatch notifies of;
	// -1 if there is none.
	file      *os.File
	fileWatch int
	// sealed says that no more directories can be opened.
	sealed bool
}

type heldDir struct {
	root *os.Root
	real string // without symbolic links
}

// openResolv reads the resolv.conf at path, and prepares to follow it with w, also
// into any of the directories in usual. A missing file is like an empty one.
func openResolv(w *netns.Inotify, path string, usual ...string) (*resolvFile, resolvConf) {
	f := &resolvFile{path: path, dirs: map[string]heldDir{}, watches: w, fileWatch: -1}
	r, _ := f.reopen()
	if f.file != nil && w != nil {
		if n, err := sys.WatchWrites(w.FD(), f.file.Name()); err == nil {
			f.fileWatch = n
		}
	}
	for _, d := range usual {
		_, _ = f.dir(d) // most are not there
	}
	f.sealed = true
	return f, r
}

// next waits until the file differs from last and names resolvers. Errors other than
// errOutOfReach are final; os.ErrClosed comes after [netns.Inotify.Close].
func (f *resolvFile) next(last resolvConf) (resolvConf, error) {
	if f.watches == nil {
		return last, errors.New("resolv.conf is not followed: all inotify instances are in use, raise fs.inotify.max_user_instances (sysctl)")
	}
	for events := range f.watches.Events {
		r, err := f.look(events)
		if errors.Is(err, errOutOfReach) {
			return last, err
		}
		if err == nil && len(r.Servers) > 0 && !r.equal(&last) {
			return r, nil
		}
	}
	return last, os.ErrClosed
}

// look reads the file if one of the events is about it, else fails.
func (f *resolvFile) look(events []byte) (r resolvConf, err error) {
	opened, written := false, false
	for watch, name := range sys.InotifyEvents(events) {
		switch {
		case watch < 0 || f.names[name]:
			opened = true
		case watch == f.fileWatch && name == "":
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

// reopen follows the links again, and reads the file.
func (f *resolvFile) reopen() (r resolvConf, err error) {
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

func (f *resolvFile) read() (resolvConf, error) {
	info, err := f.file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return resolvConf{}, errors.Join(err, fs.ErrInvalid)
	}
	return parseResolvConf(io.NewSectionReader(f.file, 0, maxResolv)), nil
}

// find opens the file that path leads to.
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

// dir returns an open directory, or unless sealed opens it.
func (f *resolvFile) dir(name string) (heldDir, error) {
	if d, ok := f.dirs[name]; ok {
		return d, nil
	}
	if f.sealed {
		return heldDir{}, errOutOfReach
	}
	target, err := filepath.EvalSymlinks(name)
	if err != nil {
		return heldDir{}, err
	}
	root, err := os.OpenRoot(target)
	if err != nil {
		return heldDir{}, err
	}
	d := heldDir{root, target}
	f.dirs[name], f.dirs[target] = d, d
	if f.watches != nil {
		// Without the watch, changes are not noticed.
		_, _ = sys.WatchNames(f.watches.FD(), target)
	}
	return d, nil
}
