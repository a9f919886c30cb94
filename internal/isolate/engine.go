package isolate

import (
	"errors"
	"fmt"
	"os"

	"penne/internal/sys"
)

// Config says what the engine may keep.
type Config struct {
	// ChrootFallback takes chroot(2) where pivot_root(2) is refused
	// (--chroot-fallback).
	ChrootFallback bool
	// WorkerCaps are capabilities to keep, those of them that we have, for
	// the one thread on which Worker runs functions: on others they are
	// permitted, but never effective, for capset(2) is forbidden from then
	// on. New threads come from others. Without a Worker all are dropped.
	WorkerCaps uint64
	Worker     func(fn func() error) error
	// ReadFiles permits opening files for reading, and reading symbolic
	// links: below directories that are still open, for nothing else is in
	// reach.
	ReadFiles bool
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
func Engine(c Config) error {
	if linkedWithCgo() {
		return ErrCgo
	}
	prog, err := Filter(c)
	if err != nil {
		return fmt.Errorf("assemble seccomp filter: %w", err)
	}
	if err := emptyRoot(c.ChrootFallback); err != nil {
		return fmt.Errorf("leave the file system: %w", err)
	}
	if err := dropCaps(&c); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := sys.ClearDumpable(); err != nil {
		return fmt.Errorf("forbid tracing and core dumps: %w", err)
	}
	if err := sys.LoadSeccomp(prog); err != nil {
		return fmt.Errorf("restrict system calls: %w", err)
	}
	return nil
}

func dropCaps(c *Config) error {
	if c.Worker == nil {
		_, err := sys.DropCaps(0)
		return err
	}
	if _, err := sys.SplitCaps(0, c.WorkerCaps); err != nil {
		return err
	}
	return c.Worker(sys.RaiseCaps)
}

// Filter is the seccomp filter for this process.
func Filter(c Config) ([]sys.SockFilter, error) {
	return assemble(sys.AuditArch, rules(&c, os.Getpid()), kill)
}

// emptyRoot leaves the process with an empty root, and nothing else. The mount
// namespace is our own: it is changed.
func emptyRoot(chroot bool) error {
	if err := sys.MountEmpty(); err != nil {
		return err
	}
	err := sys.PivotHere()
	switch {
	case !errors.Is(err, sys.ErrPivot):
		return err
	case !chroot:
		return fmt.Errorf("%w; try --chroot-fallback", err)
	}
	return sys.ChrootHere()
}
