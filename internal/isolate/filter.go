package isolate

import (
	"fmt"
	"slices"
	"syscall"

	"penne/internal/sys"
)

// check compares the low 32 bits of an argument, of which the kernel looks at
// no others in the calls in question: arg & mask == value.
type check struct {
	arg   int // 0 to 5
	mask  uint32
	value uint32
}

// rule is the verdict on one system call.
type rule struct {
	nr uint32
	// when lists alternatives: the call is allowed if all checks of one
	// hold. Without any it gets the verdict otherwise.
	when      [][]check
	otherwise uint32
}

// Offsets in struct seccomp_data (linux/seccomp.h): nr, arch, instruction
// pointer, six arguments of 64 bits, whose low half is first on all our
// architectures.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

// x32 marks calls of amd64's other ABI, which have numbers of their own.
const x32 = 0x40000000

// Opcodes (linux/bpf_common.h).
const (
	opLoad = syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS
	opAnd  = syscall.BPF_ALU | syscall.BPF_AND | syscall.BPF_K
	opJeq  = syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K
	opJge  = syscall.BPF_JMP | syscall.BPF_JGE | syscall.BPF_K
	opJump = syscall.BPF_JMP | syscall.BPF_JA
	opRet  = syscall.BPF_RET | syscall.BPF_K
)

func load(off int) sys.SockFilter       { return sys.SockFilter{Code: opLoad, K: uint32(off)} }
func ret(verdict uint32) sys.SockFilter { return sys.SockFilter{Code: opRet, K: verdict} }

// assemble makes the filter. Numbers that no rule names get the verdict
// otherwise. The numbers are searched by halves, so that a kernel which does
// not remember verdicts takes few steps.
func assemble(arch uint32, rules []rule, otherwise uint32) ([]sys.SockFilter, error) {
	spans, err := split(rules, otherwise)
	if err != nil {
		return nil, err
	}
	p := program{make([]sys.SockFilter, 0, 512)}
	p.add(
		load(offArch),
		sys.SockFilter{Code: opJeq, K: arch, Jt: 1},
		ret(sys.SeccompKillProcess),
		load(offNr),
		sys.SockFilter{Code: opJge, K: x32, Jf: 1},
		ret(sys.SeccompKillProcess),
	)
	p.search(spans)
	return p.code, nil
}

// split sorts rules and fills the gaps between them: each rule stands for all
// numbers up to the next one's. Neighbours with the same verdict become one.
func split(rules []rule, otherwise uint32) ([]rule, error) {
	slices.SortFunc(rules, func(a, b rule) int { return int(a.nr) - int(b.nr) })
	spans := make([]rule, 0, 2*len(rules)+1)
	add := func(r rule) {
		if n := len(spans); n > 0 && spans[n-1].when == nil && r.when == nil && spans[n-1].otherwise == r.otherwise {
			return
		}
		spans = append(spans, r)
	}
	next := uint32(0)
	for _, r := range rules {
		if r.nr < next {
			return nil, fmt.Errorf("two rules for system call %d", r.nr)
		}
		if r.nr > next {
			add(rule{nr: next, otherwise: otherwise})
		}
		add(r)
		next = r.nr + 1
	}
	add(rule{nr: next, otherwise: otherwise})
	return spans, nil
}

// program is a filter in the making.
type program struct {
	code []sys.SockFilter
}

func (p *program) add(ins ...sys.SockFilter) { p.code = append(p.code, ins...) }

// search halves the spans. A conditional jump reaches 255 instructions, so a
// longer way takes one more.
func (p *program) search(spans []rule) {
	if len(spans) == 1 {
		p.decide(&spans[0])
		return
	}
	mid := len(spans) / 2
	at := len(p.code)
	p.add(sys.SockFilter{Code: opJge, K: spans[mid].nr})
	p.search(spans[:mid])
	if n := len(p.code) - at - 1; n <= 255 {
		p.code[at].Jt = uint8(n)
	} else {
		p.code[at].Jf = 1
		p.code = slices.Insert(p.code, at+1, sys.SockFilter{Code: opJump, K: uint32(n)})
	}
	p.search(spans[mid:])
}

// decide adds what looks at the arguments of one call.
func (p *program) decide(r *rule) {
	for _, checks := range r.when {
		at := len(p.code)
		for _, c := range checks {
			p.add(load(offArgs + 8*c.arg))
			if c.mask != ^uint32(0) {
				p.add(sys.SockFilter{Code: opAnd, K: c.mask})
			}
			p.add(sys.SockFilter{Code: opJeq, K: c.value})
		}
		p.add(ret(sys.SeccompAllow))
		for i := at; i < len(p.code); i++ {
			if p.code[i].Code == opJeq { // on to the next alternative
				p.code[i].Jf = uint8(len(p.code) - i - 1)
			}
		}
	}
	p.add(ret(r.otherwise))
}
