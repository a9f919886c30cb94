package isolate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// childEnv names what a copy of the test binary is to do in a sandbox of its
// own.
const childEnv = "PENNE_ISOLATE_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		if err := child(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runChild runs a part in a process as the engine's: root of its own user
// namespace, in a mount namespace of its own.
func runChild(t *testing.T, name string) (output string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // it takes milliseconds, unless it hangs
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+name)
	id := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
	gid := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: id, GidMappings: gid}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("user namespaces are not permitted: %v", err)
	}
	if strings.Contains(out.String(), ErrCgo.Error()) {
		t.Skip("built with cgo: run with CGO_ENABLED=0")
	}
	if ctx.Err() != nil {
		err = errors.Join(err, ctx.Err())
	}
	return out.String(), err
}

// TestEngineWorks does everything that an engine does, inside the sandbox.
func TestEngineWorks(t *testing.T) {
	for name := range works {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if out, err := runChild(t, name); err != nil {
				t.Errorf("%v:\n%s", err, out)
			}
		})
	}
}

// TestEngineRefuses tries what gives an error inside the sandbox.
func TestEngineRefuses(t *testing.T) {
	for name := range refusals {
		t.Run(name, func(t *testing.T) {
			if out, err := runChild(t, name); err != nil {
				t.Errorf("%v:\n%s", err, out)
			}
		})
	}
}

// TestEngineKills tries what ends the process.
func TestEngineKills(t *testing.T) {
	for name := range deaths {
		t.Run(name, func(t *testing.T) {
			out, err := runChild(t, name)
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGSYS {
				t.Errorf("ended with %v, want SIGSYS:\n%s", err, out)
			}
		})
	}
}
