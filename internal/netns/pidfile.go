package netns

import (
	"fmt"
	"os"
	"syscall"
)

// pidFile is the file that tells others our pid. The zero value is none.
type pidFile struct {
	path string
	// said is what we wrote.
	said string
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
	text := fmt.Sprintln(pid)
	n, err := f.WriteString(text)
	p.path, p.said = path, text[:n]
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
	if p.path != "" && p.ours() {
		_ = os.Remove(p.path)
	}
	p.path = ""
}

// ours reports whether the file says what we wrote: by now a successor may have
// written to it. A device, such as /dev/null, a pipe or a link is never ours.
func (p *pidFile) ours() bool {
	info, err := os.Lstat(p.path)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	now, err := os.ReadFile(p.path)
	return err == nil && string(now) == p.said
}
