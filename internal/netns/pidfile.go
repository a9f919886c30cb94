package netns

import (
	"fmt"
	"os"
	"syscall"
)

// pidFile is the file that tells others our pid. The zero value is none.
type pidFile struct {
	path string
	info os.FileInfo
}

// write makes the file at path; an empty path makes none.
func (p *pidFile) write(path string, pid int) error {
	if path == "" {
		return nil
	}
	// A pipe that nobody reads is an error, not a reason to wait.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return failure(err, "Failed to write PID file %s: %s", path, reason(err))
	}
	p.path = path
	p.info, _ = f.Stat()
	_, err = fmt.Fprintf(f, "%d\n", pid)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		p.remove()
		return failure(err, "Failed to write PID file %s: %s", path, reason(err))
	}
	return nil
}

// remove removes the file, if it is still ours.
func (p *pidFile) remove() {
	if p.path == "" {
		return
	}
	if now, err := os.Stat(p.path); err == nil && p.info != nil && os.SameFile(now, p.info) {
		_ = os.Remove(p.path)
	}
	p.path = ""
}
