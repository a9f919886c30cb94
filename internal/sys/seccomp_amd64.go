package sys

import "golang.org/x/sys/unix"

// AuditArch identifies the system call table in a seccomp filter.
const AuditArch = unix.AUDIT_ARCH_X86_64

// NrNewfstatat is stat(2)'s general form.
const NrNewfstatat = unix.SYS_NEWFSTATAT

// System calls that later architectures do without: they are special cases of
// others.
var (
	LegacyIO    = []uint32{unix.SYS_EPOLL_WAIT, unix.SYS_POLL, unix.SYS_DUP2, unix.SYS_TIME}
	LegacyFiles = []uint32{unix.SYS_OPEN, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_ACCESS, unix.SYS_READLINK}
)
