package netns

import (
	"fmt"
	"reflect"
	"syscall"
	"testing"
	"time"
)

func TestRelay(t *testing.T) {
	now := time.Unix(100, 0)
	var sent []string
	r := newSignalForwarder()
	r.now = func() time.Time { return now }
	r.send = func(fd int, sig syscall.Signal) error {
		sent = append(sent, fmt.Sprintf("%d:%d", fd, sig))
		return nil
	}
	r.forward(-1, syscall.SIGTERM)
	r.forward(-1, syscall.SIGHUP)
	if sent != nil {
		t.Errorf("sent to nobody: %v", sent)
	}
	r.flush(5)
	r.forward(5, syscall.SIGTERM) // the same one, by another way
	now = now.Add(duplicateWindow)
	r.forward(5, syscall.SIGTERM)
	if want := []string{"5:15", "5:1", "5:15"}; !reflect.DeepEqual(sent, want) {
		t.Errorf("sent %v, want %v", sent, want)
	}
}

func TestRelayInsists(t *testing.T) {
	start := time.Unix(100, 0)
	now := start
	r := newSignalForwarder()
	r.now = func() time.Time { return now }
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{0, false}, {0, false}, {insistAfter - 1, false}, {insistAfter, true}, {time.Hour, true}} {
		now = start.Add(c.after)
		if got := r.insists(); got != c.want {
			t.Errorf("TERM %v after the first: %v", c.after, got)
		}
	}
}

func TestTypedWithoutTerminal(t *testing.T) {
	if typed(syscall.SIGTERM) {
		t.Error("TERM is typed")
	}
}
