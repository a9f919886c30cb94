package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"penne/internal/conf"
)

// outputs are files of the engine's, nil unless the launcher has to open them: an
// engine that runs as another user may not be able to.
type outputs struct {
	log, capture *os.File
	// made is the capture's path, if there was no such file before.
	made string
}

// open opens what c names.
func (o *outputs) open(c *conf.Logging) (err error) {
	if c.File != "" {
		if o.log, err = openOutput(c.File, os.O_RDWR); err != nil {
			return fmt.Errorf("open log file: %w", err)
		}
	}
	if c.Pcap == "" {
		return nil
	}
	if o.capture, err = openOutput(c.Pcap, os.O_WRONLY|os.O_EXCL); err == nil {
		o.made = c.Pcap
	} else if errors.Is(err, fs.ErrExist) {
		o.capture, err = openOutput(c.Pcap, os.O_WRONLY)
	}
	if err != nil {
		return fmt.Errorf("create capture file: %w", err)
	}
	return nil
}

// openOutput opens a file, or makes one for its owner only. It does not wait
// for the reader of a pipe.
func openOutput(path string, how int) (*os.File, error) {
	return os.OpenFile(path, how|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
}

// fds are the descriptors of both, -1 where there is none.
func (o *outputs) fds() (log, capture int) { return fdOf(o.log), fdOf(o.capture) }

func fdOf(f *os.File) int {
	if f == nil {
		return -1
	}
	return int(f.Fd())
}

// close closes what is open here.
func (o *outputs) close() {
	for _, f := range []*os.File{o.log, o.capture} {
		if f != nil {
			f.Close()
		}
	}
	o.log, o.capture = nil, nil
}

// undo closes both, and removes a capture that was never begun.
func (o *outputs) undo() {
	o.close()
	if o.made != "" {
		_ = os.Remove(o.made)
	}
	o.made = ""
}
