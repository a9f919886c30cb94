package sys

import "golang.org/x/sys/unix"

// AuditArch identifies the system call table in a seccomp filter.
const AuditArch = unix.AUDIT_ARCH_AARCH64

// NrNewfstatat is stat(2)'s general form.
const NrNewfstatat = unix.SYS_FSTATAT

// System calls that this architecture does without.
var LegacyIO, LegacyFiles []uint32
