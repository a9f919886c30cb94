package sys

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// initUserInode is the inode of the initial user namespace, fixed since Linux
// 3.8 (PROC_USER_INIT_INO in include/linux/proc_ns.h).
const initUserInode = 0xEFFFFFFD

// InInitialUserNamespace tells whether we are in the user namespace which has
// real power over the machine. Where that cannot be found out, we are.
func InInitialUserNamespace() bool {
	var st unix.Stat_t
	return unix.Stat("/proc/self/ns/user", &st) != nil || st.Ino == initUserInode
}

// Setns moves the calling thread, which must be locked, into a namespace of
// the kind (CLONE_NEW...).
func Setns(fd int, kind int) error { return os.NewSyscallError("setns", unix.Setns(fd, kind)) }

// ThreadNetNS opens the calling thread's network namespace.
func ThreadNetNS() (int, error) {
	return unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// WatchRemoval returns an inotify descriptor, non-blocking, that tells of names
// going from dir, and of dir itself going; [RemovalEvents] reads it.
func WatchRemoval(dir string) (int, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return -1, os.NewSyscallError("inotify_init1", err)
	}
	const what = unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, dir, what); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("watch %s: %w", dir, err)
	}
	return fd, nil
}

// RemovalEvents tells whether, among the events in b as read from
// [WatchRemoval]'s descriptor, one says that name, or the directory, has gone.
func RemovalEvents(b []byte, name string) bool {
	const dirGone = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_UNMOUNT | unix.IN_IGNORED
	for len(b) >= unix.SizeofInotifyEvent {
		ev := (*unix.InotifyEvent)(unsafe.Pointer(&b[0]))
		end := unix.SizeofInotifyEvent + int(ev.Len)
		if end > len(b) {
			return false
		}
		if ev.Mask&dirGone != 0 || unix.ByteSliceToString(b[unix.SizeofInotifyEvent:end]) == name {
			return true
		}
		b = b[end:]
	}
	return false
}

// NamespaceKind tells which kind (CLONE_NEW...) of namespace an open file
// stands for; it is an error if it stands for none (Linux 4.11).
func NamespaceKind(fd int) (int, error) {
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	return kind, os.NewSyscallError("ioctl NS_GET_NSTYPE", err)
}

// MayExecute tells whether we, as our effective ids, may execute path.
func MayExecute(path string) error {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
}
