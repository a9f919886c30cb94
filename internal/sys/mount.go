package sys

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrPivot says that pivot_root(2) was refused, as it is where the root is the
// initial RAM disk, or no mount point.
var ErrPivot = errors.New("pivot_root was refused")

// mountPoints are directories to mount the empty root on: one that exists is
// enough, and what it holds is hidden for a moment, from us alone.
var mountPoints = []string{"/tmp", "/run", "/proc", "/dev"}

// MountEmpty mounts an empty, read-only file system somewhere and makes it the
// working directory of the process. It changes the mount namespace of the
// calling thread, which must be one of our own.
func MountEmpty() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	var err error
	for _, dir := range mountPoints {
		const flags = unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_RDONLY
		if err = unix.Mount("none", dir, "tmpfs", flags, "nr_inodes=2,nr_blocks=1,mode=0555"); err != nil {
			err = fmt.Errorf("mount an empty file system on %s: %w", dir, err)
			continue
		}
		if err = unix.Chdir(dir); err != nil {
			return fmt.Errorf("enter the empty file system: %w", err)
		}
		return nil
	}
	return err
}

// PivotHere makes the working directory, which is a mount point, the root of
// all threads, and unmounts everything else: the old root is
// stacked on the new one and detached (pivot_root(2)).
func PivotHere() error {
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("%w: %w", ErrPivot, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	return os.NewSyscallError("chdir", unix.Chdir("/"))
}

// ChrootHere makes the working directory the root of all threads. Everything
// that was mounted stays so, out of reach of those without CAP_SYS_CHROOT.
func ChrootHere() error {
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	return os.NewSyscallError("chdir", unix.Chdir("/"))
}
