package isolate

import (
	"errors"
	"fmt"
	"os"

	"penne/internal/sys"
)

// Config says what the engine may keep.
type Config struct {
	// KeepRoot leaves the file system in reach. Without it, the mount
	// namespace is our own: it is changed.
	KeepRoot bool
	// ChrootFallback takes chroot(2) where pivot_root(2) is refused
	// (--chroot-fallback).
	ChrootFallback bool
	// Caps are capabilities to keep, those of them that we have, such as
	// sys.CapNetBindService.
	Caps uint64
	// WorkerCaps are kept beside those, for the one thread on which Worker
	// runs functions: on others they are permitted, but never effective,
	// for capset(2) is forbidden from then on. New threads come from others.
	WorkerCaps uint64
	Worker     func(fn func() error) error
	// SharedMemory permits mapping what front-ends pass (vhost-user).
	SharedMemory bool
	// ReadFiles permits opening files for reading, and reading symbolic
	// links: below directories that are still open, for nothing else is in
	// reach.
	ReadFiles bool
}

// Report tells what was done.
type Report struct {
	// Root is "pivot_root", "chroot", or empty if the root was kept.
	Root string
	// Caps are the capabilities left to all threads.
	Caps uint64
}

// ErrCgo says that nothing was done, since this program is linked with cgo, as
// builds with the race detector are.
var ErrCgo = errors.New("no sandbox in a build with cgo")

// Engine shuts the process in. Everything that takes files, capabilities, or
// calls that are not on the list has been done by then: the time zone, too, is
// a file, which the first local time that is formatted reads. It must not be called
// while a thread waits in a system call behind the runtime's back, as shards
// do: all threads take part.
//
// After an error the process is somewhere in between, and has to end, but for
// ErrCgo, after which nothing has changed.
func Engine(c Config) (r Report, err error) {
	if linkedWithCgo() {
		return r, ErrCgo
	}
	prog, err := Filter(c)
	if err != nil {
		return r, fmt.Errorf("assemble seccomp filter: %w", err)
	}
	if !c.KeepRoot {
		if r.Root, err = emptyRoot(c.ChrootFallback); err != nil {
			return r, fmt.Errorf("leave the file system: %w", err)
		}
	}
	if r.Caps, err = dropCaps(&c); err != nil {
		return r, fmt.Errorf("drop capabilities: %w", err)
	}
	if err := sys.ClearDumpable(); err != nil {
		return r, fmt.Errorf("forbid tracing and core dumps: %w", err)
	}
	// For this thread; the filter takes it to the others (SECCOMP_FILTER_FLAG_TSYNC).
	if err := sys.NoNewPrivs(); err != nil {
		return r, fmt.Errorf("renounce new privileges: %w", err)
	}
	if err := sys.LoadSeccomp(prog); err != nil {
		return r, fmt.Errorf("restrict system calls: %w", err)
	}
	return r, nil
}

func dropCaps(c *Config) (kept uint64, err error) {
	if c.Worker == nil {
		return sys.DropCaps(c.Caps)
	}
	if kept, err = sys.SplitCaps(c.Caps, c.WorkerCaps); err != nil {
		return kept, err
	}
	return kept, c.Worker(sys.RaiseCaps)
}

// Filter is the seccomp filter for this process.
func Filter(c Config) ([]sys.SockFilter, error) {
	return assemble(sys.AuditArch, rules(&c, os.Getpid()), kill)
}

// emptyRoot leaves the process with an empty root, and nothing else.
func emptyRoot(chroot bool) (how string, err error) {
	if err := sys.MountEmpty(); err != nil {
		return "", err
	}
	err = sys.PivotHere()
	if err == nil {
		return "pivot_root", nil
	}
	if !errors.Is(err, sys.ErrPivot) {
		return "", err
	}
	if !chroot {
		return "", fmt.Errorf("%w; try --chroot-fallback", err)
	}
	return "chroot", sys.ChrootHere()
}
