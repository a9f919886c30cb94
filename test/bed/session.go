package bed

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// Session is an agent that waits for commands: inside a namespace that pasta connects, or in one of the
// bed's own. Methods may be called from several goroutines.
type Session struct {
	// Proc is what the bed started: pasta, or the agent itself.
	Proc *Proc

	bed   *Bed
	agent string // path of the agent's binary, which tells its processes from pasta's
	stdin io.WriteCloser

	mu      sync.Mutex // guards what follows
	enc     *json.Encoder
	next    int
	waiting map[int]chan reply
	ready   chan struct{} // closed at the agent's first word
	ended   chan struct{} // closed when the agent's output has ended
}

// Pasta starts pasta in host as the unprivileged user, with an agent as its command. argv is pasta's path and
// options; foreground and network configuration are for the caller to ask for.
func (b *Bed) Pasta(argv ...string) (*Session, error) {
	program, err := b.Stage(argv[0])
	if err != nil {
		return nil, err
	}
	agent, err := b.stageSelf()
	if err != nil {
		return nil, err
	}
	full := append([]string{program}, argv[1:]...)
	return b.session(b.Host, agent, append(full, "--", agent))
}

// Direct starts an agent in a namespace of the bed itself, as the unprivileged user: what pasta's users would
// have with privileges.
func (b *Bed) Direct(n *NS) (*Session, error) {
	agent, err := b.stageSelf()
	if err != nil {
		return nil, err
	}
	return b.session(n, agent, []string{agent})
}

func (b *Bed) stageSelf() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return b.Stage(self)
}

func (b *Bed) session(n *NS, agent string, argv []string) (*Session, error) {
	// Pipes of our own: exec's would be closed by Wait before the last reply is read.
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		inR.Close()
		inW.Close()
		return nil, err
	}
	s := &Session{
		bed: b, agent: agent, stdin: inW, enc: json.NewEncoder(inW), waiting: map[int]chan reply{},
		ready: make(chan struct{}), ended: make(chan struct{}),
	}
	s.Proc, err = n.Start(Spec{Argv: argv, Env: []string{agentEnv + "=1"}, Stdin: inR, Stdout: outW})
	inR.Close()
	outW.Close()
	if err != nil {
		inW.Close()
		outR.Close()
		return nil, err
	}
	go s.receive(outR)
	return s, s.awaitAgent()
}

func (s *Session) awaitAgent() error {
	select {
	case <-s.ready:
	case <-time.After(Patience):
		s.kill()
		return fmt.Errorf("%s runs no command after %v: %s", s.Proc.Argv[0], Patience, s.Proc.Stderr)
	case <-s.Proc.done:
		s.stdin.Close()
		return fmt.Errorf("%s ended before its command ran: status %d: %s", s.Proc.Argv[0], s.Proc.Wait(), s.Proc.Stderr)
	}
	s.bed.mu.Lock()
	defer s.bed.mu.Unlock()
	if s.bed.closed {
		return errors.New("start session: the bed is closed")
	}
	s.bed.sessions[s] = struct{}{}
	return nil
}

// receive hands replies to those who wait for them.
func (s *Session) receive(out io.ReadCloser) {
	defer out.Close()
	defer close(s.ended)
	for dec := json.NewDecoder(out); ; {
		var r reply
		if err := dec.Decode(&r); err != nil {
			return
		}
		if r.ID == 0 {
			close(s.ready)
			continue
		}
		s.mu.Lock()
		ch := s.waiting[r.ID]
		delete(s.waiting, r.ID)
		s.mu.Unlock()
		ch <- r
	}
}

// ask sends a request and waits for its reply.
func (s *Session) ask(r request) (int, Result, error) {
	ch := make(chan reply, 1)
	s.mu.Lock()
	s.next++
	r.ID = s.next
	s.waiting[r.ID] = ch
	err := s.enc.Encode(r)
	s.mu.Unlock()
	if err != nil {
		return 0, Result{}, fmt.Errorf("ask agent: %w", err)
	}
	a, err := s.answer(ch)
	switch {
	case err != nil:
		return 0, Result{}, fmt.Errorf("run %s: %w; pasta said: %s", r.name(), err, s.Proc.Stderr)
	case a.Err != "":
		return r.ID, a.Result, fmt.Errorf("run %s: %s: %s", r.name(), a.Err, a.Stdout)
	}
	return r.ID, a.Result, nil
}

// answer waits for a reply. One that came before the agent's end counts.
func (s *Session) answer(ch <-chan reply) (reply, error) {
	select {
	case a := <-ch:
		return a, nil
	case <-s.ended:
	case <-time.After(Patience):
		return reply{}, fmt.Errorf("no answer after %v", Patience)
	}
	select {
	case a := <-ch:
		return a, nil
	default:
		return reply{}, errors.New("the agent has gone")
	}
}

// Run runs a command inside and waits for its end. An exit status other than 0 is no error.
func (s *Session) Run(argv ...string) (Result, error) {
	_, res, err := s.ask(request{Argv: argv})
	return res, err
}

// RunInput is Run with a standard input.
func (s *Session) RunInput(stdin []byte, argv ...string) (Result, error) {
	_, res, err := s.ask(request{Argv: argv, Stdin: stdin})
	return res, err
}

// Tool runs a registered tool inside and decodes what it returned into value.
func (s *Session) Tool(value any, name string, args ...string) error {
	_, res, err := s.ask(request{Tool: name, Argv: args})
	if err != nil {
		return err
	}
	var r toolReply
	if err := json.Unmarshal([]byte(res.Stdout), &r); err != nil {
		return fmt.Errorf("tool %s: status %d: %s%s", name, res.Status, res.Stdout, res.Stderr)
	}
	if r.Err != "" {
		return fmt.Errorf("tool %s: %s", name, r.Err)
	}
	return json.Unmarshal(r.Value, value)
}

// Background starts a command inside, returns once its output matched ready, and gives a function that ends it.
func (s *Session) Background(ready string, argv ...string) (stop func() error, err error) {
	return s.background(request{Argv: argv, Ready: ready})
}

// BackgroundTool is Background for a registered tool, which prints the line itself.
func (s *Session) BackgroundTool(ready, name string, args ...string) (stop func() error, err error) {
	return s.background(request{Tool: name, Argv: args, Ready: ready})
}

func (s *Session) background(r request) (stop func() error, err error) {
	id, _, err := s.ask(r)
	if err != nil {
		return nil, err
	}
	return func() error {
		_, _, err := s.ask(request{Stop: id})
		return err
	}, nil
}

// Processes are pasta's own: everything below what the bed started, without the agent and its commands.
func (s *Session) Processes() []int {
	agents := map[int]bool{}
	var own []int
	for _, pid := range Tree(s.Proc.PID()) {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		parent, _ := parentOf(pid)
		if exe == s.agent || agents[parent] {
			agents[pid] = true
			continue
		}
		own = append(own, pid)
	}
	return own
}

// Close lets the agent end and waits for pasta, which then ends too. It returns pasta's exit status.
func (s *Session) Close() int {
	s.forget()
	s.stdin.Close()
	return s.Proc.Wait()
}

// Terminate sends pasta a TERM and waits for its end.
func (s *Session) Terminate() int {
	s.forget()
	s.Proc.Signal(syscall.SIGTERM)
	defer s.stdin.Close()
	return s.Proc.Wait()
}

func (s *Session) forget() {
	s.bed.mu.Lock()
	delete(s.bed.sessions, s)
	s.bed.mu.Unlock()
}

func (s *Session) kill() {
	s.Proc.Kill()
	s.stdin.Close()
}
