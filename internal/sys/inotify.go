package sys

import (
	"fmt"
	"iter"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NewInotify returns an inotify descriptor, non-blocking, for os.NewFile.
func NewInotify() (int, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	return fd, os.NewSyscallError("inotify_init1", err)
}

// WatchNames watches dir, on the inotify descriptor fd, for names that appear
// and for files that were written, or whose mode was changed. It returns the watch
// descriptor.
func WatchNames(fd int, dir string) (int, error) {
	return addWatch(fd, dir, unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO|unix.IN_CREATE|unix.IN_ATTRIB|unix.IN_ONLYDIR)
}

// WatchWrites watches one file, on the inotify descriptor fd, for writers that
// have closed it, by whatever path. It returns the watch descriptor.
func WatchWrites(fd int, file string) (int, error) {
	return addWatch(fd, file, unix.IN_CLOSE_WRITE)
}

// WatchRemoval watches dir, on the inotify descriptor fd, for names that
// disappear, and for its own removal. It returns the watch descriptor, for
// [RemovalEvents].
func WatchRemoval(fd int, dir string) (int, error) {
	return addWatch(fd, dir, nameGone|dirGone|unix.IN_ONLYDIR)
}

// Events of [WatchRemoval].
const (
	nameGone = unix.IN_DELETE | unix.IN_MOVED_FROM
	dirGone  = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
)

// addWatch adds the events to those of a watch on the same file, if there is one.
func addWatch(fd int, path string, events uint32) (int, error) {
	n, err := unix.InotifyAddWatch(fd, path, events|unix.IN_MASK_ADD)
	if err != nil {
		return -1, fmt.Errorf("watch %s: %w", path, err)
	}
	return n, nil
}

// RemovalEvents tells whether one of the events in b, as read from an inotify
// descriptor, says that name was removed from the watched directory, or the
// directory itself.
func RemovalEvents(b []byte, watch int, name string) bool {
	const gone = dirGone | unix.IN_UNMOUNT | unix.IN_IGNORED
	for ev, of := range inotifyEvents(b) {
		if int(ev.Wd) == watch && (ev.Mask&gone != 0 || ev.Mask&nameGone != 0 && of == name) {
			return true
		}
	}
	return false
}

// InotifyEvents iterates over the events in b, as read from an inotify
// descriptor: the watch descriptor (-1: events were lost) and, in a directory,
// the name.
func InotifyEvents(b []byte) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		for ev, name := range inotifyEvents(b) {
			if !yield(int(ev.Wd), name) {
				return
			}
		}
	}
}

func inotifyEvents(b []byte) iter.Seq2[unix.InotifyEvent, string] {
	return func(yield func(unix.InotifyEvent, string) bool) {
		for len(b) >= unix.SizeofInotifyEvent {
			// Copied, not cast: b need not be aligned.
			var ev unix.InotifyEvent
			copy((*[unix.SizeofInotifyEvent]byte)(unsafe.Pointer(&ev))[:], b)
			end := unix.SizeofInotifyEvent + int(ev.Len)
			if end > len(b) {
				return
			}
			if !yield(ev, unix.ByteSliceToString(b[unix.SizeofInotifyEvent:end])) {
				return
			}
			b = b[end:]
		}
	}
}

// OpenDir opens a directory, close-on-exec, for [HasName] only. It needs search
// permission, no more.
func OpenDir(path string) (int, error) {
	return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// HasName tells whether the directory open as dir has name, without opening
// what it names.
func HasName(dir int, name string) bool {
	_, err := unix.Readlinkat(dir, name, make([]byte, 1))
	return err != unix.ENOENT
}
