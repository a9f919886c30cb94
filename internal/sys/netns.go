package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// initUserInode is the inode of the initial user namespace, fixed since Linux
// 3.8 (PROC_USER_INIT_INO in include/linux/proc_ns.h).
const initUserInode = 0xEFFFFFFD

// InInitialUserNamespace tells whether we are in the user namespace which has
// real power over the machine. If in doubt, we are.
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

// NamespaceKind returns the kind (CLONE_NEW...) of namespace that an open file
// refers to; it is an error if it refers to none (Linux 4.11).
func NamespaceKind(fd int) (int, error) {
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	return kind, os.NewSyscallError("ioctl NS_GET_NSTYPE", err)
}

// MayExecute tells whether we, as our effective ids, may execute path.
func MayExecute(path string) error {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
}
