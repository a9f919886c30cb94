package log

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

const (
	// MinFileSize is the smallest limit of a log file, in bytes.
	MinFileSize = 4096
	// copySize is the size of the buffer for moving a file's content.
	copySize = 32 << 10
)

// File is a log file of limited size. When it is full, its oldest lines are
// removed by moving the rest to the front: no other file needs to be opened. It is
// owned by one Log, which serialises its use; several processes may write to the
// same file, which is locked for each line.
type File struct {
	f     *os.File
	size  int64 // of the file in bytes, valid while it is locked
	limit int64
	buf   []byte // copySize bytes
}

// OpenFile opens or creates the log file at path, with access for its owner only.
// Lines in it are kept as far as limit, in bytes, allows.
func OpenFile(path string, limit int64) (*File, error) {
	// O_APPEND would make Linux ignore the offset of pwrite(2).
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log file: %w", err)
	}
	w, err := NewFile(f, limit)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return w, nil
}

// NewFile uses f, open for reading and writing without O_APPEND, as a log file. If
// it succeeds, the File owns f.
func NewFile(f *os.File, limit int64) (*File, error) {
	if limit < MinFileSize {
		return nil, fmt.Errorf("limit log file: %d bytes are less than %d", limit, MinFileSize)
	}
	w := &File{f: f, limit: limit, buf: make([]byte, copySize)}
	if err := w.lock(); err != nil {
		return nil, err
	}
	defer w.unlock()
	if w.size > limit {
		if err := w.trim(0); err != nil {
			return nil, fmt.Errorf("trim log file: %w", err)
		}
	}
	return w, nil
}

// lock keeps other processes from writing, and finds the file's size. On file
// systems without locks it only does the latter.
func (w *File) lock() error {
	_ = syscall.Flock(int(w.f.Fd()), syscall.LOCK_EX)
	info, err := w.f.Stat()
	if err != nil {
		w.unlock()
		return fmt.Errorf("stat log file: %w", err)
	}
	w.size = info.Size()
	return nil
}

func (w *File) unlock() { _ = syscall.Flock(int(w.f.Fd()), syscall.LOCK_UN) }

// Close closes the file.
func (w *File) Close() error { return w.f.Close() }

// append appends a line, which ends in a newline. A line longer than half of the
// limit is truncated.
func (w *File) append(line []byte) error {
	if n := int(w.limit / 2); len(line) > n {
		line[n-1] = '\n'
		line = line[:n]
	}
	if err := w.lock(); err != nil {
		return err
	}
	defer w.unlock()
	if w.size+int64(len(line)) > w.limit {
		if err := w.trim(int64(len(line))); err != nil {
			return err
		}
	}
	n, err := w.f.WriteAt(line, w.size)
	if err != nil {
		// The next line must not continue half of this one.
		return errors.Join(err, w.f.Truncate(w.size))
	}
	w.size += int64(n)
	return nil
}

// trim makes room for need bytes, and at least a quarter of the limit, so that it
// is rarely needed. If the content cannot be moved, all of it is removed.
func (w *File) trim(need int64) error {
	drop := max(w.size+need-w.limit, w.limit/4)
	from, err := w.lineStart(min(drop, w.size))
	if err == nil {
		err = w.moveToFront(from)
	}
	if err != nil {
		w.size = 0
		return w.f.Truncate(0)
	}
	return nil
}

// lineStart finds the first start of a line at or after off, else the end.
func (w *File) lineStart(off int64) (int64, error) {
	if off == 0 {
		return 0, nil
	}
	for off--; off < w.size; {
		n, err := w.f.ReadAt(w.buf[:min(copySize, w.size-off)], off)
		if i := bytes.IndexByte(w.buf[:n], '\n'); i >= 0 {
			return off + int64(i) + 1, nil
		}
		if err != nil && (!errors.Is(err, io.EOF) || n == 0) {
			return 0, err
		}
		off += int64(n)
	}
	return w.size, nil
}

// moveToFront moves what follows offset from to the front, and truncates the file
// after it.
func (w *File) moveToFront(from int64) error {
	to := int64(0)
	for from+to < w.size {
		n, err := w.f.ReadAt(w.buf[:min(copySize, w.size-from-to)], from+to)
		if n == 0 {
			return fmt.Errorf("read log file: %w", err)
		}
		if _, err := w.f.WriteAt(w.buf[:n], to); err != nil {
			return fmt.Errorf("write log file: %w", err)
		}
		to += int64(n)
	}
	if err := w.f.Truncate(to); err != nil {
		return fmt.Errorf("truncate log file: %w", err)
	}
	w.size = to
	return nil
}
