package isolate

import (
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/bpf"

	"penne/internal/sys"
)

// machine runs a filter as the kernel does. x/net/bpf loads big-endian words,
// so the data is given in that order.
type machine struct {
	vm *bpf.VM
}

func newMachine(t testing.TB, prog []sys.SockFilter) machine {
	t.Helper()
	raw := make([]bpf.RawInstruction, len(prog))
	for i, p := range prog {
		raw[i] = bpf.RawInstruction{Op: p.Code, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	ins, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the filter has unknown instructions")
	}
	vm, err := bpf.NewVM(ins)
	if err != nil {
		t.Fatal(err)
	}
	return machine{vm}
}

func (m machine) run(t testing.TB, arch, nr uint32, args ...uint32) uint32 {
	t.Helper()
	b := make([]byte, 64)
	binary.BigEndian.PutUint32(b[offNr:], nr)
	binary.BigEndian.PutUint32(b[offArch:], arch)
	for i, a := range args {
		binary.BigEndian.PutUint32(b[offArgs+8*i:], a)
	}
	v, err := m.vm.Run(b)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(v)
}

func filter(t testing.TB, c Config) machine {
	t.Helper()
	prog, err := Filter(c)
	if err != nil {
		t.Fatal(err)
	}
	return newMachine(t, prog)
}

// TestFilterEveryCall compares the program with the rules, for all numbers.
func TestFilterEveryCall(t *testing.T) {
	for _, c := range []Config{{}, {ReadFiles: true}} {
		m := filter(t, c)
		want := map[uint32]uint32{}
		for _, r := range rules(&c, os.Getpid()) {
			if len(r.when) == 0 {
				want[r.nr] = r.otherwise
			}
		}
		conditional := []uint32{sys.NrClone, sys.NrMmap, sys.NrMprotect, sys.NrTgkill, sys.NrPrctl, sys.NrSocket, sys.NrIoctl, sys.NrOpenat,
			sys.NrSchedSetaffinity, sys.NrSchedGetattr, sys.NrSchedSetattr}
		for nr := range uint32(700) {
			if slices.Contains(conditional, nr) {
				continue
			}
			verdict, ok := want[nr]
			if !ok {
				verdict = kill
			}
			if got := m.run(t, sys.AuditArch, nr); got != verdict {
				t.Errorf("call %d: verdict %#x, want %#x", nr, got, verdict)
			}
			if got := m.run(t, sys.AuditArch^1, nr); got != kill {
				t.Errorf("call %d of another architecture: verdict %#x", nr, got)
			}
			if got := m.run(t, sys.AuditArch, nr|x32); got != kill {
				t.Errorf("call %d of x32: verdict %#x", nr, got)
			}
		}
	}
}

func TestFilterArguments(t *testing.T) {
	pid := uint32(os.Getpid())
	const anon, private, shared, rw = sys.MapAnonymous, 2, 1, 3
	plain, reader := Config{}, Config{ReadFiles: true}
	tests := []struct {
		name    string
		c       Config
		nr      uint32
		args    []uint32
		verdict uint32
	}{
		{"thread", plain, sys.NrClone, []uint32{sys.ThreadFlags}, allow},
		{"thread with TLS", plain, sys.NrClone, []uint32{sys.ThreadFlags | sys.CloneSetTLS}, allow},
		{"process", plain, sys.NrClone, []uint32{17}, kill},
		{"vfork", plain, sys.NrClone, []uint32{0x4111}, kill},
		{"thread in a new namespace", plain, sys.NrClone, []uint32{sys.ThreadFlags | 0x40000000}, kill},
		{"clone3", plain, sys.NrClone3, nil, missing},
		{"memory", plain, sys.NrMmap, []uint32{0, 4096, rw, anon | private}, allow},
		{"executable memory", plain, sys.NrMmap, []uint32{0, 4096, 7, anon | private}, kill},
		{"file", plain, sys.NrMmap, []uint32{0, 4096, rw, shared}, kill},
		{"protect", plain, sys.NrMprotect, []uint32{0, 4096, 1}, allow},
		{"make executable", plain, sys.NrMprotect, []uint32{0, 4096, 4}, kill},
		{"stop own thread", plain, sys.NrTgkill, []uint32{pid, 1, 23}, allow},
		{"signal others", plain, sys.NrTgkill, []uint32{pid + 1, 1, 9}, kill},
		{"name memory", plain, sys.NrPrctl, []uint32{sys.PrSetVMA}, allow},
		{"name thread", plain, sys.NrPrctl, []uint32{sys.PrSetName}, allow},
		{"dumpable", plain, sys.NrPrctl, []uint32{4, 1}, refuse},
		{"own slice", plain, sys.NrSchedSetattr, []uint32{0}, allow},
		{"slice of another", plain, sys.NrSchedSetattr, []uint32{1}, refuse},
		{"pin itself", plain, sys.NrSchedSetaffinity, []uint32{0}, allow},
		{"pin another", plain, sys.NrSchedSetaffinity, []uint32{1}, refuse},
		{"TCP", plain, sys.NrSocket, []uint32{sys.AF_INET, sys.SOCK_STREAM | 0x80800, 6}, allow},
		{"UDP", plain, sys.NrSocket, []uint32{sys.AF_INET6, sys.SOCK_DGRAM}, allow},
		{"raw", plain, sys.NrSocket, []uint32{sys.AF_INET, 3, 255}, refuse},
		{"UNIX", plain, sys.NrSocket, []uint32{syscall.AF_UNIX, sys.SOCK_STREAM}, refuse},
		{"netlink", plain, sys.NrSocket, []uint32{16, 3}, refuse},
		{"queue length", plain, sys.NrIoctl, []uint32{5, sys.Siocoutq}, allow},
		{"terminal input", plain, sys.NrIoctl, []uint32{0, 0x5412}, refuse},
		{"open", plain, sys.NrOpenat, []uint32{0, 0, 0}, refuse},
		{"open for reading", reader, sys.NrOpenat, []uint32{0, 0, uint32(syscall.O_CLOEXEC | syscall.O_DIRECTORY)}, allow},
		{"open for writing", reader, sys.NrOpenat, []uint32{0, 0, syscall.O_RDWR}, refuse},
		{"create", reader, sys.NrOpenat, []uint32{0, 0, syscall.O_CREAT}, refuse},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := filter(t, tt.c).run(t, sys.AuditArch, tt.nr, tt.args...); got != tt.verdict {
				t.Errorf("verdict %#x, want %#x", got, tt.verdict)
			}
		})
	}
}

func TestFilterTwoRules(t *testing.T) {
	_, err := assemble(sys.AuditArch, []rule{{nr: 5}, {nr: 5}}, kill)
	if err == nil || !strings.Contains(err.Error(), "two rules for system call 5") {
		t.Errorf("error %v", err)
	}
}

// TestFilterLongJumps has more spans than a conditional jump reaches over.
func TestFilterLongJumps(t *testing.T) {
	var list []rule
	for nr := range uint32(600) {
		list = append(list, rule{nr: nr, otherwise: sys.SeccompErrno | nr})
	}
	prog, err := assemble(sys.AuditArch, list, kill)
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, prog)
	for nr := range uint32(600) {
		if got := m.run(t, sys.AuditArch, nr); got != sys.SeccompErrno|nr {
			t.Fatalf("call %d: verdict %#x", nr, got)
		}
	}
	if got := m.run(t, sys.AuditArch, 600); got != kill {
		t.Errorf("call 600: verdict %#x", got)
	}
}

func BenchmarkFilter(b *testing.B) {
	for b.Loop() {
		if _, err := Filter(Config{}); err != nil {
			b.Fatal(err)
		}
	}
}
