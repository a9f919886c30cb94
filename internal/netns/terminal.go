package netns

import (
	"os"
	"syscall"

	"penne/internal/sys"
)

// openTerminal opens our terminal; nil if we have none.
func openTerminal() *os.File {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	return tty
}

// inForeground reports whether we are in the foreground of a terminal.
func inForeground() bool {
	tty := openTerminal()
	if tty == nil {
		return false
	}
	defer tty.Close()
	group, err := sys.ForegroundGroup(int(tty.Fd()))
	return err == nil && group == sys.ProcessGroup()
}

// reclaimTerminal puts us in the foreground again. A shell with job control, run as
// the command, takes the terminal and cannot give it back: our process group has no
// ID inside its PID namespace.
func reclaimTerminal() {
	tty := openTerminal()
	if tty == nil {
		return
	}
	defer tty.Close()
	if group, err := sys.ForegroundGroup(int(tty.Fd())); err == nil && group != sys.ProcessGroup() {
		_ = sys.SetForegroundGroup(int(tty.Fd()), sys.ProcessGroup())
	}
}

// typed reports whether sig comes from a key press, as far as can be told: if we
// are in the foreground of a terminal, so is the command, and the terminal has
// sent it the same.
func typed(sig syscall.Signal) bool {
	return (sig == syscall.SIGINT || sig == syscall.SIGQUIT) && inForeground()
}
