package netns

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"penne/internal/sys"
)

// Where commands are looked for, and the shell, if the environment names none.
const (
	defaultPath  = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	defaultShell = "/bin/sh"
)

// command is what runs inside.
type command struct {
	path string
	argv []string
}

// resolveCommand finds the program to run; an empty argv means the user's
// shell, called as at a login.
func resolveCommand(argv []string) (*command, error) {
	if len(argv) == 0 {
		shell := os.Getenv("SHELL")
		if shell == "" {
			shell = defaultShell
		}
		path, err := findCommand(shell)
		return &command{path, []string{"-" + filepath.Base(shell)}}, err
	}
	path, err := findCommand(argv[0])
	return &command{path, argv}, err
}

// findCommand looks name up as execvp(3) does. It is not found (127) or cannot
// be executed (126), as shells tell the two apart.
func findCommand(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, commandError(name, executable(name))
	}
	dirs := os.Getenv("PATH")
	if dirs == "" {
		dirs = defaultPath
	}
	var found error
	for _, dir := range filepath.SplitList(dirs) {
		if dir == "" {
			dir = "."
		}
		path := dir + "/" + name
		err := executable(path)
		if err == nil {
			return path, nil
		}
		if _, serr := os.Stat(path); serr == nil {
			found = err // there, but useless
		}
	}
	if found == nil {
		return "", &userError{statusNotFound, name + ": command not found", fs.ErrNotExist}
	}
	return "", commandError(name, found)
}

// executable tells why path cannot be executed, nil if it can.
func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return syscall.EISDIR
	}
	return sys.MayExecute(path)
}

// commandError puts a failure to execute name in words, nil included.
func commandError(name string, err error) error {
	if err == nil {
		return nil
	}
	status := statusNotRunnable
	if errors.Is(err, fs.ErrNotExist) {
		status = statusNotFound
	}
	return &userError{status, name + ": " + reason(err), err}
}
