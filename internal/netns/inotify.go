package netns

import (
	"os"
	"time"

	"penne/internal/sys"
)

// Inotify is an inotify instance. An engine has one for everything: a user has few,
// usually 128 for all programs (fs.inotify.max_user_instances).
type Inotify struct {
	file *os.File
	// Events delivers events for [sys.InotifyEvents]. It must be received
	// from, and is closed after Close.
	Events <-chan []byte
}

// NewInotify takes ownership of the inotify descriptor fd. Events are passed to
// first, and then to Events.
func NewInotify(fd int, first func(events []byte)) *Inotify {
	sys.SetCloseOnExec(fd)
	events := make(chan []byte)
	w := &Inotify{file: os.NewFile(uintptr(fd), "inotify"), Events: events}
	go w.read(first, events)
	return w
}

func (w *Inotify) read(first func([]byte), to chan<- []byte) {
	defer close(to)
	for {
		b := make([]byte, 4096)
		n, err := w.file.Read(b)
		if err != nil {
			return
		}
		first(b[:n])
		to <- b[:n]
	}
}

// FD is the inotify descriptor, to add watches to.
func (w *Inotify) FD() int { return int(w.file.Fd()) }

// Close ends all watches.
func (w *Inotify) Close() error { return w.file.Close() }

// pollInterval is how often an engine without inotify checks that the namespace's
// name still exists.
const pollInterval = time.Second

// watchNetNSName ends the engine when the namespace's name is removed, and sets
// h.Inotify.
func (s *engineStage) watchNetNSName(h *Handles) {
	fd := s.handover.Watch
	if fd < 0 {
		fd, _ = sys.NewInotify()
	}
	if fd >= 0 {
		h.Inotify = NewInotify(fd, s.nameEvents)
	}
	if dir := inherited(s.handover.Dir, "namespace directory"); dir != nil {
		go s.pollName(dir)
	}
}

func (s *engineStage) nameEvents(b []byte) {
	if sys.RemovalEvents(b, s.handover.WatchID, s.handover.WatchName) {
		s.cancel(errNamespaceGone)
	}
}

func (s *engineStage) pollName(dir *os.File) {
	for sys.HasName(int(dir.Fd()), s.handover.WatchName) {
		time.Sleep(pollInterval)
	}
	s.cancel(errNamespaceGone)
}
