package bed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// markEnv is in the environment of every process of a bed; see mark.
const markEnv = "PENNE_BED"

// mark is that of bed number n of a process: its pid, n, and the PID namespace in which the pid means it, with dots
// between. A test that runs on a machine sees the processes of tests in containers on it.
func mark(pid int, n int64) string { return fmt.Sprintf("%d.%d.%s", pid, n, pidSpace()) }

// pidSpace identifies our PID namespace.
func pidSpace() string {
	space, _ := os.Readlink("/proc/self/ns/pid") // without it, all are taken for one
	return space
}

// isStale tells whether the process that made a mark, in our PID namespace, has ended.
func isStale(mark string) bool {
	parts := strings.SplitN(mark, ".", 3)
	if len(parts) < 3 || parts[2] != pidSpace() {
		return false
	}
	owner, err := strconv.Atoi(parts[0])
	return err == nil && !alive(owner)
}

const dirPrefix = "penne-bed-"

// prepareSystem does what concerns the whole machine. It is idempotent.
func prepareSystem() error {
	// Namespaces inherit the initial one's choice when they are made, those that pasta makes included; with
	// bbr as some images have it, every figure is erratic.
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_congestion_control", []byte("cubic"), 0); err != nil {
		return fmt.Errorf("set congestion control: %w", err)
	}
	if err := os.Chmod("/dev/net/tun", 0o666); err != nil {
		return fmt.Errorf("open tap device to everybody: %w", err)
	}
	closeOnExec()
	return raiseFiles()
}

// closeOnExec keeps descriptors that whoever started us left open from going on to what we start.
func closeOnExec() {
	open, _ := os.ReadDir("/proc/self/fd")
	for _, e := range open {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}

// raiseFiles lets children open as many files as can be had: what the kernel allows at all where this root
// may raise its hard limit (CAP_SYS_RESOURCE, which a container's often lacks), else the hard limit. It
// happens here, before anything is dropped.
func raiseFiles() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read limit of files: %w", err)
	}
	if most := maxFiles(); limit.Max < most {
		err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: most, Max: most})
		if err == nil || !errors.Is(err, syscall.EPERM) {
			return err
		}
	}
	limit.Cur = limit.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

// maxFiles is the most a hard limit can be, or 0 if the kernel does not say.
func maxFiles() uint64 {
	text, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err != nil {
		return 0
	}
	most, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0
	}
	return most
}

// newDir makes the directory that everybody can read; its name tells whose it is. In races everybody can write.
func newDir() (string, error) {
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", dirPrefix, os.Getpid()))
	if err != nil {
		return "", fmt.Errorf("make directory for binaries: %w", err)
	}
	races := filepath.Join(dir, races)
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(races, 0), os.Chmod(races, 0o777|os.ModeSticky)); err != nil {
		return "", fmt.Errorf("make directory for binaries: %w", err)
	}
	return dir, nil
}

// races is where programs that were built with Go's race detector report.
const races = "races"

// raceReports are the reports of all programs that have run in a bed.
func raceReports(dir string) error {
	var all []error
	reports, _ := filepath.Glob(filepath.Join(dir, races, "*"))
	for _, file := range reports {
		text, err := os.ReadFile(file)
		all = append(all, err, fmt.Errorf("a data race, see below\n%s", text))
	}
	return errors.Join(all...)
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// removeStale removes what killed runs left: their directories, and processes that outlived them.
func removeStale() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	for _, dir := range dirs {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
		if n, err := strconv.Atoi(pid); err == nil && !alive(n) {
			os.RemoveAll(dir)
		}
	}
	for _, pid := range pids() {
		if isStale(markOf(pid)) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// killMarked ends what still carries a bed's mark: a process can leave the tree that started it.
func killMarked(mark string) {
	for found := true; found; {
		found = false
		for _, pid := range pids() {
			if markOf(pid) == mark && syscall.Kill(pid, syscall.SIGKILL) == nil {
				found = true
			}
		}
	}
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// pids lists the processes of this PID namespace.
func pids() []int {
	entries, _ := os.ReadDir("/proc")
	var all []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// markOf reads which bed a process belongs to; it is empty for a stranger, and for one that has ended.
func markOf(pid int) string {
	dir := fmt.Sprintf("/proc/%d/", pid)
	env, err := os.ReadFile(dir + "environ")
	for end := time.Now().Add(execTakes); err == nil && len(env) == 0 && inExec(dir) && time.Now().Before(end); {
		runtime.Gosched()
		env, err = os.ReadFile(dir + "environ")
	}
	if err != nil {
		return "" // gone, or not ours to read
	}
	for kv := range bytes.SplitSeq(env, []byte{0}) {
		if value, found := bytes.CutPrefix(kv, []byte(markEnv+"=")); found {
			return string(value)
		}
	}
	return ""
}

// execTakes is the longest that a process may stay in the middle of exec: one that shows nothing for longer has taken
// its arguments and environment away.
const execTakes = time.Second

// inExec tells whether a process is in the middle of exec: it has a program already, but neither arguments nor
// environment, which the kernel shows only when they are in place. A kernel thread and a zombie have no program.
func inExec(dir string) bool {
	if _, err := os.Readlink(dir + "exe"); err != nil {
		return false
	}
	args, err := os.ReadFile(dir + "cmdline")
	return err == nil && len(args) == 0
}
