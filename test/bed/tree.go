package bed

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Tree lists a process and all its descendants, parents first. Processes that were reparented are not in it.
func Tree(pid int) []int {
	children := map[int][]int{}
	for _, p := range pids() {
		if parent, ok := parentOf(p); ok {
			children[parent] = append(children[parent], p)
		}
	}
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree
}

func parentOf(pid int) (int, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	// The name, in parentheses, may hold anything; the fields follow the last one.
	_, rest, ok := bytes.Cut(stat[bytes.LastIndexByte(stat, ')'):], []byte(") "))
	if !ok {
		return 0, false
	}
	fields := bytes.Fields(rest)
	if len(fields) < 2 {
		return 0, false
	}
	parent, err := strconv.Atoi(string(fields[1]))
	return parent, err == nil
}

func killTree(pid int) {
	for _, p := range Tree(pid) {
		syscall.Kill(p, syscall.SIGKILL)
	}
}

// Usage is what a set of processes has used so far.
type Usage struct {
	CPU      time.Duration
	Wakeups  int64 // voluntary context switches: each is one sleep that ended
	RSS      int64 // bytes resident, shared pages counted in each process
	Threads  int
	Commands []string // the processes' names, for reports
}

// UsageOf adds up what processes use. Threads and processes that have ended are not in it.
func UsageOf(pids []int) Usage {
	var u Usage
	for _, pid := range pids {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		for _, task := range tasks {
			u.CPU += cpuOf(task)
			u.Wakeups += statusField(task, "voluntary_ctxt_switches:")
			u.Threads++
		}
		u.RSS += statusField(fmt.Sprintf("/proc/%d", pid), "VmRSS:") * 1024
		if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
			u.Commands = append(u.Commands, strings.TrimSpace(string(name)))
		}
	}
	return u
}

// cpuOf reads a task's time on a CPU. schedstat counts nanoseconds where /proc/PID/stat counts ticks of 10 ms.
func cpuOf(task string) time.Duration {
	text, err := os.ReadFile(task + "/schedstat")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	ns, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(ns)
}

func statusField(dir, key string) int64 {
	text, err := os.ReadFile(dir + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, key); ok {
			n, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return n
		}
	}
	return 0
}
