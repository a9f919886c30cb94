package netns

import (
	"os"
	"time"

	"penne/internal/sys"
)

// Watches is an inotify instance. An engine has one for all it watches: a user
// has few, 128 as a rule, and those of other programs count as well
// (fs.inotify.max_user_instances).
type Watches struct {
	file *os.File
	// Events is what comes, as [sys.InotifyEvents] reads it. It must be
	// received, and is closed after Close.
	Events <-chan []byte
}

// NewWatches takes over the inotify descriptor fd. Each portion of events goes
// to first before it goes to Events.
func NewWatches(fd int, first func(events []byte)) *Watches {
	sys.SetCloseOnExec(fd)
	events := make(chan []byte)
	w := &Watches{file: os.NewFile(uintptr(fd), "inotify"), Events: events}
	go w.read(first, events)
	return w
}

func (w *Watches) read(first func([]byte), to chan<- []byte) {
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
func (w *Watches) FD() int { return int(w.file.Fd()) }

// Close ends all watches.
func (w *Watches) Close() error { return w.file.Close() }

// lookEvery is how often an engine that nobody tells looks whether the
// namespace's name is still there.
const lookEvery = time.Second

// watchNames ends the engine when the namespace's name goes, and makes the
// engine's watches possible.
func (s *stage) watchNames(h *Handles) {
	fd := s.hand.Watch
	if fd < 0 {
		fd, _ = sys.NewInotify()
	}
	if fd >= 0 {
		h.Watches = NewWatches(fd, s.nameEvents)
	}
	if dir := inherited(s.hand.Dir, "namespace directory"); dir != nil {
		go s.lookAfter(dir)
	}
}

func (s *stage) nameEvents(b []byte) {
	if sys.RemovalEvents(b, s.hand.WatchID, s.hand.WatchName) {
		s.cancel(errNamespaceGone)
	}
}

func (s *stage) lookAfter(dir *os.File) {
	for sys.HasName(int(dir.Fd()), s.hand.WatchName) {
		time.Sleep(lookEvery)
	}
	s.cancel(errNamespaceGone)
}
