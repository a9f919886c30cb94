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

// WatchNames asks the inotify descriptor fd for names that come into dir, and
// for files in it that were written. It returns the watch's number.
func WatchNames(fd int, dir string) (int, error) {
	return addWatch(fd, dir, unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO|unix.IN_CREATE|unix.IN_ONLYDIR)
}

// WatchWrites asks the inotify descriptor fd for the ends of writes to one file,
// by whatever path they come. It returns the watch's number.
func WatchWrites(fd int, file string) (int, error) {
	return addWatch(fd, file, unix.IN_CLOSE_WRITE)
}

func addWatch(fd int, path string, what uint32) (int, error) {
	n, err := unix.InotifyAddWatch(fd, path, what)
	if err != nil {
		return -1, fmt.Errorf("watch %s: %w", path, err)
	}
	return n, nil
}

// InotifyEvents walks over the events in b as read from an inotify descriptor:
// the watch's number and, in a directory, the name. Where events were lost the
// number is -1.
func InotifyEvents(b []byte) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		for len(b) >= unix.SizeofInotifyEvent {
			// The kernel aligns events in the buffer, but the buffer's own
			// start may lie anywhere: copied, not cast.
			var ev unix.InotifyEvent
			copy((*[unix.SizeofInotifyEvent]byte)(unsafe.Pointer(&ev))[:], b)
			end := unix.SizeofInotifyEvent + int(ev.Len)
			if end > len(b) {
				return
			}
			if !yield(int(ev.Wd), unix.ByteSliceToString(b[unix.SizeofInotifyEvent:end])) {
				return
			}
			b = b[end:]
		}
	}
}
