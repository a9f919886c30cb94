package bed

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
)

// agentEnv and toolEnv make a copy of the binary an agent, or one of the program's tools.
const (
	agentEnv = "PENNE_BED_AGENT"
	toolEnv  = "PENNE_BED_TOOL"
)

// request and reply are the agent's protocol: one JSON value a line, on standard input and output.
type request struct {
	ID    int
	Argv  []string
	Tool  string // a tool of this program, instead of a command; Argv are its arguments
	Stdin []byte
	Ready string // start only: reply when this matched a line of the output, and leave the command running
	Stop  int    // end the command that this request started
}

// name is what an error calls the request by.
func (r *request) name() string {
	switch {
	case r.Tool != "":
		return r.Tool
	case len(r.Argv) > 0:
		return r.Argv[0]
	default:
		return "stop"
	}
}

type reply struct {
	ID int
	Result
	Err string
}

// A Tool is a function of this program that runs in a process of its own inside a namespace. What it
// returns is encoded as JSON for Session.Tool.
type Tool func(args []string) (any, error)

var tools = map[string]Tool{}

// Register names a tool. It is called from variable declarations or init functions.
func Register(name string, t Tool) struct{} {
	if _, ok := tools[name]; ok {
		panic("tool registered twice: " + name)
	}
	tools[name] = t
	return struct{}{}
}

// toolReply is what a tool's process prints.
type toolReply struct {
	Value json.RawMessage
	Err   string
}

// Forever keeps a tool's process until it is killed. Go's runtime would take select{} for a deadlock, and end
// the process, as soon as no goroutine waits for a socket or a timer.
func Forever() (any, error) {
	for {
		if err := syscall.Pause(); err != syscall.EINTR { // a signal's handler ran: the runtime's own
			return nil, err
		}
	}
}

// RunAgent serves as agent or tool if this process was started to be one, and tells whether it did: then
// there is nothing else to do.
func RunAgent() bool {
	if name := os.Getenv(toolEnv); name != "" {
		os.Unsetenv(toolEnv)
		runTool(name)
		return true
	}
	if os.Getenv(agentEnv) == "" {
		return false
	}
	os.Unsetenv(agentEnv)
	a := agent{out: json.NewEncoder(os.Stdout), running: map[int]*exec.Cmd{}}
	a.serve(os.Stdin)
	return true
}

func runTool(name string) {
	var r toolReply
	value, err := any(nil), errors.New("no such tool")
	if t, ok := tools[name]; ok {
		value, err = t(os.Args[1:])
	}
	if err == nil {
		r.Value, err = json.Marshal(value)
	}
	if err != nil {
		r.Err = err.Error()
	}
	json.NewEncoder(os.Stdout).Encode(r)
}

// agent runs commands for the bed from inside a namespace, several at a time.
type agent struct {
	mu      sync.Mutex // guards what follows
	out     *json.Encoder
	running map[int]*exec.Cmd
}

func (a *agent) serve(in io.Reader) {
	a.send(reply{}) // ready
	for dec := json.NewDecoder(bufio.NewReader(in)); ; {
		var r request
		if err := dec.Decode(&r); err != nil {
			a.stopAll()
			return
		}
		go a.handle(r)
	}
}

func (a *agent) send(r reply) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.out.Encode(r) // a reader that has gone ends us by our standard input
}

func (a *agent) handle(r request) {
	switch {
	case r.Stop != 0:
		a.stop(r)
	case r.Ready != "":
		a.startCommand(r)
	default:
		a.runCommand(r)
	}
}

func (a *agent) command(r request) *exec.Cmd {
	var cmd *exec.Cmd
	if r.Tool != "" {
		cmd = exec.Command("/proc/self/exe", r.Argv...)
		cmd.Env = append(os.Environ(), toolEnv+"="+r.Tool)
	} else {
		cmd = exec.Command(r.Argv[0], r.Argv[1:]...)
	}
	if r.Stdin != nil {
		cmd.Stdin = bytes.NewReader(r.Stdin)
	}
	cmd.WaitDelay = drained
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

func (a *agent) runCommand(r request) {
	cmd := a.command(r)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	answer := reply{ID: r.ID}
	if err := cmd.Start(); err != nil {
		answer.Err = err.Error()
		a.send(answer)
		return
	}
	a.track(r.ID, cmd)
	cmd.Wait() // how it ended is in its state
	a.untrack(r.ID)
	answer.Result = Result{exitStatus(cmd.ProcessState), stdout.String(), stderr.String()}
	a.send(answer)
}

// startCommand replies as soon as the command says that it is ready.
func (a *agent) startCommand(r request) {
	answer := reply{ID: r.ID}
	re, err := regexp.Compile("(?m)" + r.Ready)
	if err != nil {
		answer.Err = err.Error()
		a.send(answer)
		return
	}
	cmd, output, seen := a.command(r), newOutput(), make(chan struct{})
	cmd.Stdout, cmd.Stderr = output, output
	var once sync.Once
	output.watch(func(text []byte) {
		if re.Match(text) {
			once.Do(func() { close(seen) })
		}
	})
	if err := cmd.Start(); err != nil {
		answer.Err = err.Error()
		a.send(answer)
		return
	}
	a.track(r.ID, cmd)
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		a.untrack(r.ID)
		close(ended)
	}()
	select {
	case <-seen:
	case <-ended:
		if !isClosed(seen) { // it may have been both, in this order
			answer.Err = fmt.Sprintf("ended before it was ready: %v", cmd.ProcessState)
		}
	}
	answer.Stdout = output.String()
	a.send(answer)
}

func (a *agent) track(id int, cmd *exec.Cmd) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running[id] = cmd
}

func (a *agent) untrack(id int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.running, id)
}

func (a *agent) stop(r request) {
	a.mu.Lock()
	cmd := a.running[r.Stop]
	a.mu.Unlock()
	answer := reply{ID: r.ID}
	if cmd == nil {
		answer.Err = "not running"
	} else {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	a.send(answer)
}

func (a *agent) stopAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, cmd := range a.running {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
}
